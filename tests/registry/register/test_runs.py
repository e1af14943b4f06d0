"""Which cases a model is judged on: sizes, stacked samples, and what is said of sizes that were not seen."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from shipway.registry.errors import ConversionError
from shipway.registry.nouns import TensorSpec, Tolerance
from shipway.registry.process import WorkerError
from shipway.registry.verify import runs
from shipway.registry.verify.golden import Case
from shipway.registry.verify.parity import Array

FP32, INT8 = Tolerance(1e-5, 1e-5), Tolerance(1e-2, 1e-1)
SEQUENCE = (TensorSpec("x", "float32", ("N", "T", 4)),)
SINGLE = "N was only ever 1: that a larger batch gives the right numbers is not shown"


class Trained:
    """A trained model that runs on the shapes that are ``taken``."""

    name = "given"

    def __init__(
        self,
        taken: Callable[[tuple[int, ...]], bool] = lambda shape: True,
        made: Callable[[Array], Array] = lambda x: x,
    ) -> None:
        self._taken, self._made = taken, made

    def run(self, cases: Sequence[Case]) -> list[list[Array]]:
        if not all(self._taken(case["x"].shape) for case in cases):
            raise ConversionError("It does not run on that.")
        return [[self._made(case["x"])] for case in cases]

    def close(self) -> None: ...


def seeded(
    trained: Trained, narrow: Sequence[Tolerance] = (), inputs: Sequence[TensorSpec] = SEQUENCE
) -> tuple[list[runs.Run], list[str]]:
    notes: list[str] = []
    found = runs.seeded(trained, inputs, limits={}, tolerance=FP32, narrow=narrow, notes=notes)
    return found, notes


def shapes(found: Sequence[runs.Run]) -> list[tuple[int, ...]]:
    return [one.case["x"].shape for one in found]


def test_every_dynamic_axis_is_doubled_at_once() -> None:
    found, notes = seeded(Trained())
    assert shapes(found) == [(1, 16, 4), (1, 16, 4), (2, 32, 4)]
    assert not notes


@pytest.mark.parametrize(
    ("taken", "last", "said"),
    [
        (lambda s: s[1] == 16, [(2, 16, 4)], ["the model does not run with N=2, T=32, nor with T=32 alone"]),
        (lambda s: s[0] * s[1] < 64, [(2, 16, 4), (1, 32, 4)], ["the model does not run with N=2, T=32"]),
        (
            lambda s: s[0] == 1,
            [(1, 32, 4)],
            ["the model does not run with N=2, T=32, nor with N=2 alone", SINGLE],
        ),
        (
            lambda s: s[:2] == (1, 16),
            [],
            ["the model does not run with N=2, T=32, nor with N=2 alone, nor with T=32 alone", SINGLE],
        ),
    ],
)
def test_where_that_does_not_run_each_axis_is_doubled_alone(
    taken: Callable[[tuple[int, ...]], bool], last: list[tuple[int, ...]], said: list[str]
) -> None:
    found, notes = seeded(Trained(taken))
    assert shapes(found) == [(1, 16, 4), (1, 16, 4), *last]
    assert notes == said


def test_more_is_tried_until_a_constant_would_fail_the_widest_gate() -> None:
    small = Trained(made=lambda x: x * np.float32(0.005))
    assert len(seeded(small)[0]) == 3
    assert len(seeded(small, [INT8])[0]) == 4
    assert len(seeded(Trained(), [INT8])[0]) == 3
    assert len(seeded(small, [Tolerance(100, 100)])[0]) == 3  # by which zeros pass: no proof is wanted
    pictures = (TensorSpec("x", "float32", (1, 3, 32, 32)),)
    assert len(seeded(small, [INT8], pictures)[0]) == 2 + 4


COUNTED = (*SEQUENCE, TensorSpec("by", "int64", ("N", "T")))


@pytest.mark.parametrize(
    ("taken", "ends", "low", "high", "said"),
    [
        (lambda by: True, None, 0, 3, []),
        (lambda by: by.all(), None, 1, 9, ["by: made from 1 to 9, since the model does not run on 0 to 3"]),
        (
            lambda by: by.max() < 2,
            None,
            0,
            1,
            ["by: made from 0 to 1, since the model does not run on 0 to 3"],
        ),
        # Ended by a signal, it checks nothing: on 1 to 9 it may run and make of them whatever it likes.
        (lambda by: by.all(), "Died", 1, 1, ["by: made always 1, since the model does not run on 0 to 3"]),
    ],
)
def test_whole_numbers_that_the_trained_model_refuses_are_made_otherwise(
    taken: Callable[[Array], bool], ends: str | None, low: int, high: int, said: list[str]
) -> None:
    class Picky(Trained):
        def run(self, cases: Sequence[Case]) -> list[list[Array]]:
            if not all(taken(case["by"]) for case in cases):
                raise ConversionError("It does not run.") from (WorkerError(ends, "") if ends else None)
            return super().run(cases)

    found, notes = seeded(Picky(), inputs=COUNTED)
    assert notes == said
    assert shapes(found) == [(1, 16, 4), (1, 16, 4), (2, 32, 4)]
    made = [one.case["by"] for one in found]
    assert min(array.min() for array in made) == low
    assert max(array.max() for array in made) == high


@pytest.mark.parametrize(("kind", "asked"), [("TimedOut", 1), ("Died", 8), ("ValueError", 16)])
def test_what_runs_on_no_whole_numbers_is_refused_in_the_first_words(kind: str, asked: int) -> None:
    class Broken(Trained):
        runs = 0

        def run(self, cases: Sequence[Case]) -> list[list[Array]]:
            self.runs += 1
            raise ConversionError(f"Refusal {self.runs}.") from WorkerError(kind, "")

    broken = Broken()
    with pytest.raises(ConversionError, match=r"Refusal 1\."):
        seeded(broken, inputs=COUNTED)
    assert broken.runs == asked  # four sizes for each range; what hangs is asked once


def given(
    trained: Trained, *samples: tuple[int, ...], inputs: Sequence[TensorSpec] = SEQUENCE
) -> tuple[list[runs.Run], list[str]]:
    notes: list[str] = []
    cases = [{"x": np.full(shape, index, np.float32)} for index, shape in enumerate(samples)]
    return runs.given(trained, inputs, cases, notes), notes


def test_samples_of_one_batch_size_are_stacked_too() -> None:
    found, notes = given(Trained(), (1, 5, 4), (1, 7, 4), (1, 5, 4))
    assert shapes(found) == [(1, 5, 4), (1, 7, 4), (1, 5, 4), (2, 5, 4)]
    assert [values.mean() for values in found[-1].case["x"]] == [0, 2]  # two unlike ones of a shape
    assert found[-1].sizes == {"N": 2, "T": 5}
    assert not notes
    assert shapes(given(Trained(), (3, 5, 4))[0]) == [(3, 5, 4), (6, 5, 4)]
    assert shapes(given(Trained(), (1, 5, 4), (2, 5, 4))[0]) == [(1, 5, 4), (2, 5, 4)]


def test_a_trained_model_of_one_batch_size_is_told() -> None:
    found, notes = given(Trained(lambda shape: shape[0] == 1), (1, 5, 4))
    assert shapes(found) == [(1, 5, 4)]
    assert notes == ["the model does not run with N=2", SINGLE]


def test_a_fixed_batch_is_left_as_it_is() -> None:
    fixed = (TensorSpec("x", "float32", (1, "T", 4)),)
    found, notes = given(Trained(), (1, 5, 4), inputs=fixed)
    assert shapes(found) == [(1, 5, 4)]
    assert not notes


def test_a_batch_on_two_axes_is_not_stacked() -> None:
    square = (TensorSpec("x", "float32", ("N", "N")),)
    assert shapes(given(Trained(), (1, 1), inputs=square)[0]) == [(1, 1)]
    assert given(Trained(), (1, 1), inputs=square)[1] == [SINGLE]


def test_a_fixed_shape_that_holds_nothing_is_told() -> None:
    with pytest.raises(ConversionError) as caught:
        seeded(Trained(), inputs=(TensorSpec("x", "float32", (0, 4)),))
    assert caught.value.what == "The model gives an empty output."


def test_a_fixed_shape_that_no_memory_holds_is_told() -> None:
    with pytest.raises(ConversionError) as caught:
        seeded(Trained(), inputs=(TensorSpec("x", "float32", (2**20, 2**20)),))
    assert caught.value.what == "No input of the shape 1048576x1048576 can be made for 'x'."

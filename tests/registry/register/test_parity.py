"""The verdict: tables and properties."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from shipway.registry.nouns import NARROW, Tolerance
from shipway.registry.verify import parity

STRICT = Tolerance(1e-5, 1e-5)
arrays = hnp.arrays(
    np.float32,
    hnp.array_shapes(max_dims=3, max_side=5),
    elements=st.floats(-1e6, 1e6, width=32),
)


def judge(reference: object, candidate: object, tolerance: Tolerance = STRICT) -> parity.Link:
    return parity.compare("a", "b", ["y"], [[np.asarray(reference)]], [[np.asarray(candidate)]], tolerance)


F = np.float32


@pytest.mark.parametrize(
    ("reference", "candidate", "passed"),
    [
        (F([1, 2]), F([1, 2]), True),
        (F([1, 2]), F([1, 2.00002]), True),  # allowed: 1e-5 + 2 * 1e-5
        (F([1, 2]), F([1, 2.0001]), False),
        (F([3200]), F([3200.03]), True),  # large outputs are judged by their scale
        (F([3200]), F([3200.1]), False),
        (F([0, 0]), F([0, 1e-6]), True),
        (F([1, 2]), F([1, math.nan]), False),
        (F([1, math.nan]), F([1, math.nan]), False),
        (F([1, math.inf]), F([1, math.inf]), False),
        (F([1, 2]), F([[1, 2]]), False),
        (F([1, 2]), F([1]), False),
        (np.array([1, 2]), np.array([1, 2]), True),
        (np.array([1, 2]), np.array([1, 3]), False),
        (np.array([1, 2]), F([1, 2]), False),  # integers are no floats
        (np.array([True, False]), np.array([True, False]), True),
        (np.array([True, False]), np.array([True, True]), False),
        (np.zeros((0, 4), F), np.zeros((0, 4), F), True),
    ],
)
def test_table(reference: np.ndarray, candidate: np.ndarray, passed: bool) -> None:
    assert judge(reference, candidate).passed is passed


def test_one_wrong_output_of_one_case_fails_the_link() -> None:
    good, bad = F([1, 2]), F([1, 3])
    link = parity.compare("a", "b", ["p", "q"], [[good, good]] * 2, [[good, good], [good, bad]], STRICT)
    assert not link.passed
    assert [output.max_abs for output in link.outputs] == [0, 1]
    assert "WRONG" in parity.table([link])


def test_nothing_measured_is_nothing_proved() -> None:
    assert not parity.compare("a", "b", ["y"], [], [], STRICT).passed


@pytest.mark.parametrize(
    ("reference", "candidate", "flat"),
    [
        (F([5e-8, 1e-8]), F([0, 0]), True),
        (F([0, 2.4e-5]), F([0, 1.4e-5]), True),  # 40 % wrong, and allowed
        (F([0, 2.4e-5]), F([0, 2.39e-5]), False),
        (F([5e-8, 1e-8]), F([5e-8, 1e-8]), False),  # no constant is as near
        (F([0.3, 0.3]), F([0.3, 0.3]), True),  # a constant is
        (F([0.3, 0.3]), F([0.3, 0.30000004]), True),
        (F([1e6, 1e6 + 0.5]), F([1e6, 1e6]), True),
        (F([0, 1]), F([0, 1]), False),
        (F([0, 1]), F([0, 1.00001]), False),
        (F([0, 1]), F([0, 2]), False),  # wrong, which is no question of proof
        (np.array([True, True]), np.array([True, True]), True),
        (np.zeros((0, 2)), np.zeros((0, 2)), True),
    ],
)
def test_flat_is_what_is_not_far_nearer_than_a_constant(
    reference: np.ndarray, candidate: np.ndarray, flat: bool
) -> None:
    link = judge(reference, candidate)
    assert link.outputs[0].flat is flat
    assert any("proves little" in note for note in link.notes) is flat
    assert link.tells() is not flat
    assert ("flat" in parity.table([link])) is flat


def test_a_narrow_form_may_be_half_as_far_out_as_a_constant() -> None:
    def flat(target: str, error: float) -> bool:
        pairs = [[F([0, 0.02])]], [[F([0, 0.02 - error])]]
        return parity.compare("a", target, ["y"], *pairs, Tolerance(1e-2, 1e-1)).outputs[0].flat

    for target in NARROW:
        assert not flat(target, 0.004)
        assert flat(target, 0.006)


def test_a_link_tells_something_where_an_output_does_and_of_narrow_forms_all_do() -> None:
    told, flat, same = F([0, 1]), F([0, 0.01]), F([0.5, 0.5])

    def tells(target: str, *outputs: np.ndarray, rtol: float = 0.1, constant: tuple[str, ...] = ()) -> bool:
        names = [f"y{index}" for index in range(len(outputs))]
        candidate = [output + F(0.009) * (output == output.max()) for output in outputs]
        given = Tolerance(1e-2, rtol)
        return parity.compare("a", target, names, [outputs], [candidate], given).tells(constant)

    assert tells("onnx", told, flat)
    assert not tells("onnx", flat)
    assert tells("int8", told, told)
    assert not tells("int8", told, flat)  # of two outputs one may have collapsed
    assert tells("int8", told, same, constant=("y1",))  # there is nothing in it that could
    assert not tells("int8", same, constant=("y0",))
    assert tells("int8", flat, rtol=1.0)  # zeros are allowed: no proof is wanted


def test_top1_counts_rows_of_classifiers_only() -> None:
    reference = F([[0.1, 0.9, 0], [0.6, 0.4, 0]])
    candidate = F([[0.2, 0.8, 0], [0.4, 0.6, 0]])
    assert judge(reference, candidate).outputs[0].top1 == 0.5
    assert judge(reference[None, None], candidate[None, None]).outputs[0].top1 is None


@given(arrays)
def test_a_model_equals_itself(array: np.ndarray) -> None:
    output = judge(array, array.copy()).outputs[0]
    assert output.max_abs == 0
    assert output.cosine == pytest.approx(1)
    assert output.scale == float(np.abs(array).max())


@given(arrays, st.data())
def test_the_verdict_is_the_rule(array: np.ndarray, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, array.size - 1))
    shift = data.draw(st.floats(-10, 10, width=32))
    other = array.copy()
    other.ravel()[index] += np.float32(shift)
    link = judge(array, other)
    error = np.abs(array.astype(np.float64) - other.astype(np.float64)).max()
    assert link.passed == (error <= 1e-5 + 1e-5 * np.abs(array.astype(np.float64)).max())
    assert (parity.excess(link.outputs[0], STRICT) <= 1) == link.passed


@given(arrays, st.data())
def test_nan_never_passes(array: np.ndarray, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, array.size - 1))
    other = array.copy()
    other.ravel()[index] = math.nan
    generous = Tolerance(1e30, 1e30)
    assert not judge(array, other, generous).passed
    assert not judge(other, array, generous).passed


@given(arrays, st.floats(0, 1e3))
def test_the_spread_is_how_far_out_the_best_constant_is(array: np.ndarray, other: float) -> None:
    values = array.astype(np.float64)
    middle = (values.max() + values.min()) / 2
    spread = parity.spread_of([array])
    assert np.abs(values - middle).max() == pytest.approx(spread, abs=1e-9)
    assert np.abs(values - other).max() >= spread * (1 - 1e-9)


@given(arrays, arrays)
def test_cosine_is_bounded(a: np.ndarray, b: np.ndarray) -> None:
    if a.shape == b.shape:
        assert -1 <= parity.cosine_similarity([a], [b]) <= 1


def test_integers_that_pass_though_they_differ_are_told() -> None:
    """An id that is near is another id all the same."""
    right, near = np.array([5, 6000, 123]), np.array([5, 5800, 700])
    link = judge(right, near, Tolerance(1e-2, 1e-1))
    assert link.passed
    assert link.notes == ("y: whole numbers, 2 of 3 differ: what that means, the tolerance can't tell",)
    assert not judge(right, right).notes
    assert not judge(right, near).passed

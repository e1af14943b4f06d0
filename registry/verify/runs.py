"""Which inputs to judge on: those that the trained model runs on, that are of several sizes and that tell
something; and what it makes of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from shipway.registry.errors import ConversionError
from shipway.registry.nouns import TensorSpec, Tolerance
from shipway.registry.process import WorkerError
from shipway.registry.verify import golden, parity
from shipway.registry.verify.golden import Case
from shipway.registry.verify.parity import Array
from shipway.registry.verify.reference import Reference

SEED = 20240229  # any number will do, as long as it is always the same
_RESOLUTION = 100  # outputs should vary by this many times what fp32 may be off, or the check says little


@dataclass(frozen=True, slots=True)
class Run:
    """One case, the sizes of its named axes, and the reference's outputs."""

    sizes: Mapping[str, int]
    case: Case
    outputs: list[Array]


def given(
    reference: Reference, inputs: Sequence[TensorSpec], samples: Sequence[Case], notes: list[str]
) -> list[Run]:
    """The user's samples; last, where they are all of one batch size, two of them stacked if the model runs
    on that: a batch that a conversion froze is not to pass."""

    def run(cases: Sequence[Case]) -> list[Run]:
        made = reference.run(cases)
        return [Run(_sizes_of(inputs, c), c, o) for c, o in zip(cases, made, strict=True)]

    runs = run(samples)
    batch = _batch_axes(inputs)
    if any(len({one.sizes[name] for one in runs}) == 1 for name in batch):
        stacked = _stacked(inputs, batch, samples)
        if stacked is not None:
            try:
                runs += run([stacked])
            except ConversionError:
                sizes = _sizes_of(inputs, stacked)
                notes.append(f"the model does not run with {_listed({name: sizes[name] for name in batch})}")
    _note_single(runs, batch, notes)
    return runs


def seeded(
    reference: Reference,
    inputs: Sequence[TensorSpec],
    *,
    limits: Mapping[str, int],
    tolerance: Tolerance,
    narrow: Sequence[Tolerance],
    notes: list[str],
) -> list[Run]:
    """Two small cases of noise and one with every dynamic axis twice as large (where that does not run, each
    on its own); where the outputs hardly vary, pictures of rising contrast until they do.

    Where whole numbers are ones that the reference refuses, others are made. What it runs on stays, whatever
    a converted model makes of it.

    ``tolerance`` is fp32's, ``narrow`` those of the other precisions that are wanted.
    """
    maker = _Maker(reference, inputs, limits)
    _begin(maker, notes)
    runs = maker.runs
    sizes = runs[0].sizes
    _grow(maker, sizes, notes)
    _note_single(runs, _batch_axes(inputs), notes)
    pictures = any(golden.is_picture(spec) for spec in inputs)
    for contrast in golden.CONTRASTS if pictures else (None,):
        if _is_telling([one.outputs for one in runs], tolerance, narrow):
            break
        runs.insert(0, maker.run(sizes, contrast))  # the case that tells most is the one to travel
    return runs


@dataclass(slots=True)
class _Maker:
    """Makes cases and runs them: each from a seed of its own, whole numbers in the range ``whole``."""

    reference: Reference
    inputs: Sequence[TensorSpec]
    limits: Mapping[str, int]
    whole: tuple[int, int] = golden.RANGES[0]
    runs: list[Run] = field(default_factory=list)  # those that are kept

    def run(self, sizes: Mapping[str, int], contrast: int | None = None) -> Run:
        """One more, for the caller to keep. Raises ConversionError where the reference can't run it."""
        case = golden.make_case(
            self.inputs,
            sizes,
            seed=SEED + len(self.runs),
            limits=self.limits,
            contrast=contrast,
            whole=self.whole,
        )
        return Run(sizes, case, self.reference.run([case])[0])


def _begin(maker: _Maker, notes: list[str]) -> None:
    """Keep two runs of the first sizes that the model takes, of whole numbers that it does not refuse."""
    counts = golden.counts(maker.inputs, maker.limits)
    failure: ConversionError | None = None
    died = False
    for whole in golden.RANGES if counts else golden.RANGES[:1]:
        if died and whole != golden.ONES:
            continue  # it does not check what it is given: what it makes of other numbers may be anything
        maker.whole = whole
        maker.runs.clear()
        try:
            maker.runs.append(_first_that_runs(maker))
            maker.runs.append(maker.run(maker.runs[0].sizes))
            break
        except ConversionError as error:
            failure, died = failure or error, died or _ended(error, "Died")
            if _ended(error, "TimedOut"):
                raise
    else:
        assert failure is not None
        raise failure
    if failure is not None:
        notes.append(_refused(counts, maker.whole))


def _ended(failure: ConversionError | None, kind: str) -> bool:
    """Whether the worker ended so (``WorkerError.kind``) over what was asked of it."""
    cause = failure.__cause__ if failure else None
    return isinstance(cause, WorkerError) and cause.kind == kind


def _refused(counts: Sequence[str], whole: tuple[int, int]) -> str:
    """The note on whole numbers that were made otherwise than usual."""
    (low, high), (least, most) = whole, golden.RANGES[0]
    made = f"from {low} to {high - 1}" if high - low > 1 else f"always {low}"
    return f"{', '.join(counts)}: made {made}, since the model does not run on {least} to {most - 1}"


def _grow(maker: _Maker, sizes: Mapping[str, int], notes: list[str]) -> None:
    """Keep a run with all named axes twice as large, else one for each that may be so alone."""

    def runs_with(wanted: Mapping[str, int]) -> bool:
        try:
            maker.runs.append(maker.run(wanted))
        except ConversionError:
            return False
        return True

    grown = golden.larger(sizes)
    if grown is None or runs_with(grown):
        return
    alone = list(sizes) if len(sizes) > 1 else []
    failed = [name for name in alone if not runs_with({**sizes, name: grown[name]})]
    told = [_listed(grown), *(f"{name}={grown[name]} alone" for name in failed)]
    notes.append(f"the model does not run with {', nor with '.join(told)}")


def _first_that_runs(maker: _Maker) -> Run:
    """With the first sizes of the dynamic axes that the model takes; else raises what it said first."""
    failure: ConversionError | None = None
    for sizes in golden.axis_sizes(maker.inputs):
        try:
            found = maker.run(sizes)
        except ConversionError as error:
            if _ended(error, "TimedOut"):
                raise  # what hangs once would hang at each size
            failure = failure or error
            continue
        if all(output.size for output in found.outputs):
            return found
        failure = failure or ConversionError(
            f"The model gives an empty output{' on ' if sizes else ''}{_listed(sizes)}.",
            remedy="Say which shapes it takes, or give real inputs: --input NAME:DTYPE:SHAPE, --samples DIR.",
        )
    assert failure is not None
    raise failure


def _is_telling(
    results: Sequence[Sequence[Array]], tolerance: Tolerance, narrow: Sequence[Tolerance]
) -> bool:
    """Whether every output varies by far more than fp32 may be off, and by more than any precision may."""
    for outputs in zip(*results, strict=True):
        scale = max(float(np.abs(output).max(initial=0)) for output in outputs)
        wanted = [_RESOLUTION * tolerance.bound(scale)]
        wanted += [one.bound(scale) for one in narrow if one.rtol < 1]
        if parity.spread_of(outputs) <= max(wanted):
            return False
    return True


def _batch_axes(inputs: Sequence[TensorSpec]) -> list[str]:
    """The names of the first axes that may be of any size."""
    return list(dict.fromkeys(s.shape[0] for s in inputs if s.shape and isinstance(s.shape[0], str)))


def _stacked(inputs: Sequence[TensorSpec], batch: Sequence[str], samples: Sequence[Case]) -> Case | None:
    """The first sample and another of its shapes (itself where there is none) as one case of both; None
    where an input has its batch on two axes."""
    first = samples[0]
    alike = (other for other in samples[1:] if all(other[k].shape == first[k].shape for k in first))
    second = next(alike, first)
    case: Case = {}
    for spec in inputs:
        axes = [axis for axis, size in enumerate(spec.shape) if size in batch]
        if len(axes) > 1:
            return None
        name = spec.name
        case[name] = np.concatenate([first[name], second[name]], axes[0]) if axes else first[name]
    return case


def _note_single(runs: Sequence[Run], batch: Sequence[str], notes: list[str]) -> None:
    notes.extend(
        f"{name} was only ever 1: that a larger batch gives the right numbers is not shown"
        for name in batch
        if all(one.sizes[name] == 1 for one in runs)
    )


def _sizes_of(inputs: Sequence[TensorSpec], case: Case) -> dict[str, int]:
    return {
        size: case[spec.name].shape[axis]
        for spec in inputs
        for axis, size in enumerate(spec.shape)
        if isinstance(size, str)
    }


def _listed(sizes: Mapping[str, int]) -> str:
    return ", ".join(f"{name}={size}" for name, size in sizes.items())

"""The equivalence chain: one golden set, every hop measured on it.

Every form of the model is held against the trained model itself, not against the form before it, so that
small errors can't add up unseen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from shipway.registry.errors import ConversionError, VerificationError
from shipway.registry.nouns import Digest, Link, TensorSpec, Tolerance
from shipway.registry.verify import golden, measure, parity
from shipway.registry.verify.golden import Case
from shipway.registry.verify.parity import Array
from shipway.registry.verify.reference import Reference

SEED = 20240229  # any number will do, as long as it is always the same
_RESOLUTION = 100  # outputs should vary by this many times what they may be off, or the check says little


@dataclass(frozen=True, slots=True)
class GoldenSet:
    """Cases and what the reference makes of them. The first case is the one that travels."""

    source: str
    names: tuple[str, ...]
    cases: tuple[Case, ...]
    outputs: tuple[list[Array], ...]
    sizes: tuple[Mapping[str, int], ...]  # of the named axes, per case
    notes: tuple[str, ...] = ()
    given: int = 0  # so many of the cases, the first, are the user's samples

    @property
    def samples(self) -> Digest | None:
        """Names the user's samples by what is in them, whatever their inputs are called; None without."""
        if not self.given:
            return None
        arrays = [array for case in self.cases[: self.given] for array in case.values()]
        parts = [f"{array.dtype}{array.shape}{Digest.of(array.tobytes())}" for array in arrays]
        return Digest.of("\n".join(parts).encode())

    def seen(self) -> list[tuple[Mapping[str, int], list[tuple[int, ...]]]]:
        """Axis sizes and output shapes of each case."""
        return [
            (sizes, [output.shape for output in outputs])
            for sizes, outputs in zip(self.sizes, self.outputs, strict=True)
        ]

    def excess(self, path: Path, tolerance: Tolerance, *, quick: bool = False) -> float:
        """How far out the worst output is: at most 1.0 passes. ``quick``: on the first case alone."""
        some = slice(1) if quick else slice(None)
        candidate = measure.run(measure.session(path), self.cases[some])
        link = parity.compare("", "", self.names, self.outputs[some], candidate, tolerance)
        return max(parity.excess(output, tolerance) for output in link.outputs)

    def worst_case(self, path: Path, tolerance: Tolerance) -> Case:
        """The case on which the model at ``path`` is furthest out."""
        candidate = measure.run(measure.session(path), self.cases)

        def excess(index: int) -> float:
            some = slice(index, index + 1)
            link = parity.compare("", "", self.names, self.outputs[some], candidate[some], tolerance)
            return max(parity.excess(output, tolerance) for output in link.outputs)

        return self.cases[max(range(len(self.cases)), key=excess)]

    def medians_ms(self, paths: Mapping[str, Path], provider: str = measure.CPU) -> dict[str, float]:
        """How long runs of these models take on the case that travels, on one CPU thread.

        A model that another provider than the CPU's does not take is left out: ONNX Runtime would fall back.
        """
        loaded = {}
        for name, path in paths.items():
            try:
                session = measure.session(path, provider=provider)
            except ConversionError:
                if provider == measure.CPU:
                    raise
                continue
            if session.get_providers()[0] == provider:
                loaded[name] = session
        return {name: round(time, 3) for name, time in measure.medians_ms(loaded, self.cases[0]).items()}

    def link(self, path: Path, target: str, tolerance: Tolerance) -> Link:
        """Run the model at ``path`` on every case and hold it against the reference."""
        candidate = measure.run(measure.session(path), self.cases)
        return parity.compare(self.source, target, self.names, self.outputs, candidate, tolerance, self.notes)


def golden_set(
    reference: Reference,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    *,
    limits: Mapping[str, int],
    tolerance: Tolerance,
    samples: Sequence[Case] = (),
) -> GoldenSet:
    """Find inputs that the model runs on and that tell something, and run the reference on them.

    With ``samples`` those and nothing else. Otherwise two small cases of noise and one with every dynamic
    axis twice as large; where the outputs hardly vary (a detector sees nothing in noise), pictures of rising
    contrast until they do.
    Raises ConversionError where the reference runs on nothing that was tried.
    """
    notes: list[str] = []
    if samples:
        made = reference.run(samples)
        runs = [_Run(_sizes_of(inputs, c), c, o) for c, o in zip(samples, made, strict=True)]
    else:
        runs = _seeded_runs(reference, inputs, limits, tolerance, notes)
    names = tuple(spec.name for spec in outputs)
    if len(runs[0].outputs) != len(names):
        raise ConversionError(
            f"The converted model has {len(names)} outputs, {reference.name} gives {len(runs[0].outputs)}.",
            remedy="Report this with the model: the converter dropped or split an output.",
        )
    return GoldenSet(
        source=reference.name,
        names=names,
        cases=tuple(run.case for run in runs),
        outputs=tuple(run.outputs for run in runs),
        sizes=tuple(run.sizes for run in runs),
        notes=tuple(notes),
        given=len(samples),
    )


@dataclass(frozen=True, slots=True)
class _Run:
    sizes: Mapping[str, int]
    case: Case
    outputs: list[Array]


def _seeded_runs(
    reference: Reference,
    inputs: Sequence[TensorSpec],
    limits: Mapping[str, int],
    tolerance: Tolerance,
    notes: list[str],
) -> list[_Run]:
    def run(sizes: Mapping[str, int], contrast: int | None = None) -> _Run:
        case = golden.make_case(inputs, sizes, seed=SEED + len(runs), limits=limits, contrast=contrast)
        return _Run(sizes, case, reference.run([case])[0])

    runs: list[_Run] = []
    runs.append(_first_that_runs(run, inputs))
    sizes = runs[0].sizes
    runs.append(run(sizes))
    if (grown := golden.larger(sizes)) is not None:
        try:
            runs.append(run(grown))
        except ConversionError:
            notes.append(f"the model does not run with {_listed(grown)}")
    pictures = any(golden.is_picture(spec) for spec in inputs)
    for contrast in golden.CONTRASTS if pictures else (None,):
        if _is_telling([run.outputs for run in runs], tolerance):
            break
        runs.insert(0, run(sizes, contrast))  # the case that tells most is the one to travel
    return runs


def require(links: Sequence[Link], what: str, remedy: str) -> None:
    """Raise VerificationError with the table of outputs unless every link passed."""
    if all(link.passed for link in links):
        return
    wrong = [link for link in links if not link.passed]
    notes = [note for link in wrong for note in link.notes]
    raise VerificationError(what, why="\n".join([parity.table(links), *notes]), remedy=remedy)


def _first_that_runs(run: Callable[[Mapping[str, int]], _Run], inputs: Sequence[TensorSpec]) -> _Run:
    """With the first sizes of the dynamic axes that the model takes; else raises what it said first."""
    failure: ConversionError | None = None
    for sizes in golden.axis_sizes(inputs):
        try:
            found = run(sizes)
        except ConversionError as error:
            failure = failure or error
            continue
        if all(output.size for output in found.outputs):
            return found
        failure = failure or ConversionError(
            f"The model gives an empty output on {_listed(sizes)}.",
            remedy="Say which shapes it takes, or give real inputs: --input NAME:DTYPE:SHAPE, --samples DIR.",
        )
    assert failure is not None
    raise failure


def _is_telling(results: Sequence[Sequence[Array]], tolerance: Tolerance) -> bool:
    """Whether every output varies by far more than it may be off."""
    for outputs in zip(*results, strict=True):
        scale = max(float(np.abs(output).max(initial=0)) for output in outputs)
        if parity.is_flat(outputs, _RESOLUTION * (tolerance.atol + tolerance.rtol * scale)):
            return False
    return True


def _sizes_of(inputs: Sequence[TensorSpec], case: Case) -> dict[str, int]:
    return {
        size: case[spec.name].shape[axis]
        for spec in inputs
        for axis, size in enumerate(spec.shape)
        if isinstance(size, str)
    }


def _listed(sizes: Mapping[str, int]) -> str:
    return ", ".join(f"{name}={size}" for name, size in sizes.items())

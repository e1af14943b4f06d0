"""The equivalence chain: one golden set, every hop measured on it.

Every form of the model is held against the trained model itself, not against the form before it, so that
small errors can't add up unseen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from shipway.registry.errors import ConversionError, VerificationError
from shipway.registry.nouns import Link, TensorSpec, Tolerance
from shipway.registry.verify import golden, measure, parity
from shipway.registry.verify.golden import Case
from shipway.registry.verify.parity import Array
from shipway.registry.verify.reference import Reference

SEED = 20240229  # any number will do, as long as it is always the same
_CONTRASTS = (10, 20, 40, 80)  # of the pictures that are tried where noise gives nearly nothing
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

    def seen(self) -> list[tuple[Mapping[str, int], list[tuple[int, ...]]]]:
        """Axis sizes and output shapes of each case."""
        return [
            (sizes, [output.shape for output in outputs])
            for sizes, outputs in zip(self.sizes, self.outputs, strict=True)
        ]

    def excess(self, path: Path, tolerance: Tolerance, *, quick: bool = False) -> float:
        """How far out the worst output of the model at ``path`` is: at most 1.0 passes. ``quick``: one case."""
        some = slice(1) if quick else slice(None)
        candidate = measure.run(measure.session(path), self.cases[some])
        link = parity.compare("", "", self.names, self.outputs[some], candidate, tolerance)
        return max(parity.excess(output, tolerance) for output in link.outputs)

    def link(self, path: Path, target: str, tolerance: Tolerance, source: str = "") -> Link:
        """Run the model at ``path`` on every case and hold it against the reference."""
        candidate = measure.run(measure.session(path), self.cases)
        return parity.compare(
            source or self.source, target, self.names, self.outputs, candidate, tolerance, self.notes
        )


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

    With ``samples`` those and nothing else. Otherwise two small cases of noise and one with every dynamic axis
    twice as large; where the outputs hardly vary (a detector sees nothing in noise), pictures of rising
    contrast until they do.
    Raises ConversionError where the reference runs on nothing that was tried.
    """
    names = tuple(spec.name for spec in outputs)
    if samples:
        made = reference.run(samples)
        sizes = tuple(_sizes_of(inputs, case) for case in samples)
        return GoldenSet(reference.name, names, tuple(samples), tuple(made), sizes)

    sizes, first = _first_that_runs(reference, inputs, limits)
    cases, used, results, notes = [first[0]], [sizes], [first[1]], []

    def add(at: Mapping[str, int], contrast: int | None = None) -> None:
        case = golden.make_case(inputs, at, seed=SEED + len(cases), limits=limits, contrast=contrast)
        results.extend(reference.run([case]))
        cases.append(case)
        used.append(at)

    add(sizes)
    if (grown := golden.larger(sizes)) is not None:
        try:
            add(grown)
        except ConversionError:
            notes.append(f"the model does not run with {_listed(grown)}")
    pictures = any(golden.is_picture(spec) for spec in inputs)
    for contrast in _CONTRASTS if pictures else (None,):
        if _is_telling(results, tolerance):
            break
        add(sizes, contrast)
        for row in (cases, used, results):
            row.insert(0, row.pop())  # the case that tells most is the one to travel
    if len(results[0]) != len(names):
        raise ConversionError(
            f"The converted model has {len(names)} outputs, {reference.name} gives {len(results[0])}.",
            remedy="Report this with the model: the converter dropped or split an output.",
        )
    return GoldenSet(reference.name, names, tuple(cases), tuple(results), tuple(used), tuple(notes))


def require(links: Sequence[Link], what: str, remedy: str) -> None:
    """Raise VerificationError with the table of outputs unless every link passed."""
    if all(link.passed for link in links):
        return
    wrong = [link for link in links if not link.passed]
    notes = [note for link in wrong for note in link.notes]
    raise VerificationError(what, why="\n".join([parity.table(links), *notes]), remedy=remedy)


def _first_that_runs(
    reference: Reference, inputs: Sequence[TensorSpec], limits: Mapping[str, int]
) -> tuple[Mapping[str, int], tuple[Case, list[Array]]]:
    failure: ConversionError | None = None
    for sizes in golden.axis_sizes(inputs):
        case = golden.make_case(inputs, sizes, seed=SEED, limits=limits)
        try:
            outputs = reference.run([case])[0]
        except ConversionError as error:
            failure = failure or error
            continue
        if all(output.size for output in outputs):
            return sizes, (case, outputs)
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

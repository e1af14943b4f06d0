"""The equivalence chain: one golden set, every hop measured on it.

Every form of the model is held against the trained model itself, not against the form before it, so that
small errors can't add up unseen.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from shipway.registry.errors import ConversionError, VerificationError
from shipway.registry.nouns import NARROW, Digest, Link, TensorSpec, Tolerance
from shipway.registry.verify import measure, parity, runs
from shipway.registry.verify.golden import Case
from shipway.registry.verify.parity import Array
from shipway.registry.verify.reference import Reference


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
        """How far out the worst output of a narrow form is: at most 1.0 passes. ``quick``: on the first case.

        Out of what the tolerance allows, or of what it may be out and still tell something.
        """
        some = slice(1) if quick else slice(None)
        candidate = measure.run(measure.session(path), self.cases[some])
        link = parity.compare("", NARROW[0], self.names, self.outputs[some], candidate, tolerance)
        worst = max(parity.excess(output, tolerance) for output in link.outputs)
        if tolerance.rtol < 1:
            told = [parity.TOLD_NARROW * parity.spread_of(made) for made in zip(*self.outputs, strict=True)]
            for output, share in zip(link.outputs, told, strict=True):
                if output.name not in self.constant:
                    worst = max(worst, output.max_abs / share)
        return worst

    @property
    def constant(self) -> tuple[str, ...]:
        """The outputs that are always the same, but for rounding."""
        together = zip(self.names, zip(*self.outputs, strict=True), strict=True)
        return tuple(name for name, made in together if not parity.varies(made))

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
        """Run the model at ``path`` on every case and hold it against the reference.

        A link that tells nothing does not pass, whatever its numbers.
        """
        candidate = measure.run(measure.session(path), self.cases)
        link = parity.compare(self.source, target, self.names, self.outputs, candidate, tolerance, self.notes)
        return link if link.tells(self.constant) else dataclasses.replace(link, passed=False)


def golden_set(
    reference: Reference,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    *,
    limits: Mapping[str, int],
    tolerance: Tolerance,
    narrow: Sequence[Tolerance] = (),
    samples: Sequence[Case] = (),
) -> GoldenSet:
    """Find inputs that the model runs on and that tell something, and run the reference on them.

    ``tolerance`` is fp32's, ``narrow`` those of the other precisions that are wanted. See ``runs`` for what
    is tried. Raises ConversionError where the reference runs on nothing that was tried.
    """
    notes: list[str] = []
    if samples:
        found = runs.given(reference, inputs, samples, notes)
    else:
        found = runs.seeded(reference, inputs, limits=limits, tolerance=tolerance, narrow=narrow, notes=notes)
    names = tuple(spec.name for spec in outputs)
    if len(found[0].outputs) != len(names):
        raise ConversionError(
            f"The converted model has {len(names)} outputs, {reference.name} gives {len(found[0].outputs)}.",
            remedy="Report this with the model: the converter dropped or split an output.",
        )
    return GoldenSet(
        source=reference.name,
        names=names,
        cases=tuple(run.case for run in found),
        outputs=tuple(run.outputs for run in found),
        sizes=tuple(run.sizes for run in found),
        notes=tuple(notes),
        given=len(samples),
    )


def require(links: Sequence[Link], what: str, remedy: str) -> None:
    """Raise VerificationError with the table of outputs unless every link passed."""
    if all(link.passed for link in links):
        return
    wrong = [link for link in links if not link.passed]
    notes = [note for link in wrong for note in link.notes]
    raise VerificationError(what, why="\n".join([parity.table(links), *notes]), remedy=remedy)


def require_proof(link: Link, name: str) -> None:
    """Raise VerificationError where the link's numbers are allowed and prove nothing."""
    if link.passed or not all(link.tolerance.allows(o.max_abs, o.scale) for o in link.outputs):
        return
    require(
        [link],
        f"Nothing is proved of {name}: on the golden inputs its outputs hardly vary.",
        "Nothing was registered. Give real inputs on which they do: --samples DIR. Where numbers that prove "
        "nothing are to be accepted, set an rtol of 1 in convert.tolerance in deploy.yaml.",
    )

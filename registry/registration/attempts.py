"""From a source to an ONNX model that is proved: ways are tried in turn until one gives the right numbers.

A way is a toolchain, with the program repaired first where a repair applies, and without. What failed is kept
with its reason: it is recorded with the version, or told where nothing worked.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from shipway.registry import room
from shipway.registry.convert import toolchains
from shipway.registry.convert.source import Source
from shipway.registry.errors import ConversionError, ShipwayError, VerificationError
from shipway.registry.nouns import Json, Link
from shipway.registry.process import WorkerError
from shipway.registry.registration import layers
from shipway.registry.registration.ceilings import as_targets_run_it, too_new

if TYPE_CHECKING:
    import onnx

    from shipway.registry.convert.repairs import Mended
    from shipway.registry.convert.repairs.rules import Applied
    from shipway.registry.convert.running import Bench
    from shipway.registry.registration.draft import Clock, Wish
    from shipway.registry.verify.chain import GoldenSet
    from shipway.registry.verify.reference import Reference


_REAL = ", or real inputs (--samples DIR): noise is harder on interpolation and the like"
DATA = "model.onnx.data"  # beside the graph where a model is too large for one file


@dataclass(frozen=True, slots=True)
class Tried:
    """A way that did not lead to a model whose numbers are right."""

    toolchain: str
    repairs: tuple[str, ...]
    error: ShipwayError

    @property
    def way(self) -> str:
        return self.toolchain + (f" with repairs ({', '.join(self.repairs)})" if self.repairs else "")

    @property
    def why(self) -> str:
        return "\n".join(filter(None, (self.error.what, self.error.why)))

    def to_json(self) -> Json:
        return {"toolchain": self.toolchain, "repairs": list(self.repairs), "why": self.why[:2000]}


@dataclass(frozen=True, slots=True)
class Proved:
    """A model at ``path`` whose first link passed, with the golden set that says so and the way to it.

    ``slimmed`` waits for the optimised model, which is in the making. ``layers``, for ``--bisect``: tensor to
    the layer of the trained model that it belongs to, where known.
    """

    model: onnx.ModelProto
    path: Path
    proof: GoldenSet
    link: Link
    slimmed: Callable[[], onnx.ModelProto]
    toolchain: str
    repairs: tuple[Applied, ...]
    tried: tuple[Tried, ...]
    layers: Mapping[str, str] = field(default_factory=dict[str, str])


def proved(wish: Wish, source: Source, work: Path, bench: Bench | None, clock: Clock) -> Proved:
    """The first way whose numbers are the trained model's, its file at ``work/proved.onnx``.

    ``source`` is a copy to work on, ``bench`` Paddle's worker (None for an ONNX model). Raises UsageError
    where ``--input`` or ``--samples`` do not fit, VerificationError where numbers were all that was wrong,
    else ConversionError.
    """
    from shipway.registry.verify import chain

    tried: list[Tried] = []
    for number, way in enumerate(_ways(wish)):
        folder = work / f"way-{number}"
        folder.mkdir()
        applied: tuple[Applied, ...] = ()
        try:
            with clock.phase("convert"):
                mended = way.mend(wish, source, folder, bench)
                if way.repaired and not mended:
                    continue
                applied = mended.applied if mended else ()
                model, reference = way.convert(wish, source, mended, folder, bench)
            with clock.phase("verify"):
                path = work / "proved.onnx"
                proof, link, slimmed = _measured(wish, model, reference, path)
                chain.require_proof(link, wish.name)
                inside = layers.Inside(wish, way.toolchain, source, mended, folder, bench)
                if wish.bisect and not link.passed:
                    link = dataclasses.replace(link, notes=(*link.notes, inside.explain(path, proof)))
            others = "another --toolchain or convert.opset" + ("" if wish.samples else _REAL)
            chain.require(
                [link],
                f"The conversion of {wish.name} is wrong: its numbers are not the trained model's.",
                f"Nothing was registered. Try {others}; where the difference is one that you accept, raise "
                "convert.tolerance in deploy.yaml.",
            )
            named = inside.names() if wish.bisect else {}
            return Proved(model, path, proof, link, slimmed, way.name, applied, tuple(tried), named)
        except (ConversionError, VerificationError) as error:
            _as_given(error, wish, source)
            room.require(folder, f"{error.what}\n{error.why}")  # no way leads on where nothing can be written
            tried.append(Tried(way.name, tuple(repair.rule for repair in applied), error))
    raise _nothing_worked(wish, tried)


def _as_given(error: ShipwayError, wish: Wish, source: Source) -> None:
    """Name the user's own file, not the copy that was worked on and is gone by the time that this is read."""
    copy, given = str(source.model), str(wish.source.model)
    error.what, error.why = error.what.replace(copy, given), error.why.replace(copy, given)


@dataclass(frozen=True, slots=True)
class _Way:
    toolchain: toolchains.Toolchain | None  # None: the model is ONNX already
    repaired: bool

    @property
    def name(self) -> str:
        return self.toolchain.name if self.toolchain else toolchains.ONNX_AS_IS

    def mend(self, wish: Wish, source: Source, folder: Path, bench: Bench | None) -> Mended | None:
        """The mended program, or None where there is nothing to mend."""
        if not self.repaired or bench is None:
            return None
        from shipway.registry.convert import failing, repairs, running

        program = source.model
        if source.format == "pdmodel":
            program = folder / "translated.json"
            request = {"do": "translate", "model": str(source.model), "out": str(program)}
            try:
                bench.ask(request, timeout=wish.config.timeout_s)
            except WorkerError as error:
                failure = failing.explain(error, running.memory_limit(wish.config.memory))
                raise ConversionError(
                    "The model can't be brought into Paddle 3's form, in which repairs are made.",
                    why=failure.why,
                    remedy=failure.remedy,
                ) from error
        mended = repairs.mend(program, source.params, folder)
        return mended if mended.applied else None

    def convert(
        self, wish: Wish, source: Source, mended: Mended | None, folder: Path, bench: Bench | None
    ) -> tuple[onnx.ModelProto, Reference]:
        """The converted model, which loads, and who says what its numbers must be."""
        from shipway.registry.convert import external, graph, repairs, running
        from shipway.registry.verify import measure, reference

        if self.toolchain is None or bench is None:
            large = bool(source.external) and external.is_large(source.model)
            given = graph.load(source.model, data=not large)
            if large:
                external.gather(given, source.model.parent, folder.parent / DATA)
            return as_targets_run_it(wish, given), reference.OnnxReference(source.model)
        assert source.params is not None
        raw = folder / "raw.onnx"
        pieces = mended.pieces if mended else (repairs.Piece(source.model, source.params, raw),)
        opset = wish.opset_of(self.toolchain)
        for piece in pieces:
            format = "pir" if piece.model.suffix == ".json" else source.format
            running.convert(
                self.toolchain,
                bench,
                Source(format, piece.model, piece.params),
                piece.out,
                opset=opset,
                timeout=wish.config.timeout_s,
                memory=running.memory_limit(wish.config.memory),
                name=wish.source.model.name,
            )
        if mended:
            try:
                repairs.finish(mended, raw)
            except (ValueError, KeyError, TypeError, IndexError) as error:
                raise ConversionError("The repaired parts do not fit together.", why=repr(error)) from error
        measure.session(raw)  # the only proof that the converter's word can be taken: it loads
        model = graph.load(raw)
        if (found := graph.info(model, 0).opset) > opset:
            raise ConversionError(
                f"The converter wrote opset {found} instead of {opset}.",
                remedy="Set a higher convert.opset in deploy.yaml.",
            )
        model = as_targets_run_it(wish, model)
        # An older Paddle can't read all that a newer one writes: then the mended program says what is right.
        judge = mended.reference if mended and source.format == "pir" else source.model
        timeout = wish.config.timeout_s
        return model, reference.PaddleReference(bench, judge, source.params, folder, timeout)


def _ways(wish: Wish) -> Iterator[_Way]:
    if not wish.chains:
        yield _Way(None, repaired=False)
    for toolchain in wish.chains:
        if toolchain.worker:
            yield _Way(toolchain, repaired=True)
        yield _Way(toolchain, repaired=False)


def _measured(
    wish: Wish, model: onnx.ModelProto, reference: Reference, path: Path
) -> tuple[GoldenSet, Link, Callable[[], onnx.ModelProto]]:
    """Give the model readable axes, write it to ``path`` and hold it against the reference.

    The model is optimised meanwhile, unless its data lie beside it: what comes last waits for that.
    """
    from shipway.registry.convert import axes, graph, optimise
    from shipway.registry.verify import chain, golden

    tolerance = wish.config.allowed("fp32")
    asked = [golden.parse_input(text) for text in wish.inputs]
    golden.check_inputs(asked, graph.info(model, 0).inputs)
    axes.name_axes(model, asked)
    interface = graph.info(model, 0)
    large, timeout = path.with_name(DATA).exists(), wish.config.timeout_s
    slimmed = (lambda: model) if large else optimise.begin(model, timeout)
    samples = golden.read_samples(wish.samples, interface.inputs) if wish.samples else ()
    proof = chain.golden_set(
        reference,
        interface.inputs,
        interface.outputs,
        limits=graph.id_limits(model),
        tolerance=tolerance,
        narrow=[wish.config.allowed(precision) for precision in sorted(set(wish.precisions) - {"fp32"})],
        samples=samples,
    )
    if wish.samples and (more := golden.left_out(wish.samples)):
        note = f"of the samples the first {len(samples)} were taken, {more} were not"
        proof = dataclasses.replace(proof, notes=(*proof.notes, note))
    reference.close()
    axes.name_output_axes(model, proof.seen())
    path.write_bytes(graph.to_bytes(model))
    return proof, proof.link(path, "onnx", tolerance), slimmed


def _nothing_worked(wish: Wish, tried: Sequence[Tried]) -> ShipwayError:
    """The one error where one way was tried; else all of them, in the family of who must act."""
    from shipway.registry.convert.running import OpsetTooLowError

    first = tried[0].error
    low = next((attempt.error for attempt in tried if isinstance(attempt.error, OpsetTooLowError)), None)
    if low is not None and wish.config.opset == "auto" and wish.limits:
        target = min(wish.limits, key=lambda name: wish.limits[name].opset)
        if wish.limits[target].opset <= low.opset:
            return too_new(wish, target, low.what)
    if low is not None:
        if wish.config.opset == "auto":
            where = "" if wish.limits else " where no target is configured"
            low.remedy = (
                f"Set convert.opset in deploy.yaml to {low.least} or more: auto takes {low.opset}{where}."
            )
        return low
    if len(tried) == 1:
        return first
    why = "\n".join(f"{attempt.way}: {attempt.why}" for attempt in tried)
    wrong = next((t.error for t in tried if isinstance(t.error, VerificationError)), None)
    if wrong is not None:
        return VerificationError(wrong.what, why=why, remedy=wrong.remedy)
    return ConversionError(
        f"No toolchain converts {wish.source.model.name}.",
        why=why,
        remedy=first.remedy or tried[-1].error.remedy,
    )

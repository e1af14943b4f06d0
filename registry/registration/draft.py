"""Behind ``register``: from a source to a version that lacks only its number, every link measured."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from shipway.registry import files, interrupts, room
from shipway.registry.config.model import ConvertConfig
from shipway.registry.convert import toolchains
from shipway.registry.convert.source import Source
from shipway.registry.errors import ConversionError
from shipway.registry.nouns import Digest, File, Link, ModelVersion, Variant
from shipway.registry.observe import Observer
from shipway.registry.registration import attempts, layers, precisions
from shipway.targets.base import RuntimeLimits

if TYPE_CHECKING:
    import onnx

    from shipway.registry.convert.running import Bench
    from shipway.registry.registration.attempts import Proved
    from shipway.registry.verify.chain import GoldenSet


@dataclass(frozen=True, slots=True)
class Wish:
    """What was asked for, and what the project's targets need."""

    name: str
    source: Source
    inputs: tuple[str, ...]
    samples: Path | None
    chains: tuple[toolchains.Toolchain, ...]  # to try, in order; none for an ONNX model
    opset: int  # for the first of them
    limits: Mapping[str, RuntimeLimits]
    precisions: Mapping[str, tuple[str, ...]]  # precision -> the targets that ask for it
    config: ConvertConfig
    bisect: bool  # where a link fails, look for the layer

    def identity(self) -> Digest:
        options = {
            "inputs": sorted(self.inputs),
            "samples": _samples_digests(self.samples) if self.samples else None,
            "toolchain": "+".join(toolchains.names(self.chains)) or toolchains.ONNX_AS_IS,
            "opset": self.opset,
            **({"external_data": "always"} if self.config.external_data == "always" else {}),
            "tolerances": {p: self.config.allowed(p).to_json() for p in sorted(self.precisions)},
        }
        return self.source.identity(options)

    def opset_of(self, toolchain: toolchains.Toolchain) -> int:
        """The opset to ask of ``toolchain``. Raises ConversionError where it does not write what is asked."""
        return toolchains.choose_opset(self.config.opset, self.limits, toolchain.opsets)


@dataclass(slots=True)
class Clock:
    """Seconds per phase, told to the observer as they pass."""

    observer: Observer
    seconds: dict[str, float] = field(default_factory=dict)

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        interrupts.check()
        began = time.monotonic()
        try:
            with self.observer.phase(name):
                yield
        finally:
            self._add(name, time.monotonic() - began)

    def _add(self, name: str, seconds: float) -> None:
        before = self.seconds.get(name, 0.0)  # a phase comes again where another toolchain is tried
        self.seconds[name] = round(before + seconds, 3)


def verified(
    wish: Wish, identity: Digest, work: Path, bench: Bench | None, clock: Clock
) -> tuple[ModelVersion, Path, Path]:
    """The version but for its number, the folder with its files as MLflow will hold it, an example."""
    from shipway.registry.convert import graph
    from shipway.registry.convert.identity import canonical_digest
    from shipway.registry.verify import measure

    source = wish.source.copy_into(_made(work / "source"))
    import_early()
    found = attempts.proved(wish, source, work, bench, clock)
    if bench is not None:
        bench.dismiss()  # its cores are wanted for what follows
    folder = _made(work / "version")
    canonical = _canonical(wish, found, work, folder, clock)
    with clock.phase("variants"):
        variants = _variants(wish, found, canonical, work, folder)
        latency = precisions.latency(variants, found.proof, folder)
    golden_files, example = _write_golden(folder, work, found.proof)
    info = graph.info(canonical.model, 0)
    samples = found.proof.samples
    draft = ModelVersion(
        name=wish.name,
        version=0,
        digest=canonical_digest(canonical.model, folder),
        source=identity,
        toolchain=found.toolchain,
        opset=info.opset,
        ir=info.ir,
        operators=info.operators,
        inputs=info.inputs,
        outputs=info.outputs,
        links=variants[0].links,
        variants=tuple(variants),
        golden=golden_files,
        assets=_copy_assets(wish.source.assets, folder),
        extra={
            "seconds": dict(clock.seconds),
            "latency_ms": latency[measure.CPU],
            "latency_by_provider": latency,
            "notes": [*canonical.notes, *precisions.no_gain(variants, latency[measure.CPU])],
            "samples": str(samples) if samples else None,
            "repairs": [repair.to_json() for repair in found.repairs],
            "tried": [attempt.to_json() for attempt in found.tried],
        },
    )
    return draft, folder, example


@dataclass(frozen=True, slots=True)
class _Canonical:
    """The fp32 model, at ``path`` in the version's folder, of which the other precisions are made."""

    model: onnx.ModelProto
    path: Path
    variant: Variant
    notes: tuple[str, ...]

    @property
    def is_large(self) -> bool:
        """Whether its tensors' data lie in a file beside it."""
        return len(self.variant.files) > 1


def _canonical(wish: Wish, found: Proved, work: Path, folder: Path, clock: Clock) -> _Canonical:
    """Bring the proved model into ``folder``, optimised where it fits into one file and stays right."""
    from shipway.registry.verify import branches

    paths = [folder / "model.onnx"]
    found.path.replace(paths[0])
    if (data := work / attempts.DATA).exists():
        paths.append(data.rename(folder / attempts.DATA))
        model, links, refusal = found.model, [found.link], "not optimised: it is too large for one file"
    else:
        with clock.phase("optimise"):
            model, links, refusal = _optimised(wish, found, paths[0], work)
    with clock.phase("verify"):
        missed = branches.never_taken(model, found.proof.cases, folder, work)
    described = tuple(files.describe(path, path.name) for path in paths)
    notes = (*filter(None, [refusal]), *missed)
    return _Canonical(model, paths[0], Variant("fp32", described, tuple(links)), notes)


def _variants(wish: Wish, found: Proved, canonical: _Canonical, work: Path, folder: Path) -> list[Variant]:
    """The canonical model, then the other precisions that targets ask for."""
    make = precisions.large if canonical.is_large else precisions.small
    others = sorted(set(wish.precisions) - {"fp32"})
    variants = [canonical.variant]
    variants += [make(wish, precision, canonical.path, found, work, folder) for precision in others]
    if wish.config.external_data == "always" and not canonical.is_large:
        variants = [precisions.outside(wish, variant, found.proof, folder) for variant in variants]
    return variants


def import_early() -> None:
    """Import what is needed later while the children are importing: then nobody waits for it."""
    from shipway.registry.convert import optimise, repairs  # noqa: F401
    from shipway.registry.verify import chain  # noqa: F401

    optimise.warm()


def _optimised(wish: Wish, found: Proved, path: Path, work: Path) -> tuple[onnx.ModelProto, list[Link], str]:
    """The leaner model, in place at ``path``, and its links; or the same one and why it stays."""
    from shipway.registry.convert import graph

    attempt, tolerance = work / "optimised.onnx", wish.config.allowed("fp32")
    as_proved = found.model, [found.link]
    try:
        leaner = found.slimmed()
        attempt.write_bytes(graph.to_bytes(leaner))
        link = found.proof.link(attempt, "optimised", tolerance)
    except ConversionError as error:
        room.require(work, error.why)
        return *as_proved, f"not optimised: {error.what} {error.why}"
    if not link.passed:
        why = "not optimised: the numbers were no longer the trained model's"
        if wish.bisect:
            why += f"\n{layers.of_forms(path, attempt, found, tolerance)}"
        return *as_proved, why
    attempt.replace(path)
    return leaner, [found.link, link], ""


def _write_golden(folder: Path, work: Path, proof: GoldenSet) -> tuple[tuple[File, ...], Path]:
    import numpy as np

    from shipway.registry.verify import slice

    paths = slice.write(folder / "shipway/golden", proof.cases[0], proof.names, proof.outputs[0])
    example = work / "example.npz"
    np.savez(example, **proof.cases[0])  # type: ignore[arg-type]
    return tuple(files.describe(path, f"golden/{path.name}") for path in paths), example


def _copy_assets(assets: Sequence[Path], folder: Path) -> tuple[File, ...]:
    kept = []
    for asset in assets:
        place = folder / "shipway/assets" / asset.name
        files.copy_atomic(asset, place)
        kept.append(files.describe(place, f"assets/{asset.name}"))
    return tuple(kept)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


def _samples_digests(samples: Path) -> list[str]:
    paths = sorted(samples.iterdir()) if samples.is_dir() else [samples]
    return [str(files.digest_of(path)) for path in paths if path.is_file()]

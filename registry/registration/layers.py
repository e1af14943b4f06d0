"""``--bisect``: where a link of the chain fails, the first layer that differs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from shipway.registry.convert import toolchains
from shipway.registry.convert.source import Source
from shipway.registry.nouns import Tolerance
from shipway.registry.process import WorkerError

if TYPE_CHECKING:
    from shipway.registry.convert.repairs import Mended
    from shipway.registry.convert.running import Bench
    from shipway.registry.convert.watched import Value
    from shipway.registry.registration.attempts import Proved
    from shipway.registry.registration.draft import Wish
    from shipway.registry.verify.chain import GoldenSet


@dataclass(frozen=True, slots=True)
class Inside:
    """A look into the trained model along a way that was tried: what was converted, and from what."""

    wish: Wish
    toolchain: toolchains.Toolchain | None
    source: Source
    mended: Mended | None
    folder: Path
    bench: Bench | None

    def names(self) -> Mapping[str, str]:
        """Tensor to layer of the trained model, where Paddle knows layers; else empty."""
        try:
            return {name: value.layer for name, value in self._shared()[1].items() if value.layer}
        except _UnseenError:
            return {}

    def explain(self, path: Path, proof: GoldenSet) -> str:
        """The first layer of the converted model at ``path`` that differs, as a table."""
        from shipway.registry.verify import bisect

        tolerance = self.wish.config.allowed("fp32")
        good: bisect.Form
        if self.bench is None:
            good = bisect.OnnxForm(self.source.model, self.folder)
        else:
            try:
                program, shared = self._shared()
            except _UnseenError as error:
                return f"the layers can't be compared: {error}"
            assert self.source.params is not None
            good = bisect.PaddleForm(
                *(self.bench, program, self.source.params, shared), self.folder, self.wish.config.timeout_s
            )
        case = proof.worst_case(path, tolerance)
        return bisect.explain(good, bisect.OnnxForm(path, self.folder), case, tolerance)

    def _shared(self) -> tuple[Path, Mapping[str, Value]]:
        """The trained model's program in Paddle 3's form, and those of its values that were converted."""
        from shipway.registry.convert import watched

        if self.toolchain is None or self.bench is None:
            raise _UnseenError("the model was ONNX when it came")
        if not self.toolchain.worker:
            raise _UnseenError(f"{self.toolchain.name} gives one name to several of Paddle's tensors")
        reference = self.mended.reference if self.mended else self._translated(self.bench)
        converted = self.mended.pieces[0].model if self.mended else reference
        try:
            programs = [json.loads(path.read_bytes()) for path in (converted, reference)]
            return reference, watched.shared(*programs)
        except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            raise _UnseenError("the program has a form that is not known") from error

    def _translated(self, bench: Bench) -> Path:
        if self.source.format != "pdmodel":
            return self.source.model
        program = self.folder / "translated.json"
        request = {"do": "translate", "model": str(self.source.model), "out": str(program)}
        try:
            bench.ask(request, timeout=self.wish.config.timeout_s)
        except WorkerError as error:
            raise _UnseenError(f"it can't be brought into Paddle 3's form: {error.message[-300:]}") from error
        return program


class _UnseenError(Exception):
    """Why there is nothing to see inside."""


def of_forms(good: Path, bad: Path, found: Proved, tolerance: Tolerance) -> str:
    """The first layer of the form at ``bad`` that differs from the form at ``good``, as a table."""
    from shipway.registry.verify import bisect

    case = found.proof.worst_case(bad, tolerance)
    kept, altered = (bisect.OnnxForm(path, bad.parent, found.layers) for path in (good, bad))
    return bisect.explain(kept, altered, case, tolerance)

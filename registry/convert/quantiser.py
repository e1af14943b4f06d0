"""What narrows a model, ONNX Runtime's tools and our own rounding: in a child with a conversion's limits.

They run the model on all that it is to be calibrated on: how much memory that takes is the model's to say.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from shipway.registry.convert import failing, graph, running
from shipway.registry.convert.rounding import Steps
from shipway.registry.errors import ConversionError
from shipway.registry.nouns import Json
from shipway.registry.process import Worker, WorkerError
from shipway.registry.verify.golden import Case

WORKER = "shipway.registry.convert.quantiser_worker"


@dataclass(frozen=True, slots=True)
class Quantiser:
    """A child for each answer, which ends with it. ``timeout`` in seconds, ``memory`` in bytes.

    What the child writes lies in a folder of its own below ``folder``, gone when it is.
    Raises ConversionError where it fails, takes too long or needs too much.
    """

    folder: Path
    timeout: float
    memory: int

    def fp16(self, model: Path, keep: Sequence[str] = ()) -> onnx.ModelProto:
        """Weights and arithmetic in float16, but for the operators ``keep``."""
        return self._model({"do": "fp16", "keep": list(keep)}, model)

    def dynamic(self, model: Path) -> onnx.ModelProto:
        """Weights and arithmetic in int8, the ranges inside found anew in each run."""
        return self._model({"do": "dynamic"}, model)

    def static(self, model: Path, cases: Sequence[Case]) -> onnx.ModelProto:
        """Weights and arithmetic in int8, the ranges inside as they are on ``cases``."""
        return self._model({"do": "static"}, model, cases)

    def rounded(self, model: Path, cases: Sequence[Case]) -> dict[str, Steps]:
        """The weights in int8, by name (``rounding.rounded``)."""
        with self._folder() as place:
            out = Path(place, "steps.npz")
            names = self._ask({"do": "round", "out": str(out)}, model, cases, Path(place))
            with np.load(out) as steps:
                return {name: steps[f"arr_{position}"] for position, name in enumerate(names)}

    def _model(self, request: Json, model: Path, cases: Sequence[Case] = ()) -> onnx.ModelProto:
        with self._folder() as place:
            out = Path(place, "made.onnx")
            self._ask({**request, "out": str(out)}, model, cases, Path(place))
            return graph.load(out)

    def _folder(self) -> tempfile.TemporaryDirectory[str]:
        return tempfile.TemporaryDirectory(prefix="quantise-", dir=self.folder)

    def _ask(self, request: Json, model: Path, cases: Sequence[Case], place: Path) -> Json:
        own = place / "model.onnx"  # ONNX Runtime's tools write beside it, and leave that where they fail
        own.symlink_to(model.absolute())
        files = [place / f"{index}.npz" for index in range(len(cases))]
        for file, case in zip(files, cases, strict=True):
            np.savez(file, *case.values())
        given = [[str(file), list(case)] for file, case in zip(files, cases, strict=True)]
        env = {"TMPDIR": str(place), **running.heap()}
        try:
            with Worker(WORKER, cwd=place, env=env, memory=self.memory, offline=True) as worker:
                return worker.ask({**request, "model": str(own), "cases": given}, timeout=self.timeout)
        except WorkerError as error:
            failure = failing.explain(error, self.memory)
            raise ConversionError(
                "The model can't be quantised so.", why=failure.why, remedy=failure.remedy
            ) from error

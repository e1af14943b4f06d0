"""Who says what is right: Paddle Inference for a Paddle model, unoptimised ONNX Runtime for an ONNX one."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from shipway.registry.errors import ConversionError
from shipway.registry.process import WorkerError
from shipway.registry.verify import measure
from shipway.registry.verify.golden import Case
from shipway.registry.verify.parity import Array

if TYPE_CHECKING:
    from shipway.registry.convert.running import Asks


class Reference(Protocol):
    """Runs the model as it was given."""

    name: str  # the first word of the chain: 'paddle' or 'given'

    def run(self, cases: Sequence[Case]) -> list[list[Array]]:
        """The outputs of each case, in order. Raises ConversionError where the model can't run one."""

    def close(self) -> None:
        """Free the memory that it takes; nothing is run on it afterwards."""


class PaddleReference:
    """Paddle Inference in a worker; arrays travel through files in ``work``.

    ``watched``: the model's outputs are inner values of another one (``convert.watched``).
    """

    name = "paddle"

    def __init__(
        self, worker: Asks, model: Path, params: Path, work: Path, timeout: float, *, watched: bool = False
    ) -> None:
        self._worker = worker
        self._model = {"model": str(model), "params": str(params), "watched": watched}
        self._work = work
        self._timeout = timeout
        self._runs = itertools.count()
        if not watched:
            worker.tell({"do": "load", **self._model})  # while the caller makes up its inputs

    def run(self, cases: Sequence[Case]) -> list[list[Array]]:
        folder = self._work / f"run-{next(self._runs)}"
        given, made = folder / "in", folder / "out"
        given.mkdir(parents=True)
        made.mkdir()
        paths = [given / f"{index}.npz" for index in range(len(cases))]
        for path, case in zip(paths, cases, strict=True):
            np.savez(path, **case)  # type: ignore[arg-type]
        request = {"do": "run", **self._model, "cases": [str(path) for path in paths], "out": str(made)}
        try:
            self._worker.ask(request, timeout=self._timeout)
        except WorkerError as error:
            raise ConversionError(
                "Paddle Inference can't run the model.",
                why=error.message.strip()[-800:],
                remedy="Give inputs that it runs on: --samples DIR; or fix the shapes that it takes: --input "
                "NAME:DTYPE:SHAPE. If the file is damaged, save or fetch it again.",
            ) from error
        results = []
        for index in range(len(cases)):
            with np.load(made / f"{index}.npz") as outputs:
                results.append([outputs[key] for key in sorted(outputs)])
        return results

    def close(self) -> None:
        """Its memory is the worker's, which is ended on its own."""


class OnnxReference:
    """ONNX Runtime with every optimisation off: as near to the graph's letter as it gets."""

    name = "given"

    def __init__(self, path: Path) -> None:
        self._session: Any = measure.session(path, optimise=False)

    def run(self, cases: Sequence[Case]) -> list[list[Array]]:
        return measure.run(self._session, cases)

    def close(self) -> None:
        self._session = None

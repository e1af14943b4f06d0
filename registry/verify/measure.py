"""Runs ONNX Runtime, quietly and repeatably, on golden inputs."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from shipway.registry import privacy
from shipway.registry.errors import ConversionError
from shipway.registry.verify.golden import Case
from shipway.registry.verify.parity import Array

privacy.no_telemetry()
import onnxruntime  # noqa: E402 - it reads its environment when it is imported

CPU = "CPUExecutionProvider"
_REMOTE = ("AzureExecutionProvider",)  # it asks a service of others

FATAL = 4  # ONNX Runtime's logger says what we raise anyway
_ENOUGH_S = 0.1  # of runs of a model, for its latency


def providers() -> list[str]:
    """What ONNX Runtime can run a model on here, the CPU first."""
    return [CPU, *(p for p in onnxruntime.get_available_providers() if p != CPU and p not in _REMOTE)]


def session(path: Path, *, optimise: bool = True, provider: str = CPU) -> Any:
    """Load a model. Raises ConversionError with the runtime's words where it does not load."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = FATAL
    options.intra_op_num_threads = 1  # sums in one order: the same numbers on every run
    if not optimise:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=[provider])
    except Exception as error:  # its exception types share no base class but this one
        raise ConversionError(
            f"ONNX Runtime can't load {path.name}.",
            why=_words(error),
            remedy="The file is damaged, or was exported wrongly. If it names an operator or an opset, try "
            "another convert.opset in deploy.yaml.",
        ) from error


def run(loaded: Any, cases: Sequence[Case]) -> list[list[Array]]:
    """The outputs of each case, in the graph's order. Raises ConversionError where it can't run one."""
    results = []
    for case in cases:
        try:
            outputs = loaded.run(None, dict(case))
        except Exception as error:
            shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in case.items())
            raise ConversionError(
                f"ONNX Runtime can't run the model on {shapes}.",
                why=_words(error),
                remedy="Give inputs that it runs on: --samples DIR; or fix the shapes that it takes: --input "
                "NAME:DTYPE:SHAPE.",
            ) from error
        results.append([np.asarray(output) for output in outputs])
    return results


def medians_ms(loaded: Mapping[str, Any], case: Case) -> dict[str, float]:
    """Median milliseconds of a run of each, of 5 to 50 runs that take about a tenth of a second.

    They run in turns: what else the machine does meanwhile slows all of them.
    """
    seconds: dict[str, list[float]] = {name: [] for name in loaded}
    for turn in range(50):
        if turn >= 5 and sum(map(sum, seconds.values())) >= _ENOUGH_S * len(loaded):
            break
        for name, session in loaded.items():
            began = time.perf_counter()
            run(session, [case])
            seconds[name].append(time.perf_counter() - began)
    return {name: statistics.median(found) * 1000 for name, found in seconds.items()}


def _words(error: Exception) -> str:
    text = str(error).strip()
    return text[:800] if text else type(error).__name__

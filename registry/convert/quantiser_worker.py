"""The child that narrows a model. Answers requests of ``quantiser``: ``fp16`` (keep: operators), ``dynamic``,
``static`` and ``round``, each with model, cases (file of the inputs, their names) and out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from shipway.registry import privacy, process
from shipway.registry.convert import graph, narrow, rounding
from shipway.registry.nouns import Json
from shipway.registry.verify.golden import Case


def _prepare() -> Callable[[Json], Json]:
    privacy.no_telemetry()
    return _answer


def _answer(request: Json) -> Json:
    model, out = Path(request["model"]), Path(request["out"])
    cases = [_read(Path(file), names) for file, names in request["cases"]]
    if request["do"] == "round":
        return _round(model, out, cases)
    if request["do"] == "fp16":
        _fp16(model, out, request["keep"])
    elif request["do"] == "dynamic":
        _dynamic(model, out)
    else:
        _static(model, out, cases)
    return None


def _read(file: Path, names: Sequence[str]) -> Case:
    with np.load(file) as inputs:  # as np.savez numbers them
        return {name: inputs[f"arr_{position}"] for position, name in enumerate(names)}


def _fp16(model: Path, out: Path, keep: Sequence[str]) -> None:
    """Inputs and outputs stay float32: every target feeds the model in the same way."""
    from onnxruntime.transformers import float16

    converted = float16.convert_float_to_float16(
        graph.load(model),
        keep_io_types=True,
        op_block_list=[*float16.DEFAULT_OP_BLOCK_LIST, *keep],
    )
    out.write_bytes(graph.to_bytes(converted))


def _dynamic(model: Path, out: Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(str(model), str(out), per_channel=True, weight_type=QuantType.QInt8)


def _static(model: Path, out: Path, cases: Sequence[Case]) -> None:
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._left = iter(cases)

        def get_next(self) -> Case | None:
            return next(self._left, None)

    quantize_static(
        str(model),
        str(out),
        Reader(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        weight_type=QuantType.QInt8,
        activation_type=QuantType.QUInt8,
    )


def _round(model: Path, out: Path, cases: Sequence[Case]) -> list[str]:
    """The names of the weights, whose steps are in ``out`` in their order."""
    weights = narrow.to_round(graph.load(model).graph)
    steps = dict(rounding.rounded(model, weights, cases, out.parent))
    np.savez(out, *steps.values())
    return list(steps)


if __name__ == "__main__":
    process.serve(_prepare)

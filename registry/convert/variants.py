"""Other precisions of the canonical model. What comes out is a claim: ``verify`` decides whether it counts."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx

from shipway.registry.convert import graph
from shipway.registry.errors import ConversionError


@dataclass(frozen=True, slots=True)
class Recipe:
    """One way to make a precision: ``make`` reads the canonical model's file and returns a new model."""

    name: str
    make: Callable[[Path], onnx.ModelProto]


def recipes(precision: str) -> Sequence[Recipe]:
    """The ways to make ``precision``, the one that gains most first. Raises ConversionError on an unknown one."""
    known = {
        "fp16": (Recipe("weights and arithmetic in float16", _fp16),),
        "int8": (
            Recipe("dynamic, weights and arithmetic in int8", _int8_dynamic),
            Recipe("weights in int8, arithmetic in float32", _int8_weights),
        ),
    }
    if precision not in known:
        raise ConversionError(
            f"Precision {precision!r} is not available.",
            why=f"There is fp32, {' and '.join(known)}.",
            remedy="Set another precision for the target in deploy.yaml.",
        )
    return known[precision]


def _fp16(path: Path) -> onnx.ModelProto:
    """Inputs and outputs stay float32: every target feeds the model in the same way."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    model = graph.load(path)
    with _quiet():
        converted: onnx.ModelProto = convert_float_to_float16(
            model, keep_io_types=True, disable_shape_infer=False
        )
    return converted


def _int8_dynamic(path: Path) -> onnx.ModelProto:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    out = path.with_name("int8-dynamic.onnx")
    with _quiet():
        quantize_dynamic(str(path), str(out), per_channel=True, weight_type=QuantType.QInt8)
    model = graph.load(out)
    out.unlink()
    return model


def _int8_weights(path: Path) -> onnx.ModelProto:
    raise NotImplementedError


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The quantiser advises on the root logger and prints."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.CRITICAL)
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):  # noqa: PTH123
        try:
            yield
        finally:
            root.setLevel(level)

"""Attributes that Paddle 3.3 writes as doubles where converters read floats.

- ``scale`` of ``*_interp``: every converter stops with ``the 0th elementwise MUST be ir::FloatAttribute``.
  With the entries written as ``0.a_f32``, paddlepaddle 3.2.2 with paddle2onnx 2.0.1 converts such models
  (U-Nets, YOLO necks, PP-OCR's detector) and they match Paddle Inference.
- ``beta``, ``threshold`` of ``softplus``: ``Only support softplus with beta == 1.0 and threshold == 20.0``,
  which is what they are.
- ``pad_value`` of ``pad3d``: no message; the model is padded with 0 whatever was asked for.
- ``negative_slope`` of ``leaky_relu``: no message; the slope becomes -1.
- ``epsilon`` of ``group_norm``: no message; another epsilon.

Measured on files that Paddle 3.3.1 wrote. The list is what changed from float to double between the
declarations of 3.2.2 and 3.3.1 (``paddle/phi/api/include/api.h``); ``rms_norm`` and ``logit`` complete it.
"""

from __future__ import annotations

from collections.abc import Callable

from shipway.registry.convert.repairs import pir
from shipway.registry.convert.repairs.rules import Program, Rule


def _doubles(program: Program, kinds: tuple[str, ...], names: tuple[str, ...]) -> list[pir.Op]:
    """The entries to rewrite, in operators whose kind has one of these endings."""
    found = []
    for op in pir.walk(pir.main_block(program)["ops"]):
        if op["#"] == pir.PARAMETER or not op["#"].endswith(kinds):
            continue
        for entry in op["A"]:
            if entry["N"] in names:
                attribute = entry["AT"]
                items = attribute["D"] if attribute["#"] == "0.a_array" else [attribute]
                found += [item for item in items if item["#"] == "0.a_f64"]
    return found


def _rule(name: str, kinds: tuple[str, ...], names: tuple[str, ...], says: str) -> Rule:
    def rewrite(program: Program) -> None:
        for item in _doubles(program, kinds, names):
            item["#"] = "0.a_f32"

    places: Callable[[Program], int] = lambda program: len(_doubles(program, kinds, names))  # noqa: E731
    return Rule(name=name, reference=f"{says} (measured on Paddle 3.3.1)", places=places, rewrite=rewrite)


INTERPOLATION_SCALES = _rule(
    "interpolation-scales",
    ("_interp",),
    ("scale",),
    "Paddle 3.3 writes the scale of interpolations as float64, at which every converter stops",
)
SOFTPLUS_ATTRIBUTES = _rule(
    "softplus-attributes",
    (".softplus",),
    ("beta", "threshold"),
    "Paddle 3.3 writes beta and threshold of softplus as float64, at which paddle2onnx stops",
)
PAD_VALUE = _rule(
    "pad-value",
    (".pad3d",),
    ("pad_value",),
    "Paddle 3.3 writes the value to pad with as float64, and paddle2onnx pads with 0 instead",
)
LEAKY_SLOPE = _rule(
    "leaky-slope",
    (".leaky_relu", ".leaky_relu_"),
    ("negative_slope",),
    "Paddle 3.3 writes the slope of leaky_relu as float64, and paddle2onnx takes -1 instead",
)
NORM_EPSILON = _rule(
    "norm-epsilon",
    (".group_norm", ".rms_norm"),
    ("epsilon",),
    "Paddle 3.3 writes the epsilon of group_norm and rms_norm as float64, where converters read float32",
)
LOGIT_EPSILON = _rule(
    "logit-epsilon",
    (".logit",),
    ("eps",),
    "Paddle 3.3 writes the epsilon of logit as float64, where converters read float32",
)

DOUBLES = (INTERPOLATION_SCALES, SOFTPLUS_ATTRIBUTES, PAD_VALUE, LEAKY_SLOPE, NORM_EPSILON, LOGIT_EPSILON)

"""Interpolation scales that Paddle 3.3 writes as doubles.

Paddle 3.3 writes the ``scale`` of ``*_interp`` as ``0.a_f64`` where the operator's definition says float, and
every converter stops at it: ``the 0th elementwise MUST be ir::FloatAttribute``. Measured: with the entries
written as ``0.a_f32``, paddlepaddle 3.2.2 with paddle2onnx 2.0.1 converts such models (U-Nets, YOLO necks,
PP-OCR's detector) and they match Paddle Inference.
"""

from __future__ import annotations

import copy

from shipway.registry.convert.repairs import pir
from shipway.registry.convert.repairs.rules import Program, Rule


def _doubles(program: Program) -> list[pir.Op]:
    """The scale entries to rewrite."""
    return [
        item
        for op in pir.walk(pir.main_block(program)["ops"])
        if op["#"].endswith("_interp")
        for entry in op["A"]
        if entry["N"] == "scale" and entry["AT"]["#"] == "0.a_array"
        for item in entry["AT"]["D"]
        if item["#"] == "0.a_f64"
    ]


def _rewrite(program: Program) -> Program:
    mended = copy.deepcopy(program)
    for item in _doubles(mended):
        item["#"] = "0.a_f32"
    return mended


INTERPOLATION_SCALES = Rule(
    name="interpolation-scales",
    reference="Paddle 3.3 writes the scale of *_interp as float64; converters take float32 only (measured, 3.3.1)",
    places=lambda program: len(_doubles(program)),
    rewrite=_rewrite,
)

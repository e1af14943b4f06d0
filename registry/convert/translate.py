"""Bringing a Paddle 2 ``.pdmodel`` into the form of Paddle 3, in which repairs are made.

It is what paddle2onnx does itself with a ``.pdmodel`` before it converts. The weights stay as they are: both
forms read the same ``.pdiparams``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

# Attributes that operators got later, with the value that says what the operator did before. Without them
# the translation stops: Type of attribute: value is not pir::FloatAttribute (measured, models of Paddle 2.6).
ADDED_LATER: dict[str, dict[str, int | float]] = {
    "round": {"decimals": 0},
    "thresholded_relu": {"value": 0.0},
}


def translate(paddle: Any, model: Path, out: Path) -> None:
    """Write the program of ``model`` (a ``.pdmodel`` beside its ``.pdiparams``) to ``out`` (a ``.json``).

    ``paddle`` is the imported package, of version 3. Raises what Paddle raises, which may end the process.
    """
    paddle.enable_static()
    try:
        with paddle.pir_utils.OldIrGuard():
            executor = paddle.static.Executor(paddle.CPUPlace())
            program, *_ = paddle.static.load_inference_model(str(model.with_suffix("")), executor)
            for block in program.blocks:
                for op in block.ops:
                    for name, value in ADDED_LATER.get(op.type, {}).items():
                        if not op.has_attr(name):
                            op._set_attr(name, value)
            translated = paddle.pir.translate_to_pir(program.desc)
        paddle.base.core.serialize_pir_program(translated, str(out))
    finally:
        paddle.disable_static()

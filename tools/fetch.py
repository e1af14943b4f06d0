"""Fetch into the cache folder what the tests need besides installed packages; nothing where it lies there.

Tests would fetch it themselves, but none of them tries twice (``tools/again.sh`` does).
"""

from __future__ import annotations

import runpy
from pathlib import Path

from shipway.targets import npm
from shipway.targets.browser_wasm import INTEGRITY, PACKAGE, PINNED

MODELS = Path(__file__).resolve().parent.parent / "demo" / "models.py"

if __name__ == "__main__":
    npm.tarball(PACKAGE, PINNED, INTEGRITY)
    runpy.run_path(str(MODELS))["fetch"]()

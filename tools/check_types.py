"""Run mypy --strict over the packages under the names that users import.

``registry/x.py`` is ``shipway.registry.x``; mypy finds modules by folder names, so it is shown a tree of
links in which the folders stand below ``shipway/``.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    with tempfile.TemporaryDirectory() as name:
        tree = Path(name)
        (tree / "shipway").mkdir()
        for folder in ("registry", "targets", "templates"):
            (tree / "shipway" / folder).symlink_to(ROOT / folder)
        command = [sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml")]
        command += [
            "--cache-dir",
            str(ROOT / ".mypy_cache"),
            "-p",
            "shipway.registry",
            "-p",
            "shipway.targets",
        ]
        return subprocess.run(command, cwd=tree, env={**os.environ, "MYPYPATH": str(tree)}).returncode


if __name__ == "__main__":
    sys.exit(main())

"""Make an environment for each JetPack's Python and ONNX Runtime, that tests marked "real" run bundles in.

    python tools/install_jetpacks.py

Each has what a bundle's requirements.txt names, as pip resolves it on the day (that is what a board gets),
with the CPU build of ONNX Runtime: the boards' own builds are for aarch64. They lie below SHIPWAY_CACHE and
are made once. The interpreters are those that the machine has, on PATH or of pyenv; others uv
fetches, which nobody has tried yet.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from shipway.targets.jetpack import JETPACKS
from shipway.targets.parts import SERVER, python_requirements

ROOT = Path(__file__).resolve().parent.parent
AGAIN = ROOT / "tools" / "again.sh"
CACHE = Path(os.environ.get("SHIPWAY_CACHE") or Path.home() / ".cache" / "shipway") / "jetpacks"


def main() -> None:
    for python, runtime in sorted({(board.python, board.onnxruntime) for board in JETPACKS.values()}):
        install(python, python_requirements("onnxruntime", runtime, *SERVER), CACHE / f"{python}-{runtime}")


def install(python: str, requirements: list[str], folder: Path) -> None:
    wanted = "\n".join([python, *requirements])
    done = folder / "installed"
    if done.is_file() and done.read_text() == wanted and works(folder / "bin" / "python", python):
        return
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([interpreter(python), "-m", "venv", folder], check=True)
    pip = [folder / "bin" / "python", "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run(
        [AGAIN, *pip, "install", "--no-compile", "--only-binary", ":all:", *requirements], check=True
    )
    done.write_text(wanted)


def interpreter(python: str) -> Path:
    """A Python of that minor version."""
    for found in installed(python):
        if works(found, python):
            return found
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "install"]
    subprocess.run([AGAIN, *pip, "--require-hashes", "-r", ROOT / "locks" / "uv.txt"], check=True)
    uv = [sys.executable, "-m", "uv", "--quiet", "python"]
    subprocess.run([AGAIN, *uv, "install", python], check=True)
    answer = subprocess.run(
        [*uv, "find", "--managed-python", python], check=True, capture_output=True, text=True
    )
    return Path(answer.stdout.strip())


def installed(python: str) -> Iterator[Path]:
    on_path = shutil.which(f"python{python}")
    if on_path is not None:
        yield Path(on_path)
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    yield from sorted(pyenv.glob(f"versions/{python}.*/bin/python{python}"))


def works(found: Path, python: str) -> bool:
    """pyenv's shims of versions that are not chosen are there, and fail; Debian's may lack ensurepip."""
    program = "import ensurepip, sys, venv; print('%d.%d' % sys.version_info[:2])"
    try:
        answer = subprocess.run([found, "-c", program], capture_output=True, text=True, check=False)
    except OSError:
        return False
    return answer.returncode == 0 and answer.stdout.strip() == python


if __name__ == "__main__":
    main()

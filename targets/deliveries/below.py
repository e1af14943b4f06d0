"""Files below a folder, reached without following a link that somebody planted there.

Paths are those of a manifest: relative, POSIX, without ``..``.
"""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path


def plain(folder: Path, path: str) -> os.stat_result | None:
    """The status of a plain file below ``folder`` that no link leads to, or None."""
    parts = path.split("/")
    for depth in range(len(parts)):
        try:
            status = (folder / "/".join(parts[: depth + 1])).lstat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        wanted = stat.S_ISREG if depth == len(parts) - 1 else stat.S_ISDIR
        if not wanted(status.st_mode):
            return None
    return status


def size(folder: Path, path: str) -> int | None:
    """The size in bytes of a plain file, or None."""
    status = plain(folder, path)
    return status.st_size if status else None


def read(folder: Path, path: str) -> bytes | None:
    """What is in a plain file, or None."""
    return (folder / path).read_bytes() if plain(folder, path) else None


def make_way(folder: Path, path: str) -> Path:
    """``folder/path``, with real folders leading to it and at most a file in its place."""
    *parents, _ = path.split("/")
    at = folder
    for part in parents:
        at = at / part
        if at.is_symlink() or (at.exists() and not at.is_dir()):
            at.unlink()
        at.mkdir(exist_ok=True)
    target = folder / path
    if target.is_dir() and not target.is_symlink():
        shutil.rmtree(target)
    return target


def remove(path: Path) -> None:
    """Remove a file, a link (not what it leads to) or a whole folder, if there is one."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)

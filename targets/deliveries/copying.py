"""Copying and writing files as fast as the system can, and making sure that they are on disk."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import BinaryIO

_AT_ONCE = 1 << 30  # bytes asked of one copy_file_range(2) call
_CANNOT = {errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF, errno.EPERM}


def copy(source: Path, target: Path, *, mode: int) -> None:
    """Copy a file's bytes to a new or truncated ``target`` and put them on disk. Raises OSError.

    copy_file_range(2) leaves the copying to the kernel, and shares the blocks on file systems that can
    (Btrfs, XFS) until one of the two files is changed.
    """
    with source.open("rb") as reader, target.open("wb") as writer:
        if not _copied_by_kernel(reader, writer):
            reader.seek(0)
            writer.seek(0)
            writer.truncate()
            shutil.copyfileobj(reader, writer, 1 << 20)
        writer.flush()
        os.fchmod(writer.fileno(), mode)
        os.fsync(writer.fileno())


def same(one: Path, other: Path) -> bool:
    """Whether two files hold the same bytes. Raises OSError."""
    with one.open("rb", buffering=0) as left, other.open("rb", buffering=0) as right:
        while True:
            data = left.read(1 << 20)
            if data != right.read(1 << 20):
                return False
            if not data:
                return True


def write(target: Path, content: bytes, *, mode: int) -> None:
    """Write a new or truncated ``target`` and put it on disk. Raises OSError."""
    with target.open("wb") as writer:
        writer.write(content)
        writer.flush()
        os.fchmod(writer.fileno(), mode)
        os.fsync(writer.fileno())


def _copied_by_kernel(reader: BinaryIO, writer: BinaryIO) -> bool:
    if not hasattr(os, "copy_file_range"):
        return False
    size, done = os.fstat(reader.fileno()).st_size, 0
    while done < size:
        try:
            count = os.copy_file_range(reader.fileno(), writer.fileno(), min(_AT_ONCE, size - done))
        except OSError as error:
            if error.errno in _CANNOT:
                return False
            raise
        if count == 0:
            return False
        done += count
    return True


def sync_tree(folder: Path, *, depth: int = 8) -> None:
    """Put the names in ``folder``, and in its folders ``depth`` levels down, on disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    if depth:
        with os.scandir(folder) as entries:
            below = [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
        for path in below:
            sync_tree(Path(path), depth=depth - 1)

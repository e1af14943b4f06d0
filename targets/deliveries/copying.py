"""Copying and writing files as fast as the system can, and making sure that they are on disk."""

from __future__ import annotations

import errno
import functools
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, cast

_AT_ONCE = 1 << 30  # bytes asked of one copy_file_range(2) call
_COMPARED = 1 << 17  # bytes: small enough to stay in a core's own cache
_WRITE = 2  # SYNC_FILE_RANGE_WRITE of linux/fs.h
_CALLS = {"fallocate": "iill", "sync_file_range": "illi"}  # their arguments: int or off_t
_CANNOT = {errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF, errno.EPERM}


def copy(source: Path, target: Path, *, mode: int) -> None:
    """Copy a file's bytes to a new or truncated ``target``. Raises OSError.

    copy_file_range(2) leaves the copying to the kernel, and shares the blocks on file systems that can
    (Btrfs, XFS) until one of the two files is changed. The disk begins to write at once, but is not waited
    for: ``sync`` and ``sync_tree`` do that.
    """
    with source.open("rb") as reader, target.open("wb") as writer:
        # Room asked for in one piece costs less than a block at a time.
        _hint("fallocate", writer.fileno(), 0, 0, os.fstat(reader.fileno()).st_size)
        if not _copied_by_kernel(reader, writer):
            reader.seek(0)
            writer.seek(0)
            writer.truncate()
            shutil.copyfileobj(reader, writer, 1 << 20)
        writer.flush()
        os.fchmod(writer.fileno(), mode)
        _hint("sync_file_range", writer.fileno(), 0, 0, _WRITE)


def same(one: Path, other: Path) -> bool:
    """Whether two files hold the same bytes. Raises OSError."""
    with one.open("rb", buffering=0) as left, other.open("rb", buffering=0) as right:
        while True:
            data = left.read(_COMPARED)
            if data != right.read(_COMPARED):
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


def sync(path: Path | str) -> None:
    """Put a file's bytes, or the names in a folder, on disk; a link or a pipe is an OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path | str) -> None:
    """Put all files and names below ``folder`` on disk. Links are left alone."""
    with os.scandir(folder) as entries:
        below = [entry for entry in entries if not entry.is_symlink()]
    for entry in below:
        if entry.is_dir(follow_symlinks=False):
            sync_tree(entry.path)
        else:
            sync(entry.path)
    sync(folder)


def _hint(name: str, descriptor: int, *arguments: int) -> None:
    """A call of Linux that only makes others faster; where it fails, or there is none, they work as well."""
    function = _system(name)
    if function is not None:
        function(descriptor, *arguments)


@functools.cache
def _system(name: str) -> Callable[..., int] | None:
    import ctypes  # not needed to read what is at a destination

    if sys.platform != "linux" or sys.maxsize <= 2**32:  # off_t may have 32 bits there
        return None
    try:
        function = getattr(ctypes.CDLL(None), name)
    except (AttributeError, OSError):
        return None
    function.argtypes = [ctypes.c_int64 if letter == "l" else ctypes.c_int for letter in _CALLS[name]]
    return cast(Callable[..., int], function)

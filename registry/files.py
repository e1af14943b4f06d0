"""The one place that writes files so that nobody ever sees half of one, and that knows the cache's folder."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from shipway.registry.nouns import Digest, File

_CHUNK = 1 << 20  # bytes read at a time: bounded memory whatever the file's size


def cache_folder(name: str) -> Path:
    """``$SHIPWAY_CACHE/NAME``, else ``~/.cache/shipway/NAME``: for what can be fetched or made again."""
    root = os.environ.get("SHIPWAY_CACHE") or Path.home() / ".cache" / "shipway"
    return Path(root) / name


def digest_of(path: Path) -> Digest:
    """The sha256 of a file's bytes, read in chunks."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return Digest(digest.hexdigest())


def describe(path: Path, name: str) -> File:
    """``path`` as a File called ``name``."""
    return File(name, digest_of(path), path.stat().st_size)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _temporary_beside(path: Path) -> Iterator[Path]:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{path.name[:64]}.{secrets.token_hex(6)}.tmp"
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def _write_synced(path: Path, data: bytes) -> None:
    with path.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def write_atomic(path: Path, data: bytes) -> None:
    """Replace ``path`` with ``data`` in one step: readers see the old bytes or the new, whole, ones."""
    with _temporary_beside(path) as temporary:
        _write_synced(temporary, data)
        temporary.replace(path)
        _sync_folder(path.parent)


def create_exclusive(path: Path, data: bytes) -> bool:
    """Create ``path`` holding ``data``; return False, having changed nothing, where it exists already.

    The name appears together with the whole content (a hard link to a finished file), so that of several
    processes exactly one wins and nobody reads an empty file.
    """
    with _temporary_beside(path) as temporary:
        _write_synced(temporary, data)
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
        _sync_folder(path.parent)
        return True


def copy_atomic(source: Path, target: Path, *, expect: Digest | None = None) -> None:
    """Copy ``source`` to ``target`` in one step.

    Where ``expect`` is given the bytes are hashed on the way; on a mismatch nothing appears at ``target``
    and ValueError is raised.
    """
    with _temporary_beside(target) as temporary:
        if expect is None:
            shutil.copyfile(source, temporary)
        else:
            digest = hashlib.sha256()
            with source.open("rb") as reader, temporary.open("wb") as writer:
                while chunk := reader.read(_CHUNK):
                    digest.update(chunk)
                    writer.write(chunk)
            if digest.hexdigest() != expect.hex:
                raise ValueError(f"{source} does not hold {expect}")
        temporary.replace(target)


def link_or_copy(source: Path, target: Path) -> None:
    """Give ``source`` a second name, or copy it where the file system can't (another device, no links)."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP):
            raise
        copy_atomic(source, target)


def is_inside(root: Path, name: str) -> bool:
    """Whether the relative POSIX path ``name`` stays below ``root`` once links and ``..`` are followed."""
    if name.startswith("/") or "\\" in name or "\0" in name:
        return False
    return (root / name).resolve().is_relative_to(root.resolve())

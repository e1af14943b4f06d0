"""Files on the host, reached without following a link that somebody planted. Part of ``on_host``."""

import errno
import json
import os
import shutil
import stat
from typing import Any, Dict, List, Optional


def name_of(release: str) -> str:
    if not release or release.startswith(".") or "/" in release or "\0" in release:
        raise ValueError("%r is no name of a release" % release)
    return release


def sha_of(sha: str) -> str:
    if len(sha) != 64 or not all(letter in "0123456789abcdef" for letter in sha):
        raise ValueError("%r is no digest" % sha)
    return sha


def listed(raw: Optional[bytes]) -> List[Dict[str, Any]]:
    """The files that a bundle.json lists; none where it is damaged."""
    try:
        files = json.loads((raw or b"").decode())["files"]
        for file in files:
            parts = file["path"].split("/")
            if ".." in parts or "" in parts or len(file["sha256"]) != 64 or file["size"] < 0:
                return []
        return list(files)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return []


def names(folder: str) -> List[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return []
        raise


def is_folder(path: str) -> bool:
    return os.path.isdir(path) and not os.path.islink(path)


def plain(folder: str, path: str) -> bool:
    """Whether it is a plain file that no link leads to."""
    parts = path.split("/")
    for depth in range(len(parts)):
        try:
            mode = os.lstat(os.path.join(folder, *parts[: depth + 1])).st_mode
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR):
                return False
            raise
        if not (stat.S_ISREG(mode) if depth == len(parts) - 1 else stat.S_ISDIR(mode)):
            return False
    return True


def size(folder: str, path: str) -> Optional[int]:
    return os.lstat(os.path.join(folder, path)).st_size if plain(folder, path) else None


def read(folder: str, path: str) -> Optional[bytes]:
    if not plain(folder, path):
        return None
    with open(os.path.join(folder, path), "rb") as stream:
        return stream.read()


def write(path: str, content: bytes) -> None:
    remove(path)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def copy(source: str, target: str) -> None:
    with open(source, "rb") as reader, open(target, "wb") as writer:
        shutil.copyfileobj(reader, writer, 1 << 20)
        writer.flush()
        os.fsync(writer.fileno())


def make_way(folder: str, path: str) -> str:
    """``folder/path``, with real folders leading to it and at most a file in its place."""
    parts = path.split("/")
    if path.startswith("/") or ".." in parts or "" in parts:
        raise ValueError("%r is no path inside a release" % path)
    at = folder
    for part in parts[:-1]:
        at = os.path.join(at, part)
        if os.path.lexists(at) and not is_folder(at):
            os.unlink(at)
        if not os.path.exists(at):
            os.mkdir(at)
    target = os.path.join(folder, path)
    if is_folder(target):
        shutil.rmtree(target)
    return target


def remove(path: str) -> None:
    if is_folder(path):
        shutil.rmtree(path)
    elif os.path.lexists(path):
        os.unlink(path)


def sync(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: str) -> None:
    for at, _, _ in os.walk(folder):
        sync(at)

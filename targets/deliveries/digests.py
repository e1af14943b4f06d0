"""Digests of files on this machine, computed once a process as long as a file stays as it is.

Inode, size and the two times tell that it did (``ctime`` can't be set back). A file written within the last
tick of the clock that stamps files could change without its times changing, so that one is read again (git
calls this 'racy').
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

from shipway.registry import files
from shipway.registry.nouns import Digest

TICK_NS = 20_000_000  # longer than a tick of the clock that stamps files
_Key = tuple[int, ...]


class Digests:
    """Safe to use from several threads: of those that ask for the same file one reads it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: dict[_Key, Digest] = {}
        self._turns: dict[_Key, threading.Lock] = {}

    def of(self, path: Path) -> Digest:
        """The digest of the file at ``path``; a link is not followed to tell whether it stayed as it was."""
        seen = path.lstat()
        key = _key(seen)
        with self._lock:
            turn = self._turns.setdefault(key, threading.Lock())
        with turn:
            known = self._found.get(key)
            if known is None:
                known = files.digest_of(path)
                if abs(time.time_ns() - seen.st_ctime_ns) > TICK_NS:
                    self._found[key] = known
        return known

    def know(self, path: Path, digest: Digest) -> None:
        """``path`` was just given its name, and what is in it was held against ``digest`` before that."""
        seen = path.lstat()
        if abs(time.time_ns() - seen.st_mtime_ns) > TICK_NS:  # or a later write might show in no time
            self._found[_key(seen)] = digest


def _key(seen: os.stat_result) -> _Key:
    return seen.st_dev, seen.st_ino, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns

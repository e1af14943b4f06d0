"""Digests of files on this machine, computed once a process as long as a file stays as it is.

Inode, size and the two times tell that it did (``ctime`` can't be set back). A file written within the last
tick of the clock that stamps files could change without its times changing, so that one is read again (git
calls this 'racy').
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from pathlib import Path

from shipway.registry import files
from shipway.registry.nouns import Digest

TICK_NS = 20_000_000  # longer than a tick of the clock that stamps files
_PAST_NS = 1_000_000_000  # further than two clocks of one machine are apart
_LARGE = 1 << 24  # bytes: what takes longer to read than a thread takes to start
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

    def ahead(self, path: Path) -> None:
        """Begin to read ``path`` beside what is done until ``of`` is asked, if it is large and not known."""
        seen = path.lstat()
        if seen.st_size >= _LARGE and _key(seen) not in self._found:
            with contextlib.suppress(
                RuntimeError
            ):  # no thread to be had: then it is read when it is asked for
                threading.Thread(target=self._try, args=(path,), name="shipway-digest", daemon=True).start()

    def _try(self, path: Path) -> None:
        with contextlib.suppress(OSError):  # whoever asks for the digest meets it
            self.of(path)

    def know(self, path: Path, digest: Digest, seen: os.stat_result) -> None:
        """``path`` was just given its name; since it was ``seen`` what is in it was held against ``digest``.

        Whoever wrote to it in between has changed its time, which ``set_back`` had set back for that.
        """
        now = path.lstat()
        if _key(now)[:-1] == _key(seen)[:-1] and abs(time.time_ns() - now.st_mtime_ns) > TICK_NS:
            self._found[_key(now)] = digest


def set_back(path: Path) -> os.stat_result:
    """What a file is whose time was set back, so that whatever is written from now on shows, however soon."""
    past = time.time_ns() - _PAST_NS
    with contextlib.suppress(OSError):  # where a share takes no times, the file is read once more
        os.utime(path, ns=(past, past))
    return path.lstat()


def _key(seen: os.stat_result) -> _Key:
    return seen.st_dev, seen.st_ino, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns

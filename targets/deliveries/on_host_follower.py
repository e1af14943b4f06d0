"""Hashing a file while it is written. Part of ``on_host``."""

import contextlib
import hashlib
import os
import threading
from typing import Any, Optional

PIECE = 1 << 20  # bytes that are read back at once


class Follower:
    """Reads a file back behind the one that writes it, in a thread, and hashes what is there.

    Nothing is left to read when the last byte is written, and little to wait for: the disk is set to work on
    each piece as it is done.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.sha = hashlib.sha256()
        self.turn = threading.Condition()
        self.end = self.told = self.at = 0
        self.over = False
        self.failure: Optional[OSError] = None
        self.thread = threading.Thread(target=self.run, daemon=True)

    def __enter__(self) -> "Follower":
        self.thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.finish()

    def reach(self, end: int) -> None:
        """The file's bytes up to ``end`` are written."""
        self.end = end
        if end - self.told >= PIECE:
            self.told = end
            with self.turn:
                self.turn.notify()

    def digest(self) -> str:
        """The file's sha256, once all is written. Raises OSError where it could not be read back."""
        self.finish()
        if self.failure is not None:
            raise self.failure
        return self.sha.hexdigest()

    def finish(self) -> None:
        with self.turn:
            self.over = True
            self.turn.notify()
        self.thread.join()

    def run(self) -> None:
        try:
            while not self.over:
                with self.turn:
                    while self.end - self.at < PIECE and not self.over:
                        self.turn.wait()
                self.read()
            self.read()
        except OSError as error:
            self.failure = error

    def read(self) -> None:
        while self.at < self.end:
            data = os.pread(self.descriptor, min(PIECE, self.end - self.at), self.at)
            if not data:
                return  # somebody cut it: its digest will be a wrong one
            self.sha.update(data)
            with contextlib.suppress(OSError, AttributeError):  # only Linux takes this for a hint to write
                os.posix_fadvise(self.descriptor, self.at, len(data), os.POSIX_FADV_DONTNEED)
            self.at += len(data)

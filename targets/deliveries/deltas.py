"""Recipes between files of the store: each is made once for all hosts, and none outlives its command."""

from __future__ import annotations

import io
import os
import tempfile
import threading
import weakref
from typing import BinaryIO, Literal, cast

from shipway.registry import files
from shipway.registry.errors import ShipwayError
from shipway.registry.nouns import Digest, File
from shipway.targets import delta
from shipway.targets.deliveries.base import Fetch

_WORTH = 0.9  # of a file's size: a longer recipe saves too little for the work on both sides


class Recipe:
    """How to make a file of another. It is a file without a name, so that a killed process leaves none."""

    def __init__(self, digest: Digest, size: int, descriptor: int) -> None:
        self.digest = digest
        self.size = size
        self._descriptor = descriptor
        weakref.finalize(self, os.close, descriptor)

    def open(self, mode: Literal["rb"] = "rb") -> BinaryIO:
        """The bytes from their start. Several may read at once, each from where it is."""
        return cast(BinaryIO, _Reader(self, self._descriptor))


class Deltas:
    """``fetch`` reads the store."""

    def __init__(self, fetch: Fetch) -> None:
        self._fetch = fetch
        self._lock = threading.Lock()
        self._made: dict[tuple[Digest, Digest], Recipe | None] = {}

    def recipe(self, base: File, new: File) -> Recipe | None:
        """What makes ``new`` of ``base``; None where that saves little or the store lacks one of them."""
        key = base.digest, new.digest
        with self._lock:
            if key not in self._made:
                self._made[key] = self._make(base, new)
            return self._made[key]

    def _make(self, base: File, new: File) -> Recipe | None:
        try:
            old, young = self._fetch(base), self._fetch(new)
            if files.digest_of(old) != base.digest or files.digest_of(young) != new.digest:
                return None  # altered; whoever sends the file whole says so
            with (
                tempfile.TemporaryFile(prefix="shipway-delta-") as out,
                delta.mapped(old) as below,
                delta.mapped(young) as above,
            ):
                digest = delta.write(below, above, cast(BinaryIO, out), int(new.size * _WORTH))
                out.flush()
                return Recipe(digest, out.tell(), os.dup(out.fileno())) if digest else None
        except (OSError, ShipwayError):
            return None  # no room, no such file: that must not stop a deployment


class _Reader(io.RawIOBase):
    """Reads from where it is itself, whoever else reads the same open file."""

    def __init__(self, keeper: object, descriptor: int) -> None:
        self._keeper = keeper  # closes the descriptor when nobody has it any more
        self._descriptor = descriptor
        self._at = 0

    def readable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset if whence == os.SEEK_SET else self._at + offset
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = os.pread(self._descriptor, len(buffer), self._at)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

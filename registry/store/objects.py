"""What the store needs of a storage service: keys, bytes and one conditional write."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from shipway.registry.nouns import Digest


class Objects(Protocol):
    """Objects by key (``a/b/c``). A reader sees an object whole or not at all.

    Methods raise DeliveryError, saying what to do, where the service can't be reached or written.
    """

    address: str

    def get(self, key: str) -> bytes | None:
        """The object's bytes, or None where there is none. For small documents."""

    def put(self, key: str, data: bytes) -> None:
        """Write or replace a small object in one step."""

    def create(self, key: str, data: bytes) -> bool:
        """Write a small object only if there is none: of several writers exactly one gets True."""

    def put_file(self, key: str, source: Path, digest: Digest) -> None:
        """Store a file's bytes, checked against ``digest`` on the way (IntegrityError)."""

    def local(self, key: str) -> Path | None:
        """A local, read-only path of the object's bytes (fetched if need be), or None where there is none."""

    def exists(self, key: str) -> bool:
        """Whether there is such an object."""

    def is_intact(self, key: str, digest: Digest) -> bool:
        """Whether there is such an object and its bytes are ``digest``, as far as that is known here."""

    def list(self, prefix: str) -> Iterator[str]:
        """Keys that start with ``prefix``, which ends with '/', in order."""

    def folders(self, prefix: str) -> Iterator[str]:
        """The next part of the keys below ``prefix``, which ends with '/', where more parts follow; in order.

        Costs as much as there are such parts, however many objects lie below them.
        """

    def delete(self, key: str) -> None:
        """Remove an object; nothing happens where there is none."""

"""A bucket of an S3 service as the store.

The bytes of an object are named by the last part of its key where that is a sha256, as of all that is kept by
content; then a file fetched once is never asked for again, whoever needs it. Ledger documents are written by
conditional requests: see ``shipway.registry.s3.conditions``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

from shipway.registry import files
from shipway.registry.errors import DeliveryError, IntegrityError
from shipway.registry.nouns import Digest, File
from shipway.registry.s3 import transfer
from shipway.registry.s3.bucket import Bucket, MissingError, Patience, Service, parse_address
from shipway.registry.s3.conditions import Conditions
from shipway.registry.store.store import Store

_BY_CONTENT = re.compile(r"[0-9a-f]{64}")


class S3Objects:
    """Objects below ``s3://bucket/prefix``. ``cache``: folder of fetched files, by content; may be shared.

    Raises ConfigError on an address that is none. Nothing is asked of the service before the first use.
    """

    def __init__(
        self, address: str, cache: Path, service: Service | None = None, patience: Patience | None = None
    ) -> None:
        name, self.prefix = parse_address(address)
        self.address = f"s3://{name}/{self.prefix}".rstrip("/")
        # A thread that sends parts, and the one that reads answers meanwhile, each hold a connection.
        self.bucket = Bucket(name, service or Service(), patience, connections=transfer.WORKERS + 2)
        self._cache = cache
        self._conditions = Conditions(self.bucket, self.key(".probe/conditional-writes"), self.address)

    def key(self, key: str) -> str:
        """The bucket's key of the store's ``key``: for server-side copies out of the store."""
        return f"{self.prefix}/{key}" if self.prefix else key

    def get(self, key: str) -> bytes | None:
        found = self.bucket.get(self.key(key))
        return found[0] if found is not None else None

    def put(self, key: str, data: bytes) -> None:
        self.bucket.put(self.key(key), data)

    def create(self, key: str, data: bytes) -> bool:
        return self._conditions.create(self.key(key), data) is not None

    def put_file(self, key: str, source: Path, digest: Digest) -> None:
        head = self.bucket.head(self.key(key))
        try:
            if head is None or head.digest != digest or head.size != source.stat().st_size:
                transfer.send(self.bucket, self.key(key), source, digest)
        except OSError as error:
            raise _unreadable(source, error) from error

    def local(self, key: str) -> Path | None:
        name = key.rpartition("/")[2]
        digest = Digest(name) if _BY_CONTENT.fullmatch(name) else None
        if digest is not None and self._cached(digest).is_file():
            return self._cached(digest)
        head = self.bucket.head(self.key(key))
        if head is None:
            return None
        digest = digest or head.digest
        if digest is None:
            raise IntegrityError(
                f"{key} at {self.address} was not written by shipway.",
                why="It carries no sha256, so that nobody can tell whether it is whole.",
                remedy="Delete it, then register the model again: that writes it anew.",
            )
        path = self._cached(digest)
        try:
            transfer.fetch(self.bucket, self.key(key), head, digest, path)
        except MissingError:
            return None
        except OSError as error:
            raise _unreadable(self._cache, error) from error
        return path

    def exists(self, key: str) -> bool:
        return self.bucket.head(self.key(key)) is not None

    def is_intact(self, key: str, digest: Digest) -> bool:
        """By the sha256 that the service was given; a copy in the cache is hashed, a bad one removed."""
        head = self.bucket.head(self.key(key))
        if head is None or head.digest not in (digest, None):
            return False
        cached = self._cached(digest)
        try:
            if cached.is_file() and files.digest_of(cached) != digest:
                cached.unlink(missing_ok=True)
        except OSError as error:
            raise _unreadable(cached, error) from error
        return True

    def list(self, prefix: str) -> Iterator[str]:
        start = len(self.key(""))
        for key, _ in self.bucket.list(self.key(prefix)):
            yield key[start:]

    def folders(self, prefix: str) -> Iterator[str]:
        start = self.key(prefix)
        for found in self.bucket.folders(start):
            yield found[len(start) :].rstrip("/")

    def delete(self, key: str) -> None:
        self.bucket.delete(self.key(key))

    def _cached(self, digest: Digest) -> Path:
        return self._cache / digest.algorithm / digest.hex[:2] / digest.hex


def origin(store: Store) -> Callable[[File], tuple[Bucket, str]] | None:
    """Where ``store`` keeps a file's bytes, for server-side copies; None where it is no bucket."""
    objects = store.objects
    if not isinstance(objects, S3Objects):
        return None
    return lambda file: (objects.bucket, objects.key(store.key(file.digest)))


def _unreadable(path: Path, error: OSError) -> DeliveryError:
    return DeliveryError(
        f"{error.filename or path} can't be used.",
        why=error.strerror or str(error),
        remedy="Free space or mend the permissions there, then run the command again.",
    )

"""Writes that happen only if nobody else wrote: what claims a serial and replaces a pointer.

A service that ignores the condition would let two deployments both believe that they won, so that it is
probed once, with an object of its own, and refused. The conditions:
https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html
"""

from __future__ import annotations

import threading

from shipway.registry.errors import DeliveryError
from shipway.registry.s3.bucket import Bucket, Headers

_ABSENT: Headers = {"IfNoneMatch": "*"}
_NEVER: Headers = {"IfMatch": '"00000000000000000000000000000000"'}
_NAMES = {"IfNoneMatch": "If-None-Match", "IfMatch": "If-Match"}


class Conditions:
    """Conditional writes in ``bucket``. ``probe``: key that they are tried on; ``address``: for messages."""

    def __init__(self, bucket: Bucket, probe: str, address: str) -> None:
        self._bucket = bucket
        self._probe = probe
        self._address = address
        self._proven: set[str] = set()
        self._lock = threading.Lock()

    def create(self, key: str, data: bytes, headers: Headers | None = None) -> str | None:
        """Write an object only if there is none; its ETag, or None where there is one."""
        self._prove(_ABSENT)
        return self._bucket.put(key, data, headers, condition=_ABSENT)

    def replace(self, key: str, data: bytes, etag: str, headers: Headers | None = None) -> str | None:
        """Replace an object only if its ETag is ``etag``; the new ETag, or None where it is another."""
        self._prove(_NEVER)
        return self._bucket.put(key, data, headers, condition={"IfMatch": etag})

    def _prove(self, condition: Headers) -> None:
        """Of two writes of the probe under ``condition`` the second must fail; so may the first."""
        (name,) = condition
        with self._lock:
            if name in self._proven:
                return
            for _ in range(2):
                if self._bucket.put(self._probe, b"", condition=condition) is None:
                    self._proven.add(name)
                    return
        raise DeliveryError(
            f"{self._address} can't hold deployments: the service ignores {_NAMES[name]}.",
            why="Two people who deploy at the same time would both believe that they won.",
            remedy="Use one that honours conditional writes (AWS S3, MinIO, versitygw do), or a folder.",
        )

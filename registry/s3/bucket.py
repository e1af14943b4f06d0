"""A bucket of an S3 service: requests with retries, verified bytes and errors that say what to do.

The only module that imports botocore (boto3's core), and it does so when the first request is made.

Rules: every object that is written carries its sha256 as metadata; the service checks what arrives, against
``x-amz-checksum-sha256`` on AWS and against the signed payload hash elsewhere, because botocore's default
checksums break S3-compatible services (https://github.com/boto/boto3/issues/4392). A request is tried a
bounded number of times with growing, random pauses. A conditional write whose answer got lost is settled by a
token kept with the object, so that the winner is never told that it lost.
"""

from __future__ import annotations

import base64
import functools
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from shipway.registry.errors import ConfigError
from shipway.registry.nouns import Digest
from shipway.registry.s3 import failures

_T = TypeVar("_T")
_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_AWS = re.compile(r"https://([^/]+\.)?amazonaws\.com(\.cn)?(/|$)")

_HEADERS = ("ContentType", "ContentEncoding", "CacheControl")
Headers = Mapping[str, str]
"""Object headers by botocore's names: ContentType, ContentEncoding, CacheControl."""


@dataclass(frozen=True, slots=True)
class Service:
    """How to reach an S3 service. Credentials are found as AWS tools find them, unless ``anonymous``.

    ``addressing``: ``path`` or ``virtual``; by default what the AWS configuration says, else ``path`` for an
    ``endpoint`` of one's own. ``checksums``: send x-amz-checksum-sha256; by default to AWS only.
    """

    endpoint: str | None = None
    region: str | None = None
    profile: str | None = None
    anonymous: bool = False
    addressing: str | None = None
    checksums: bool | None = None


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait for a service, in seconds, and how often to try one request."""

    attempts: int = 5
    pause: float = 0.2  # the longest first pause; it doubles
    longest_pause: float = 5.0
    connect: float = 5.0
    read: float = 30.0


@dataclass(frozen=True, slots=True)
class Head:
    """What a service says of an object. ``digest``: as written by shipway, None on foreign objects."""

    size: int
    etag: str
    digest: Digest | None
    writer: str
    headers: Mapping[str, str]
    proof: Digest | None  # the whole's sha256 as the service computed it itself; None where it did not


class RefusedError(Exception):
    """A condition of ours did not hold. ``unsure``: an earlier try of the request may have got through."""

    def __init__(self, unsure: bool) -> None:
        super().__init__("the condition did not hold")
        self.unsure = unsure


class MissingError(Exception):
    """There is no such object."""


class LostUploadError(Exception):
    """An upload in parts ended behind our back (finished or aborted by somebody), or a part was replaced."""


def parse_address(address: str) -> tuple[str, str]:
    """Bucket and prefix ('' or without slashes at its ends) of ``s3://bucket/prefix``. Raises ConfigError."""
    scheme, _, rest = address.partition("://")
    name, _, prefix = rest.partition("/")
    prefix = prefix.strip("/")
    plain = prefix.isprintable() and not {"", ".", ".."} & set(prefix.split("/")) if prefix else True
    if scheme != "s3" or not _NAME.fullmatch(name) or ".." in name or not plain:
        raise ConfigError(
            f"{address!r} is no place in an S3 service.",
            why="A bucket's name has 3 to 63 lower-case letters, digits, '-' or '.'; a prefix is a plain "
            "path without '..'.",
            remedy="Write s3://bucket/prefix in deploy.yaml.",
        )
    return name, prefix


class Bucket:
    """One bucket. Safe to use from several threads; ``connections`` bounds how many requests run at once."""

    page = 1000  # keys asked for at a time: the most that services give

    def __init__(
        self, name: str, service: Service, patience: Patience | None = None, *, connections: int = 8
    ) -> None:
        self.name = name
        self.service = service
        self.address = f"s3://{name}"
        self._patience = patience or Patience()
        self._connections = connections
        self._lock = threading.Lock()
        self._client: Any = None
        self._checksums = False
        self._random = secrets.SystemRandom()

    # reading

    def head(self, key: str) -> Head | None:
        self._connect_explained()
        mode = {"ChecksumMode": "ENABLED"} if self._checksums else {}
        answer = self._unless_missing("head_object", Key=key, **mode)
        return _head(answer) if answer is not None else None

    def get(self, key: str) -> tuple[bytes, Head] | None:
        """A small object whole, checked against its sha256 (IntegrityError), or None where there is none."""

        def read() -> tuple[bytes, Head]:
            answer = self._connect().get_object(Bucket=self.name, Key=key)
            data, head = answer["Body"].read(), _head(answer)
            if head.digest is not None and Digest.of(data) != head.digest:
                raise failures.DamagedError(f"{key} is not {head.digest.short}, as when it was written.")
            return data, head

        try:
            return self._attempt("get_object", read)
        except MissingError:
            return None

    def get_range(self, key: str, etag: str, start: int, size: int) -> bytes:
        """``size`` bytes from ``start`` on of the object with this ETag (MissingError, RefusedError)."""
        last = start + size - 1

        def read() -> bytes:
            answer = self._connect().get_object(
                Bucket=self.name, Key=key, Range=f"bytes={start}-{last}", IfMatch=etag
            )
            data: bytes = answer["Body"].read()
            if len(data) != size:
                raise failures.DamagedError(f"{len(data)} bytes of {key} came where {size} were asked for.")
            return data

        return self._attempt("get_object", read)

    def list(self, prefix: str) -> Iterator[tuple[str, int]]:
        """Keys that start with ``prefix``, in order, and their sizes in bytes; a page at a time."""
        for page in self._pages(Prefix=prefix):
            yield from ((entry["Key"], entry["Size"]) for entry in page.get("Contents", ()))

    def folders(self, prefix: str) -> Iterator[str]:
        """What keys that start with ``prefix`` start with up to their next '/', each once; in order."""
        for page in self._pages(Prefix=prefix, Delimiter="/"):
            yield from (entry["Prefix"] for entry in page.get("CommonPrefixes", ()))

    def _pages(self, **asked: str) -> Iterator[dict[str, Any]]:
        more: dict[str, Any] = {}
        while True:
            page = self.call("list_objects_v2", **asked, MaxKeys=self.page, **more)
            yield page
            if not page.get("IsTruncated"):
                return
            more = {"ContinuationToken": page["NextContinuationToken"]}

    # writing

    def put(
        self, key: str, data: bytes, headers: Headers | None = None, *, condition: Headers | None = None
    ) -> str | None:
        """Write an object; its ETag, or None where ``condition`` (IfNoneMatch, IfMatch) did not hold."""
        digest = Digest.of(data)
        token = secrets.token_hex(16)
        metadata = {"sha256": digest.hex, **({"writer": token} if condition else {})}
        fields = {**(headers or {}), **(condition or {}), **self.checksum(digest)}
        try:
            etag: str = self.call("put_object", Key=key, Body=data, Metadata=metadata, **fields)["ETag"]
        except RefusedError as refused:
            found = self.head(key) if refused.unsure else None
            return found.etag if found is not None and found.writer == token else None
        except MissingError:
            if condition is None:
                raise RuntimeError(f"{key} was not written, and nobody knows why") from None
            return None  # If-Match on an object that is not there
        return etag

    def delete(self, key: str) -> None:
        self._unless_missing("delete_object", Key=key)

    def checksum(self, digest: Digest) -> dict[str, str]:
        """The parameter with which the service checks the bytes of a request, where it is to be sent."""
        self._connect_explained()
        if not self._checksums:
            return {}
        return {"ChecksumSHA256": base64.b64encode(bytes.fromhex(digest.hex)).decode()}

    # requests

    def call(self, operation: str, **parameters: Any) -> dict[str, Any]:
        """One request by botocore's name for it.

        Raises MissingError (no such object), RefusedError, LostUploadError, or a ShipwayError.
        """
        return self._attempt(
            operation, lambda: getattr(self._connect(), operation)(Bucket=self.name, **parameters)
        )

    def _unless_missing(self, operation: str, **parameters: Any) -> dict[str, Any] | None:
        try:
            return self.call(operation, **parameters)
        except MissingError:
            return None

    def _attempt(self, operation: str, request: Callable[[], _T]) -> _T:
        tried = 0
        while True:
            tried += 1
            try:
                return request()
            except Exception as error:
                if not failures.passing(error) or tried >= self._patience.attempts:
                    translated = self._translated(error, operation, unsure=tried > 1)
                    if translated is error:
                        raise
                    raise translated from error
            self._wait(tried)

    def _translated(self, error: Exception, operation: str, *, unsure: bool) -> Exception:
        if failures.missing(error):
            return MissingError(str(error))
        if failures.precondition(error):
            return RefusedError(unsure)
        if failures.lost_upload(error):
            return LostUploadError(str(error))
        if _of_the_service(error):
            return failures.explain(error, self.address, self._url(), operation)
        return error

    def _wait(self, tried: int) -> None:
        """Wait at random between nothing and a bound that doubles, so that many clients spread out.

        https://aws.amazon.com/builders-library/timeouts-retries-and-backoff-with-jitter/
        """
        bound = min(self._patience.longest_pause, self._patience.pause * 2 ** (tried - 1))
        time.sleep(self._random.uniform(0, bound))

    def _url(self) -> str:
        return str(self._client.meta.endpoint_url) if self._client else self.service.endpoint or "AWS"

    def _connect_explained(self) -> None:
        self._attempt("connect", self._connect)

    def _connect(self) -> Any:
        with self._lock:
            if self._client is None:
                self._client = self._make_client()
                known = self.service.checksums
                self._checksums = known if known is not None else bool(_AWS.match(self._url()))
            return self._client

    def _make_client(self) -> Any:
        import botocore  # type: ignore[import-untyped]
        import botocore.session  # type: ignore[import-untyped]
        from botocore.config import Config  # type: ignore[import-untyped]

        service, patience = self.service, self._patience
        session = botocore.session.Session(profile=service.profile)
        session.register_component("data_loader", _data_loader())
        own = session.get_scoped_config().get("s3") or {}
        usual = "path" if service.endpoint else "auto"
        config = Config(
            connect_timeout=patience.connect,
            read_timeout=patience.read,
            retries={"mode": "standard", "total_max_attempts": 1},  # we try again, bodies included
            max_pool_connections=self._connections,
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            s3={"addressing_style": service.addressing or own.get("addressing_style") or usual},
            signature_version=botocore.UNSIGNED if service.anonymous else None,
        )
        # A service of one's own rarely cares for the region, but a signature has to name one.
        region = service.region or session.get_config_variable("region")
        if region is None and service.endpoint:
            region = "us-east-1"
        try:
            return session.create_client(
                "s3", region_name=region, endpoint_url=service.endpoint, config=config
            )
        except ValueError as error:
            raise ConfigError(
                f"'endpoint' of {self.address} in deploy.yaml: {error}",
                remedy="Write a URL with its scheme, such as https://s3.example.com or http://localhost:9000.",
            ) from error


@functools.lru_cache(maxsize=1)
def _data_loader() -> Any:
    """What botocore knows of services, parsed once a process: a second client takes 16 ms instead of 110."""
    from botocore.loaders import create_loader  # type: ignore[import-untyped]

    return create_loader()


def _of_the_service(error: Exception) -> bool:
    if isinstance(error, (failures.DamagedError, ConnectionError, TimeoutError)):
        return True
    return any(kind.__module__.startswith("botocore.") for kind in type(error).__mro__)


def _head(answer: Mapping[str, Any]) -> Head:
    metadata = answer.get("Metadata", {})
    try:
        digest = Digest.parse(f"sha256:{metadata.get('sha256', '')}")
    except ValueError:
        digest = None
    headers = {name: str(answer[name]) for name in _HEADERS if answer.get(name)}
    # A sum of parts' sums ends in '-' and their number: it proves nothing about the whole.
    checksum = answer.get("ChecksumSHA256") or "-"
    proof = None if "-" in checksum else Digest(base64.b64decode(checksum).hex())
    return Head(
        int(answer["ContentLength"]), answer["ETag"], digest, metadata.get("writer", ""), headers, proof
    )

"""Files to and from a bucket: in parts, several at a time, in bounded memory, resumed after a break.

Sending reads a file once: while parts travel, the whole is hashed, and the object appears only if the hash is
the expected one. An interrupted upload stays at the service; the next one finds it there by its key and sends
only parts whose checksum differs. Fetching keeps an ordered prefix in a ``.part`` file, goes on behind it,
and gives the file its name only once the whole hash is right.
"""

from __future__ import annotations

import base64
import contextlib
import datetime
import fcntl
import hashlib
import itertools
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from shipway.registry.errors import DeliveryError, IntegrityError
from shipway.registry.nouns import Digest
from shipway.registry.s3.bucket import Bucket, Head, Headers, LostUploadError, MissingError, RefusedError

PART = 8 << 20  # bytes; a service takes parts of 5 MiB to 5 GiB
WORKERS = 6  # parts at work at once; of those sent _UNDER_WAY are in memory, of those fetched one more
_UNDER_WAY = WORKERS + 2  # jobs that are made and not done: those at work and a few that wait
_MOST_PARTS = 10_000  # https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html
_MOST_COPIED = 5 << 30  # bytes that one CopyObject takes
_MIB = 1 << 20

_T = TypeVar("_T")


def part_size(size: int) -> int:
    """Bytes of a part of a file of ``size`` bytes: always the same, so that another try finds its parts."""
    return max(PART, -(-size // (_MOST_PARTS * _MIB)) * _MIB)


def send(bucket: Bucket, key: str, source: Path, digest: Digest, headers: Headers | None = None) -> int:
    """Store ``source`` under ``key``; return the bytes that were sent for it.

    Raises IntegrityError, having stored nothing, where the file does not hold ``digest``.
    """
    size = source.stat().st_size
    if size <= PART:
        data = source.read_bytes()
        if Digest.of(data) != digest:
            raise _changed(source, digest)
        bucket.put(key, data, headers)
        return len(data)
    sent = 0
    for resume in (True, False):
        with contextlib.suppress(LostUploadError):
            upload = _Upload(bucket, key, source, digest, headers or {})
            try:
                upload.run(resume=resume)
            finally:
                sent += upload.sent
        if _right(bucket.head(key), digest, size):
            return sent
    raise DeliveryError(
        f"{bucket.address} did not keep {key}.",
        why="It took every part, but what it says of the whole is not what was sent.",
        remedy="Does something else write there? Then run the command again.",
    )


def _right(head: Head | None, digest: Digest, size: int) -> bool:
    return head is not None and head.digest == digest and head.size == size


def _changed(source: Path, digest: Digest) -> IntegrityError:
    return IntegrityError(
        f"{source} changed while it was being stored.",
        why=f"It does not hold {digest}.",
        remedy="Leave the file alone and run the command again.",
    )


class _Upload:
    """One try at sending a file in parts. ``sent`` counts bytes of parts that were not there already."""

    def __init__(self, bucket: Bucket, key: str, source: Path, digest: Digest, headers: Headers) -> None:
        self.bucket, self.key, self.source, self.digest, self.headers = bucket, key, source, digest, headers
        self.sent = 0

    def run(self, *, resume: bool) -> None:
        upload = (self._unfinished() if resume else None) or self._begin()
        there = self._parts(upload)
        size, whole = part_size(self.source.stat().st_size), hashlib.sha256()

        def jobs() -> Iterator[Callable[[], dict[str, Any]]]:
            with self.source.open("rb") as stream:
                for number, data in enumerate(_pieces(stream, size), start=1):
                    whole.update(data)
                    yield partial(self._send, upload, number, data, there.get(number))

        parts = []
        for part in in_order(jobs()):
            self.sent += part.pop("Sent")
            parts.append(part)
        if whole.hexdigest() != self.digest.hex:
            self._abort(upload)
            raise _changed(self.source, self.digest)
        try:
            self._call("complete_multipart_upload", UploadId=upload, MultipartUpload={"Parts": parts})
        except LostUploadError:
            self._abort(upload)
            raise

    def _begin(self) -> str:
        fields: dict[str, Any] = dict(self.headers)
        if self.bucket.checksum(self.digest):
            fields["ChecksumAlgorithm"] = "SHA256"
        answer = self._call("create_multipart_upload", Metadata={"sha256": self.digest.hex}, **fields)
        return str(answer["UploadId"])

    def _unfinished(self) -> str | None:
        """The newest upload of this key that was begun and not ended. None where the service can't tell."""
        try:
            answer = self.bucket.call("list_multipart_uploads", Prefix=self.key)
        except DeliveryError:
            return None  # listing uploads is a right of its own; without it nothing is lost but time
        found = [entry for entry in answer.get("Uploads") or () if entry["Key"] == self.key]
        found.sort(key=lambda entry: entry["Initiated"])
        return str(found[-1]["UploadId"]) if found else None

    def _parts(self, upload: str) -> dict[int, Mapping[str, Any]]:
        """The parts that the service has, by number."""
        parts: dict[int, Mapping[str, Any]] = {}
        after = 0
        while True:
            page = self._call("list_parts", UploadId=upload, PartNumberMarker=after)
            parts |= {entry["PartNumber"]: entry for entry in page.get("Parts") or ()}
            if not page.get("IsTruncated"):
                return parts
            after = int(page["NextPartNumberMarker"])

    def _send(
        self, upload: str, number: int, data: bytearray, there: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        if there is not None and _same(there, data):
            known = {"ChecksumSHA256": there["ChecksumSHA256"]} if there.get("ChecksumSHA256") else {}
            return {"PartNumber": number, "ETag": there["ETag"], **known, "Sent": 0}
        checksum = self.bucket.checksum(self.digest) and self.bucket.checksum(Digest.of(data))
        answer = self._call("upload_part", UploadId=upload, PartNumber=number, Body=data, **checksum)
        return {"PartNumber": number, "ETag": answer["ETag"], **checksum, "Sent": len(data)}

    def _abort(self, upload: str) -> None:
        with contextlib.suppress(LostUploadError, MissingError):
            self._call("abort_multipart_upload", UploadId=upload)

    def _call(self, operation: str, **parameters: Any) -> dict[str, Any]:
        return self.bucket.call(operation, Key=self.key, **parameters)


def _same(there: Mapping[str, Any], data: bytearray) -> bool:
    """Whether a part at the service holds ``data``, by SHA-256 where it says one, else by MD5 (its ETag)."""
    if there["Size"] != len(data):
        return False
    if there.get("ChecksumSHA256"):
        return bool(base64.b64decode(there["ChecksumSHA256"]) == hashlib.sha256(data).digest())
    etag = there["ETag"].strip('"')
    return bool(etag == hashlib.md5(data, usedforsecurity=False).hexdigest())


def abort_uploads(bucket: Bucket, prefix: str, older_than: datetime.timedelta) -> int:
    """End uploads below ``prefix`` that were begun longer ago than that; return how many."""
    limit = datetime.datetime.now(datetime.timezone.utc) - older_than
    answer = bucket.call("list_multipart_uploads", Prefix=prefix)
    ended = 0
    for entry in answer.get("Uploads") or ():
        if entry["Initiated"] < limit:
            with contextlib.suppress(LostUploadError, MissingError):
                bucket.call("abort_multipart_upload", Key=entry["Key"], UploadId=entry["UploadId"])
                ended += 1
    return ended


def copy(
    bucket: Bucket, key: str, source: tuple[str, str], head: Head, headers: Headers | None = None
) -> None:
    """Have the service copy ``source`` (bucket, key), which looks like ``head``, to ``key`` of ``bucket``.

    Raises MissingError or RefusedError where the source is gone or not that one any more.
    """
    if head.digest is None:
        raise ValueError(f"{source[1]} carries no sha256")
    from_ = {"CopySource": {"Bucket": source[0], "Key": source[1]}, "CopySourceIfMatch": head.etag}
    fields: dict[str, Any] = {**(headers or {}), "Metadata": {"sha256": head.digest.hex}}
    if head.size <= _MOST_COPIED:
        if bucket.checksum(head.digest):  # the service computes it over the whole copy: see Head.proof
            fields["ChecksumAlgorithm"] = "SHA256"
        bucket.call("copy_object", Key=key, **from_, **fields, MetadataDirective="REPLACE")
        return
    size = part_size(head.size)
    upload = bucket.call("create_multipart_upload", Key=key, **fields)["UploadId"]

    def one(number: int, span: str) -> dict[str, Any]:
        fields = {"UploadId": upload, "PartNumber": number, "CopySourceRange": span, **from_}
        answer = bucket.call("upload_part_copy", Key=key, **fields)
        return {"PartNumber": number, "ETag": answer["CopyPartResult"]["ETag"]}

    def jobs() -> Iterator[Callable[[], dict[str, Any]]]:
        for number, start in enumerate(range(0, head.size, size), start=1):
            span = f"bytes={start}-{min(start + size, head.size) - 1}"
            yield partial(one, number, span)

    try:
        parts = list(in_order(jobs()))
        bucket.call("complete_multipart_upload", Key=key, UploadId=upload, MultipartUpload={"Parts": parts})
    except BaseException:
        with contextlib.suppress(Exception):
            bucket.call("abort_multipart_upload", Key=key, UploadId=upload)
        raise


def fetch(bucket: Bucket, key: str, head: Head, digest: Digest, target: Path) -> None:
    """Bring the object that looks like ``head`` to ``target``, read-only, in one step, checked by ``digest``.

    Of several processes one fetches and the others wait for it. Raises IntegrityError where the bytes are
    wrong twice, MissingError where the object is gone.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    with _locked(part, target) as stream:
        if stream is None:
            return
        for _ in range(2):
            found = _continue(bucket, key, head, stream)
            if found == digest:
                stream.flush()
                os.fsync(stream.fileno())
                part.chmod(0o444)
                part.replace(target)
                return
            stream.truncate(0)  # what an earlier try left may be the damaged half: from the start again
        part.unlink()
    raise IntegrityError(
        f"{bucket.address} gives back other bytes than were stored.",
        why=f"{key} is not {digest.short}: {found.short} came, twice.",
        remedy="Delete that object, then register the model again: that writes it anew.",
    )


def read_back(bucket: Bucket, key: str, head: Head) -> Digest | None:
    """The digest of what the bucket holds under ``key``, read whole; None where it is gone or replaced."""
    whole = hashlib.sha256()
    try:
        for data in _ranges(bucket, key, head, 0):
            whole.update(data)
    except (MissingError, RefusedError):
        return None
    return Digest(whole.hexdigest())


def _ranges(bucket: Bucket, key: str, head: Head, start: int) -> Iterator[bytes]:
    """The object's bytes from ``start`` on, in order, several parts under way at once."""
    starts = range(start, head.size, PART)
    return in_order(
        partial(bucket.get_range, key, head.etag, start, min(PART, head.size - start)) for start in starts
    )


def _continue(bucket: Bucket, key: str, head: Head, stream: BinaryIO) -> Digest:
    """Append to ``stream`` what it lacks of the object; the digest of the whole."""
    if os.fstat(stream.fileno()).st_size > head.size:
        stream.truncate(0)
    stream.seek(0)
    whole = hashlib.sha256()
    for chunk in _chunks(stream, _MIB):
        whole.update(chunk)
    try:
        for data in _ranges(bucket, key, head, stream.tell()):
            whole.update(data)
            stream.write(data)
    except RefusedError as error:
        raise DeliveryError(
            f"{key} at {bucket.address} was replaced while it was being fetched.",
            remedy="Run the command again.",
        ) from error
    return Digest(whole.hexdigest())


@contextlib.contextmanager
def _locked(part: Path, target: Path) -> Iterator[BinaryIO | None]:
    """The part file, open and ours alone; None where ``target`` has come about, perhaps while we waited."""
    while not target.exists():
        with part.open("a+b") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            with contextlib.suppress(FileNotFoundError):
                # Who held the lock may have renamed or removed the file that we opened.
                if os.path.samestat(part.stat(), os.fstat(stream.fileno())) and not target.exists():
                    yield stream
                    return
    yield None


def _chunks(stream: BinaryIO, size: int) -> Iterator[bytes]:
    while chunk := stream.read(size):
        yield chunk


def _pieces(stream: BufferedReader, size: int) -> Iterator[bytearray]:
    """The bytes of ``stream`` in pieces of ``size``, the last one shorter, for jobs of ``in_order``.

    A piece is filled anew once the job that was given it is done: fresh memory has to be zeroed first. It is
    a bytearray, which botocore sends as it is; of bytes it makes a file, which is copied to be hashed and
    sent by 16 KiB.
    """
    made: list[bytearray] = []
    for number in itertools.count():
        if number < _UNDER_WAY:
            made.append(bytearray(size))
        piece = made[number % _UNDER_WAY]
        count = stream.readinto(piece)
        if count:
            yield piece if count == size else piece[:count]
        if count < size:
            return


def in_order(jobs: Iterator[Callable[[], _T]]) -> Iterator[_T]:
    """Results of ``jobs`` in order, ``WORKERS`` of them at work at once, ``_UNDER_WAY`` made at most."""
    pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="s3")
    waiting: deque[Future[_T]] = deque()
    try:
        for job in jobs:
            waiting.append(pool.submit(job))
            if len(waiting) == _UNDER_WAY:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)

"""What a bucket holds of releases: which there are, what is in them, and whether it is right.

Rules: what counts is sha256 as the service computed it over what it holds (AWS does), else of the bytes read
back. An object that was read once is not read again while its ETag stays.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from shipway.registry.errors import IntegrityError
from shipway.registry.nouns import Digest, File
from shipway.registry.s3 import transfer
from shipway.registry.s3.bucket import Bucket, Head
from shipway.targets.deliveries.served import headers_of
from shipway.targets.manifest import MANIFEST, Manifest, ManifestDiff


class S3Releases:
    """The releases below ``<root>releases/`` of ``bucket``; ``root`` is empty or ends with '/'."""

    def __init__(self, bucket: Bucket, root: str) -> None:
        self._bucket = bucket
        self._all = f"{root}releases/"
        self._digests: dict[tuple[str, str], Digest] = {}  # of what was read back, by key and ETag

    def audit(self, manifest: Manifest) -> ManifestDiff:
        wrong = self.wrong(manifest)
        raw = self.read(self.home(manifest.release_id) + MANIFEST)
        if raw != manifest.to_bytes():
            wrong[MANIFEST] = "missing" if raw is None else "changed"
        missing, changed = (
            tuple(path for path, word in wrong.items() if word == said) for said in ("missing", "changed")
        )
        return ManifestDiff(missing, changed)

    def has(self, manifest: Manifest) -> bool:
        home = self.home(manifest.release_id)
        if self.read(home + MANIFEST) != manifest.to_bytes():
            return False
        sizes = dict(self._bucket.list(home))
        return all(sizes.get(home + file.path) == file.size for file in manifest.files)

    def holds(self, digests: Iterable[Digest]) -> frozenset[Digest]:
        sizes = dict(self._bucket.list(self._all))
        there = {
            file.digest
            for name in self._sealed(sizes)
            for file in self.listed(name)
            if sizes.get(self.home(name) + file.path) == file.size
        }
        return frozenset(there.intersection(digests))

    def releases(self) -> tuple[str, ...]:
        return self._sealed(key for key, _ in self._bucket.list(self._all))

    def home(self, release: str) -> str:
        """The key of a release's folder. Raises ValueError on a name that is none."""
        if not _plain(release):
            raise ValueError(f"{release!r} is no name of a release")
        return f"{self._all}{release}/"

    def _sealed(self, keys: Iterable[str]) -> tuple[str, ...]:
        parts = (key.removeprefix(self._all).split("/") for key in keys)
        return tuple(sorted(path[0] for path in parts if path[1:] == [MANIFEST] and _plain(path[0])))

    def read(self, key: str) -> bytes | None:
        """A small object; empty where what comes is not what was written, None where there is none."""
        try:
            found = self._bucket.get(key)
        except IntegrityError:
            return b""
        return found[0] if found else None

    def listed(self, release: str) -> tuple[File, ...]:
        """The files that a release at the destination says it holds; none where its manifest is damaged."""
        try:
            return Manifest.from_bytes(self.read(self.home(release) + MANIFEST) or b"").files
        except IntegrityError:
            return ()

    def wrong(self, manifest: Manifest, *, served: bool = False) -> dict[str, str]:
        """What is ``missing`` or ``changed`` of a release, by path; headers count where ``served``."""
        home = self.home(manifest.release_id)
        heads = transfer.in_order(partial(self._bucket.head, home + file.path) for file in manifest.files)
        wrong, unread = {}, []
        for file, head in zip(manifest.files, heads, strict=True):
            if head is None:
                wrong[file.path] = "missing"
            elif head.size != file.size or (served and not announced(head, file)):
                wrong[file.path] = "changed"
            else:
                unread.append((file, head))
        small = [item for item in unread if item[1].size <= transfer.PART]
        jobs = (partial(self._content, home + file.path, head, file.digest) for file, head in small)
        found = dict(zip((file.path for file, _ in small), transfer.in_order(jobs), strict=True))
        for file, head in unread:  # a large one fills every connection by itself
            known = file.path in found
            content = found[file.path] if known else self._content(home + file.path, head, file.digest)
            if content != file.digest:
                wrong[file.path] = "changed"
        return dict(sorted(wrong.items()))

    def _content(self, key: str, head: Head, wanted: Digest) -> Digest | None:
        """The digest of an object's bytes. What came wrong is read again: the way back may be at fault."""
        known = head.proof or self._digests.get((key, head.etag))
        for _ in range(2):
            known = known or transfer.read_back(self._bucket, key, head)
            if known == wanted:
                self._digests[key, head.etag] = known
                return known
            known = None
        return None


def announced(head: Head | None, file: File) -> bool:
    """Whether an object says of itself that it is ``file``, with the headers it should be served with."""
    if head is None or head.size != file.size or head.digest != file.digest:
        return False
    return dict(head.headers) == headers_of(file.path)


def _plain(release: str) -> bool:
    return bool(release) and release.isprintable() and release[0] != "." and not {"/", "\\"} & set(release)

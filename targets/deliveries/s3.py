"""A bucket of an S3 service as a destination: what a web site, a CDN or an app fetches from.

==========================  ==================================================================================
``releases/<release>/``     files as in ``bundle.json``, which is written last: it is the seal
``current.json``            the pointer (``Pointer.to_json``), replaced on condition that nobody else did
``.pruning/<release>``      an empty object while that release is being removed
``.probe/``                 an object on which conditional writes were tried
==========================  ==================================================================================

Storage has no rename, so a release is put together under its name, and counts only once ``bundle.json`` is
there. Rules: every file is checked (``s3_releases``) before the seal is written and again by the gate.
Pruning takes the seal away first. A file that the store or another release has in the same service is copied
there, without passing through here. What was live when this command began is the only thing that it replaces.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import tempfile
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

from shipway.registry.errors import DeliveryError, IntegrityError
from shipway.registry.nouns import Digest, File, Json
from shipway.registry.s3 import transfer
from shipway.registry.s3.bucket import (
    Bucket,
    MissingError,
    Patience,
    RefusedError,
    Service,
    parse_address,
)
from shipway.registry.s3.conditions import Conditions
from shipway.targets.deliveries import gates
from shipway.targets.deliveries.base import Fetch, Programs, changed
from shipway.targets.deliveries.s3_releases import S3Releases, announced
from shipway.targets.deliveries.served import SHORTLY, headers_of
from shipway.targets.manifest import MANIFEST, Manifest, ManifestDiff
from shipway.targets.steps import (
    Command,
    Gate,
    Point,
    Pointer,
    Prune,
    Release,
    Reuse,
    Seal,
    Send,
    Stage,
    Step,
)

Origin = Callable[[File], tuple[Bucket, str]]
"""Where the store keeps a file's bytes, if it is a bucket: that bucket and the key."""

_POINTER = "current.json"


class S3Delivery:
    """A destination at ``s3://bucket/prefix``. ``fetch`` reads the store. See ``Delivery`` for each method.

    Raises ConfigError on an address that is none. Nothing is asked of the service before the first use.
    """

    patches = False
    programs: Programs = "nowhere"
    verdict: Json | None = None

    def __init__(
        self,
        address: str,
        fetch: Fetch,
        service: Service | None = None,
        *,
        origin: Origin | None = None,
        patience: Patience | None = None,
    ) -> None:
        name, prefix = parse_address(address)
        self.address = f"s3://{name}/{prefix}".rstrip("/")
        self.bucket = Bucket(name, service or Service(), patience, connections=transfer.WORKERS + 2)
        self._root = f"{prefix}/" if prefix else ""
        self._fetch = fetch
        self._origin = origin
        self._conditions = Conditions(self.bucket, f"{self._root}.probe/conditional-writes", self.address)
        # The pointer's ETag, or that there is none, once it was read.
        self._seen: tuple[str | None] | None = None
        self._there = S3Releases(self.bucket, self._root)

    # steps

    def perform(self, step: Step) -> int:
        match step:
            case Stage(release):
                self._there.home(release.id)  # needs no folder, but refuses a name that leads elsewhere
            case Send(release, file):
                return self._send(release, file)
            case Reuse(release, file):
                return self._reuse(release, file)
            case Seal(release):
                return self._seal(release)
            case Command(release, argv, why):
                raise DeliveryError(
                    f"{self.address} is storage: it can't run {' '.join(argv)!r} ({why}).",
                    remedy="Send this target to a folder or to hosts (ssh://).",
                )
            case Point(pointer):
                return self._point(pointer)
            case Gate(release):
                downloaded = partial(self._downloaded, release.manifest)
                self.verdict = gates.judge(self, step, downloaded, self._fetch)
            case Prune(name):
                self._prune(name)
        return 0

    def _send(self, release: Release, file: File, *, anew: bool = False) -> int:
        key = self._there.home(release.id) + file.path
        if not anew and announced(self.bucket.head(key), file):
            return 0  # an earlier try got that far
        if self._origin is not None and self._copied(*self._origin(file), key, file):
            return 0
        source = self._fetch(file)
        try:
            return transfer.send(self.bucket, key, source, file.digest, headers_of(file.path))
        except IntegrityError as error:
            raise IntegrityError(
                f"{source} is not {file.path} ({file.digest.short}) any more.",
                why="The file was altered where it is kept.",
                remedy="Delete it, then register the model again: that puts the right one back.",
            ) from error
        except OSError as error:
            raise DeliveryError(
                f"{source} can't be read.", why=str(error), remedy="Mend the permissions there."
            ) from error

    def _reuse(self, release: Release, file: File) -> int:
        key = self._there.home(release.id) + file.path
        for other in self.releases():
            for twin in self._there.listed(other):
                if twin.digest == file.digest and self._copied(
                    self.bucket, self._there.home(other) + twin.path, key, file
                ):
                    return 0
        return self._send(release, file)  # damaged or pruned since it was planned

    def _copied(self, bucket: Bucket, source: str, key: str, file: File) -> bool:
        """Whether the service made ``key`` out of ``source``; False where that must be sent after all."""
        if bucket.service != self.bucket.service:
            return False
        with contextlib.suppress(MissingError, RefusedError, DeliveryError):
            head = bucket.head(source)
            if head is not None and head.digest == file.digest and head.size == file.size:
                transfer.copy(self.bucket, key, (bucket.name, source), head, headers_of(file.path))
                return True
        return False

    def _seal(self, release: Release) -> int:
        sent = 0
        wrong = self._there.wrong(release.manifest, served=True)
        for file in release.manifest.files:
            if file.path in wrong:
                sent += self._send(release, file, anew=True)
        # Headers that a service writes its own way make nobody wait for ever.
        still = self._there.wrong(release.manifest) if wrong else {}
        if still:
            raise DeliveryError(
                f"{', '.join(still)} came out wrong at {self.address}.",
                why="What was read back there is not what was sent.",
                remedy="Does something else write there? Then promote again.",
            )
        key, content = self._there.home(release.id) + MANIFEST, release.manifest.to_bytes()
        if self._there.read(key) != content:
            self.bucket.put(key, content, headers_of(MANIFEST))
        return sent

    def _point(self, pointer: Pointer) -> int:
        if pointer.release not in self.releases():
            raise DeliveryError(
                f"There is no release {pointer.release} at {self.address} to point at.",
                remedy="Promote the version again: that puts it there.",
            )
        if self._seen is None:
            self.pointer()
        (known,) = self._seen or (None,)
        key, headers = self._root + _POINTER, headers_of(_POINTER, SHORTLY)
        content = json.dumps(pointer.to_json(), indent=2).encode() + b"\n"
        if known is None:
            etag = self._conditions.create(key, content, headers)
        else:
            etag = self._conditions.replace(key, content, known, headers)
        if etag is None:
            self._seen = None
            raise changed(f"{self.address}/{_POINTER}")
        self._seen = (etag,)
        return len(content)

    def _prune(self, name: str) -> None:
        home, pointer = self._there.home(name), self.pointer()
        if pointer is not None and pointer.release == name:
            raise ValueError(f"{name} is live at {self.address}: a plan must not prune it")
        removing = f"{self._root}.pruning/"
        self.bucket.put(removing + name, b"")
        self.bucket.delete(home + MANIFEST)  # no half-removed release ever counts as one
        stay = {*self.releases(), *([pointer.release] if pointer else [])}
        for key, _ in list(self.bucket.list(removing)):  # those too at which a process was killed earlier
            begun = key.removeprefix(removing)
            if begun and "/" not in begun and begun not in stay:
                self._sweep(self._there.home(begun))
            self.bucket.delete(key)

    # what is there

    def pointer(self) -> Pointer | None:
        """What is live; a ``current.json`` that nobody can read makes nothing live."""
        found = self.bucket.get(self._root + _POINTER)
        self._seen = (found[1].etag if found else None,)
        return Pointer.read(found[0]) if found else None

    def audit(self, manifest: Manifest) -> ManifestDiff:
        return self._there.audit(manifest)

    def has(self, manifest: Manifest) -> bool:
        return self._there.has(manifest)

    def holds(self, digests: Iterable[Digest]) -> frozenset[Digest]:
        return self._there.holds(digests)

    def releases(self) -> tuple[str, ...]:
        return self._there.releases()

    # undoing

    def withdraw(self) -> None:
        self.bucket.delete(self._root + _POINTER)
        self._seen = (None,)

    def clear(self, release: str) -> None:
        home = self._there.home(release)
        if self.bucket.head(home + MANIFEST) is not None:
            return
        pointer = self.pointer()
        if pointer is None or pointer.release != release:  # whose seal was lost is damaged, not left over
            self._sweep(home)

    # helpers

    def _sweep(self, home: str) -> None:
        jobs = (partial(self.bucket.delete, key) for key, _ in self.bucket.list(home))
        for _ in transfer.in_order(jobs):
            pass
        with contextlib.suppress(DeliveryError):  # listing uploads is a right of its own
            transfer.abort_uploads(self.bucket, home, datetime.timedelta(0))

    @contextlib.contextmanager
    def _downloaded(self, manifest: Manifest) -> Iterator[Path]:
        """The release as it is served, in a folder of its own, for a gate that runs something in it."""
        home = self._there.home(manifest.release_id)
        with tempfile.TemporaryDirectory(prefix="shipway-") as name:
            folder = Path(name)
            for file in manifest.files:
                head = self.bucket.head(home + file.path)
                if head is None:
                    raise DeliveryError(f"{file.path} is missing at {self.address}.", remedy="Promote again.")
                transfer.fetch(self.bucket, home + file.path, head, file.digest, folder / file.path)
                (folder / file.path).chmod(manifest.mode(file.path))
            (folder / MANIFEST).write_bytes(manifest.to_bytes())
            yield folder

"""A folder as a destination: what a web server, a network share or a synced folder serves.

==========================  ==================================================================================
``releases/<release>/``     sealed releases: every file as in its ``bundle.json``
``current.json``            the pointer (``Pointer.to_json``), replaced in one step
``.staging/``               releases being put together and being removed; never served
==========================  ==================================================================================

Rules: a release gets its name by one rename, after every file was read back; ``current.json`` is replaced by
one rename; a file of a release that has its name is only ever replaced whole. Everything is on disk (fsync)
before the rename that publishes it. Files are copied, never hard-linked, from the store or from another
release: whoever edits a served file in place must harm neither the store nor a rollback candidate. Links
planted in a release are never followed: they count as damage and are replaced.
"""

from __future__ import annotations

import contextlib
import json
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from shipway.registry import files
from shipway.registry.errors import DeliveryError, IntegrityError
from shipway.registry.nouns import Digest, File, Json
from shipway.targets.deliveries import copying, gates
from shipway.targets.deliveries.base import Fetch, Programs, changed
from shipway.targets.deliveries.below import make_way, plain, read, remove, size
from shipway.targets.deliveries.digests import Digests, set_back
from shipway.targets.manifest import MANIFEST, Manifest, ManifestDiff, compare
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

CURRENT = "current.json"
_DIGESTS = Digests()  # one for all destinations: the store's files are read once for all of them


class FolderDelivery:
    """A destination below ``root``. ``fetch`` reads the store. See ``Delivery`` for each method."""

    patches = False
    programs: Programs = "here"
    verdict: Json | None = None

    def __init__(self, root: Path, fetch: Fetch) -> None:
        self.root = root
        self.address = str(root)
        self._fetch = fetch
        self._releases = root / "releases"
        self._hidden = root / ".staging"
        self._digests = _DIGESTS
        self._seen: tuple[bytes | None] | None = None  # what ``current.json`` held when it was last looked at
        self._made: tuple[Path, ...] = ()  # folders that were not there before this, innermost first

    # steps

    def perform(self, step: Step) -> int:
        with self._explained():
            match step:
                case Stage(release):
                    self._stage(release)
                case Send(release, file):
                    return self._send(self._staged(release.id), release, file)
                case Reuse(release, file):
                    return self._reuse(self._staged(release.id), release, file)
                case Seal(release):
                    return self._seal(release)
                case Command(release, argv, why):
                    gates.run_command(argv, cwd=self._home(release.id), why=why)
                case Point(pointer):
                    return self._point(pointer)
                case Gate(release):
                    home = self._home(release.id)
                    self.verdict = gates.judge(self, step, lambda: contextlib.nullcontext(home), self._fetch)
                case Prune(name):
                    self._prune(name)
        return 0

    def _stage(self, release: Release) -> None:
        staged = self._staged(release.id)
        remove(staged)
        self._made = self._made or tuple(
            folder for folder in (self.root, *self.root.parents) if not folder.exists()
        )
        staged.mkdir(parents=True)

    def _send(self, folder: Path, release: Release, file: File) -> int:
        return self._put(folder, release, file, self._fetch(file))

    def _reuse(self, folder: Path, release: Release, file: File) -> int:
        for other in self.releases():
            for twin in self._listed(other):
                if twin.digest == file.digest and size(self._home(other), twin.path) == file.size:
                    with contextlib.suppress(IntegrityError):  # that one is damaged: the copy shows it
                        self._put(folder, release, file, self._home(other) / twin.path)
                        return 0
        return self._send(folder, release, file)  # damaged or pruned since it was planned

    def _put(self, folder: Path, release: Release, file: File, source: Path) -> int:
        """Copy ``source`` into ``folder``, read it back, give it its name in one step; the bytes written."""
        part = self._hidden / f"{release.id}.part"
        self._hidden.mkdir(parents=True, exist_ok=True)
        try:
            self._digests.ahead(source)
            copying.copy(source, part, mode=_mode(release.manifest, file.path))
            seen = set_back(part)
            # Four targets read the source once; what each wrote is held against it byte by byte.
            if not copying.same(source, part) or self._digests.of(source) != file.digest:
                raise self._spoilt(file, source)
            if folder != self._staged(release.id):
                copying.sync(part)  # of a release that has its name; of others all is synced when they get it
            path = make_way(folder, file.path)
            part.replace(path)
            if folder != self._staged(release.id):
                copying.sync(path.parent)
            self._digests.know(path, file.digest, seen)
        finally:
            part.unlink(missing_ok=True)
        return file.size

    def _seal(self, release: Release) -> int:
        home, staged = self._home(release.id), self._staged(release.id)
        if home.is_symlink() or (home.exists() and not home.is_dir()):
            home.unlink()
        if home.exists():
            sent = self._complete(home, release)
        else:
            sent = self._complete(staged, release)
            copying.sync_tree(staged)
            self._releases.mkdir(parents=True, exist_ok=True)
            staged.rename(home)
        copying.sync(self._releases)
        self.clear(release.id)
        return sent

    def _complete(self, folder: Path, release: Release) -> int:
        """Make every file of the release right, sending again what is missing or damaged."""
        sent = 0
        folder.mkdir(parents=True, exist_ok=True)
        for file in release.manifest.files:
            if not self._right(folder, file):
                sent += self._send(folder, release, file)
            path, mode = folder / file.path, _mode(release.manifest, file.path)
            if stat.S_IMODE(path.lstat().st_mode) != mode:  # or its times change, and it is read once more
                path.chmod(mode)
        content = release.manifest.to_bytes()
        if read(folder, MANIFEST) != content:
            remove(folder / MANIFEST)
            self._publish(content, folder / MANIFEST, self._hidden / f"{release.id}.part")
        return sent

    def _point(self, pointer: Pointer) -> int:
        if pointer.release not in self.releases():
            raise DeliveryError(
                f"There is no release {pointer.release} at {self.address} to point at.",
                remedy="Promote the version again: that puts it there.",
            )
        if self._seen is None:
            self.pointer()
        content = json.dumps(pointer.to_json(), indent=2).encode() + b"\n"
        part = self._hidden / f"{CURRENT}.{pointer.serial}.part"
        self._hidden.mkdir(parents=True, exist_ok=True)
        copying.write(part, content, mode=0o644)
        if (self._current(),) != self._seen:  # last of all, so that who slept after any check learns it here
            part.unlink(missing_ok=True)
            self._seen = None
            raise changed(f"{self.address}/{CURRENT}")
        part.replace(self.root / CURRENT)
        self._seen = (content,)
        copying.sync(self.root)
        self.clear(pointer.release)
        return len(content)

    def _publish(self, content: bytes, path: Path, part: Path) -> None:
        """Give ``path`` this content in one step, by way of ``part``: nothing unfinished is ever served."""
        self._hidden.mkdir(parents=True, exist_ok=True)
        copying.write(part, content, mode=0o644)
        part.replace(path)
        copying.sync(path.parent)

    def _prune(self, name: str) -> None:
        pointer = self.pointer()
        if pointer is not None and pointer.release == name:
            raise ValueError(f"{name} is live at {self.address}: a plan must not prune it")
        home, doomed = self._home(name), self._hidden / f"{name}.old"
        if home.exists():
            self._hidden.mkdir(parents=True, exist_ok=True)
            remove(doomed)
            home.rename(doomed)  # no half-removed release ever has a release's name
        self.clear(name)

    # what is there

    def pointer(self) -> Pointer | None:
        """What is live; a ``current.json`` that nobody can read makes nothing live."""
        with self._explained():
            self._seen = (content,) = (self._current(),)
            return Pointer.read(content) if content is not None else None

    def audit(self, manifest: Manifest) -> ManifestDiff:
        with self._explained():
            home = self._home(manifest.release_id)
            found = {}
            for file in manifest.files:
                if plain(home, file.path):
                    found[file.path] = self._digests.of(home / file.path)
            difference = compare(manifest, found)
            raw = read(home, MANIFEST)
            if raw is None:
                return ManifestDiff((*difference.missing, MANIFEST), difference.changed)
            if raw != manifest.to_bytes():
                return ManifestDiff(difference.missing, (*difference.changed, MANIFEST))
            return difference

    def has(self, manifest: Manifest) -> bool:
        with self._explained():
            home = self._home(manifest.release_id)
            if read(home, MANIFEST) != manifest.to_bytes():
                return False
            return all(size(home, file.path) == file.size for file in manifest.files)

    def holds(self, digests: Iterable[Digest]) -> frozenset[Digest]:
        with self._explained():
            there = {
                file.digest
                for name in self.releases()
                for file in self._listed(name)
                if size(self._home(name), file.path) == file.size
            }
            return frozenset(there.intersection(digests))

    def releases(self) -> tuple[str, ...]:
        with self._explained():
            if not self._releases.is_dir():
                return ()
            return tuple(
                sorted(
                    entry.name
                    for entry in self._releases.iterdir()
                    if entry.is_dir() and not entry.is_symlink() and (entry / MANIFEST).is_file()
                )
            )

    # undoing

    def withdraw(self) -> None:
        with self._explained():
            (self.root / CURRENT).unlink(missing_ok=True)
            self._seen = (None,)

    def clear(self, release: str) -> None:
        """Remove all of the staging folder: whoever deploys here deploys alone, so it is nobody else's.

        So what a process left that was killed while it pruned another release goes as well, and so do folders
        that this made on the way to the destination and that came to hold nothing.
        """
        _name(release)
        with self._explained():
            remove(self._hidden)
            with contextlib.suppress(OSError):
                self._releases.rmdir()  # only if it is empty
            with contextlib.suppress(OSError):
                for folder in self._made:
                    folder.rmdir()

    # helpers

    def _current(self) -> bytes | None:
        try:
            return (self.root / CURRENT).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def _home(self, release: str) -> Path:
        return self._releases / _name(release)

    def _staged(self, release: str) -> Path:
        return self._hidden / _name(release)

    def _listed(self, release: str) -> tuple[File, ...]:
        """The files that a release at the destination says it holds; none where its manifest is damaged."""
        try:
            return Manifest.from_bytes(read(self._home(release), MANIFEST) or b"").files
        except IntegrityError:
            return ()

    def _right(self, folder: Path, file: File) -> bool:
        return size(folder, file.path) == file.size and self._digests.of(folder / file.path) == file.digest

    def _spoilt(self, file: File, source: Path) -> Exception:
        if files.digest_of(source) == file.digest:
            return DeliveryError(
                f"{file.path} came out wrong at {self.address}.",
                why="What was read back there is not what was written.",
                remedy="Check that disk or share, then promote again.",
            )
        return IntegrityError(
            f"{source} is not {file.path} ({file.digest.short}) any more.",
            why="The file was altered where it is kept.",
            remedy="Delete it, then register the model again: that puts the right one back.",
        )

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise DeliveryError(
                f"The destination {self.address} can't be used.",
                why=f"{error.strerror or error}: {error.filename or self.address}",
                remedy="Free space or mend the permissions there, or set another 'to' in deploy.yaml.",
            ) from error


def _name(release: str) -> str:
    if not release or release.startswith(".") or "/" in release or "\\" in release or "\0" in release:
        raise ValueError(f"{release!r} is no name of a release")
    return release


def _mode(manifest: Manifest, path: str) -> int:
    return 0o755 if path in manifest.executables else 0o644

"""A folder on a host as a destination, reached over SSH. The host needs a POSIX shell and python3, no more.

What lies where on the host is in ``on_host``, which does there what must be done in one step. Rules: a file
is read back and checked by digest as it arrives, and once more before its release gets a name if it changed
after it had arrived; ``current`` and the deployment that it stands for are replaced by one rename; whatever
the connection was in the middle of can be asked for again.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Sequence
from pathlib import Path

from shipway.registry import files, process
from shipway.registry.errors import DeliveryError, IntegrityError
from shipway.registry.nouns import Digest, File, Json
from shipway.targets.deliveries import gates
from shipway.targets.deliveries.base import Fetch, Programs, UnprovenError
from shipway.targets.deliveries.deltas import Deltas
from shipway.targets.deliveries.ssh_address import Address, Patience, SshOptions
from shipway.targets.deliveries.ssh_answers import agreed, nonsense, sound
from shipway.targets.deliveries.ssh_session import Session
from shipway.targets.manifest import MANIFEST, Manifest, ManifestDiff, compare
from shipway.targets.steps import (
    Command,
    Gate,
    Patch,
    Point,
    Pointer,
    Preflight,
    Prune,
    Release,
    Reuse,
    Seal,
    Send,
    Stage,
    Step,
)

_UNPATCHED = ("digest", "room")  # how a host refuses a patch that it had begun
_LOOKS = 3  # at a release on the host's disk; before each but the first what was wrong is sent again


class SshDelivery:
    """A destination on one host. ``fetch`` reads the store. See ``Delivery`` for each method.

    ``deltas``: those of a fleet, so that what differs is found once for all hosts.
    """

    patches = True
    programs: Programs = "there"
    verdict: Json | None = None

    def __init__(
        self,
        address: Address,
        fetch: Fetch,
        options: SshOptions | None = None,
        patience: Patience | None = None,
        deltas: Deltas | None = None,
    ) -> None:
        self.address = str(address)
        self.host = address.host if address.port is None else f"{address.host}:{address.port}"
        self.session = Session(address, options or SshOptions(), patience or Patience())
        self._address = address
        self._fetch = fetch
        self._deltas = deltas or Deltas(fetch)
        self._seen: tuple[Json] | None = None  # what the host said last that is live there

    # steps

    def perform(self, step: Step) -> int:
        match step:
            case Preflight(release, file):
                self._preflight(release, file)
            case Stage(release):
                self._stage(release)
            case Send(release, file):
                return self._send(release, file)
            case Reuse(release, file):
                return self._reuse(release, file)
            case Patch(release, file, base):
                return self._patch(release, file, base)
            case Seal(release):
                return self._seal(release)
            case Command(release, argv, why):
                run = gates.bundled_there(release, self._run(release))
                gates.run_command_there(argv, self._home(release), why, run)
            case Point(pointer):
                return self._point(pointer)
            case Gate(release):
                run, name = self._run(release, look=True), self._address.host
                home = self._home(release)
                self.verdict = gates.judge_there(self, step, home, run, self._fetch, name)
            case Prune(name):
                self._ask({"do": "prune", "release": name})
        return 0

    def _preflight(self, release: Release, file: File) -> None:
        argv = gates.command_there(release.manifest, ("python3", "-"))
        program = self._fetch(file).read_text("utf-8")
        request: Json = {"do": "preflight", "argv": list(argv), "program": program}
        finished = self._finished(f"The preflight {file.path}", argv, request)
        gates.judge_preflight(self.host, release.manifest, finished)

    def _stage(self, release: Release) -> None:
        contents = {file.digest.hex: file.size for file in release.manifest.files}
        self._ask({"do": "stage", "release": release.id, "files": sorted(contents.items())})

    def _send(self, release: Release, file: File) -> int:
        source = self._fetch(file)
        before = self.session.traffic.sent
        for _ in range(2):
            request = {"do": "receive", "size": file.size, **_placing(release, file)}
            try:
                answer = self._sound(request, self.session.send(request, source, file.size))
            except EOFError:
                raise _altered(file, source) from None
            except OSError as error:
                raise DeliveryError(
                    f"{source} can't be read.", why=str(error), remedy="Mend the permissions there."
                ) from error
            if answer.get("error") != "digest":
                agreed(answer, self.address)
                return min(file.size, self.session.traffic.sent - before)
            if files.digest_of(source) != file.digest:
                raise _altered(file, source)
        raise DeliveryError(
            f"{file.path} came out wrong at {self.address}, twice.",
            why="What arrived there is not what was sent.",
            remedy="Check that host's memory and disk, then promote again.",
        )

    def _reuse(self, release: Release, file: File) -> int:
        answer = self._ask({"do": "reuse", "size": file.size, **_placing(release, file)})
        return 0 if answer["copied"] else self._send(release, file)

    def _patch(self, release: Release, file: File, base: File) -> int:
        recipe = self._deltas.recipe(base, file)
        if recipe is None:
            return self._send(release, file)
        before = self.session.traffic.sent
        request = {
            "do": "patch",
            "size": file.size,
            "base": base.digest.hex,
            "recipe": recipe.digest.hex,
            "length": recipe.size,
            **_placing(release, file),
        }
        answer = self._sound(request, self.session.send(request, recipe, recipe.size, ask_first=True))
        sent = min(recipe.size, self.session.traffic.sent - before)
        if answer.get("error") in _UNPATCHED:
            return sent + self._send(release, file)
        agreed(answer, self.address)
        if answer["patched"]:
            return sent
        return (sent if answer.get("asked") else 0) + self._send(release, file)

    def _seal(self, release: Release) -> int:
        request: Json = {"do": "seal", "release": release.id, "sha": release.bundle.hex}
        sent = 0
        wrong: list[str] = []
        for _ in range(_LOOKS):
            for path in wrong:
                file = release.manifest.file(path)
                if file is None:
                    raise nonsense(self.address, wrong)
                sent += self._send(release, file)
            answer = self._ask(request)
            if answer.get("manifest"):
                request["manifest"] = release.manifest.to_bytes().decode()
                answer = self._ask(request)
            wrong = answer.get("wrong", [])
            if not wrong:
                return sent
        raise DeliveryError(
            f"{', '.join(wrong)} came out wrong at {self.address}.",
            why="What was read back there is not what was sent.",
            remedy="Check that disk, and whether something else writes there; then promote again.",
        )

    def _point(self, pointer: Pointer) -> int:
        if self._seen is None:
            self.pointer()
        (seen,) = self._seen or (None,)
        mine = pointer.to_json()
        size: int = self._ask({"do": "point", "pointer": mine, "seen": seen})["size"]
        self._seen = (mine,)
        return size

    def _run(self, release: Release, *, look: bool = False) -> gates.Run:
        def run(name: str, argv: Sequence[str], stdin: bytes) -> process.Finished:
            request: Json = {
                "do": "run",
                "release": release.id,
                "argv": list(argv),
                "stdin": stdin.decode(),
                "look": look,
            }
            return self._finished(name, argv, request)

        return run

    def _finished(self, name: str, argv: Sequence[str], request: Json) -> process.Finished:
        """How a program ended that ``request`` has run there, under the name that messages call it."""
        answer = self._sound(request, self.session.ask({**request, "timeout": gates.TIMEOUT_S}))
        if answer.get("error") == "os" and answer["errno"] in (errno.ENOENT, errno.EACCES):
            raise UnprovenError(
                f"{name} can't be started on {self.host}.",
                why=f"{answer['text']}: {answer['path']}",
                remedy=f"Install {argv[0]!r} there, or put it where a login over SSH finds it.",
            )
        agreed(answer, self.address)
        if answer["late"]:
            raise UnprovenError(
                f"{name} gave no answer within {gates.TIMEOUT_S} s on {self.host}.",
                why=(answer["stdout"] + answer["stderr"])[-2000:].strip(),
            )
        return process.Finished(answer["code"], answer["stdout"], answer["stderr"], seconds=0.0)

    # what is there

    def pointer(self) -> Pointer | None:
        found = self._ask({"do": "pointer"})["pointer"]
        self._seen = (found,)
        try:
            return Pointer.from_json(found) if found else None
        except ValueError:
            return None

    def audit(self, manifest: Manifest) -> ManifestDiff:
        text = manifest.to_bytes().decode()
        answer = self._ask({"do": "audit", "release": manifest.release_id, "manifest": text})
        difference = compare(manifest, {path: Digest(sha) for path, sha in answer["found"].items()})
        if answer["manifest"] is None:
            return ManifestDiff((*difference.missing, MANIFEST), difference.changed)
        if not answer["manifest"]:
            return ManifestDiff(difference.missing, (*difference.changed, MANIFEST))
        return difference

    def has(self, manifest: Manifest) -> bool:
        request = {"do": "has", "release": manifest.release_id, "manifest": manifest.digest.hex}
        return bool(self._ask(request)["has"])

    def holds(self, digests: Iterable[Digest]) -> frozenset[Digest]:
        there = set(self._ask({"do": "holds"})["sha256"])
        return frozenset(digest for digest in digests if digest.hex in there)

    def releases(self) -> tuple[str, ...]:
        return tuple(self._ask({"do": "releases"})["releases"])

    # undoing

    def withdraw(self) -> None:
        self._ask({"do": "withdraw"})
        self._seen = (None,)

    def undo(self, mine: Pointer) -> None:
        """Make live again what was live here before ``mine``: the host itself has kept that."""
        self._ask({"do": "undo", "pointer": mine.to_json()})
        self._seen = None

    def clear(self, release: str) -> None:
        """Remove what was being put together, of whatever release: whoever deploys here deploys alone.

        Files that had arrived, whole or in part, stay for a next try: the next release that is sealed, or
        that is staged and has no use for them, removes them.
        """
        self._ask({"do": "clear"})

    def close(self) -> None:
        """Hang up; the next use connects again."""
        self.session.close()

    # helpers

    def _home(self, release: Release) -> str:
        return f"{self.address}/releases/{release.id}"

    def _ask(self, request: Json) -> Json:
        return agreed(self._sound(request, self.session.ask(request)), self.address)

    def _sound(self, request: Json, answer: Json) -> Json:
        return sound(request["do"], answer, self.address)


def _placing(release: Release, file: File) -> dict[str, Json]:
    mode = 0o755 if file.path in release.manifest.executables else 0o644
    return {"release": release.id, "path": file.path, "sha": file.digest.hex, "mode": mode}


def _altered(file: File, source: Path) -> IntegrityError:
    return IntegrityError(
        f"{source} is not {file.path} ({file.digest.short}) any more.",
        why="The file was altered where it is kept.",
        remedy="Delete it, then register the model again: that puts the right one back.",
    )

"""A deployment as data: what to do at a destination, in order. Nothing here does anything.

A delivery (``shipway.targets.deliveries``) knows how to perform each step; the executor
(``shipway.registry.deploy.execute``) walks them. ``--dry-run`` prints them, tests compare them and the crash
test cuts between any two.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from shipway.registry.nouns import Digest, File, Json
from shipway.targets.manifest import Manifest


@dataclass(frozen=True, slots=True)
class Release:
    """A bundle at a destination."""

    manifest: Manifest

    @property
    def id(self) -> str:
        return self.manifest.release_id

    @property
    def bundle(self) -> Digest:
        return self.manifest.digest


@dataclass(frozen=True, slots=True)
class Pointer:
    """What is live at a destination: the content of ``current.json``.

    The serial rises with every deployment, rollbacks included, so that a client can tell a stale answer
    from a newer one. Two deployments of one bundle differ in nothing else.
    """

    environment: str
    target: str
    serial: int
    model: str
    version: int
    bundle: Digest
    release: str

    def to_json(self) -> Json:
        return {
            "schema": 1,
            "environment": self.environment,
            "target": self.target,
            "serial": self.serial,
            "model": self.model,
            "version": self.version,
            "bundle": str(self.bundle),
            "release": self.release,
            "path": f"releases/{self.release}/",
        }

    @classmethod
    def from_json(cls, data: Json) -> Pointer:
        """Raises ValueError where it is no pointer: anybody may have written what lies at a destination."""
        kinds = {"serial": int, "version": int}
        names = ("environment", "target", "serial", "model", "version", "bundle", "release")
        if not isinstance(data, Mapping) or any(
            type(data.get(name)) is not kinds.get(name, str) for name in names
        ):
            raise ValueError(f"no pointer: {str(data)[:200]}")
        found = {name: data[name] for name in names}
        return cls(**{**found, "bundle": Digest.parse(found["bundle"])})

    @classmethod
    def read(cls, content: bytes) -> Pointer | None:
        """What ``current.json`` says; None where nobody can read it."""
        try:
            return cls.from_json(json.loads(content))
        except (ValueError, RecursionError):
            return None


def newest(pointers: Iterable[Pointer | None]) -> Pointer | None:
    """The pointer of the latest deployment; None where nothing is live anywhere."""
    return max(filter(None, pointers), key=lambda pointer: pointer.serial, default=None)


@dataclass(frozen=True, slots=True)
class Preflight:
    """Run the release's own program ``file`` on a host that has nothing of the release yet: does it fit?"""

    release: Release
    file: File

    def __str__(self) -> str:
        return f"preflight of {self.release.id}"


@dataclass(frozen=True, slots=True)
class Stage:
    """Make ready a place where the release can be put together unseen."""

    release: Release

    def __str__(self) -> str:
        return f"stage {self.release.id}"


@dataclass(frozen=True, slots=True)
class Send:
    """Put one file of the release there, checked by digest as it lands."""

    release: Release
    file: File

    def __str__(self) -> str:
        return f"send {self.file.path} ({self.file.size} B)"


@dataclass(frozen=True, slots=True)
class Reuse:
    """Put one file there that another release there already holds; send it where that is damaged."""

    release: Release
    file: File

    def __str__(self) -> str:
        return f"reuse {self.file.path} (already there)"


@dataclass(frozen=True, slots=True)
class Patch:
    """Put one file there that is made of ``base``, which another release there holds, and what differs.

    Sent is what differs, or the whole file where that would hardly be less or where ``base`` is damaged.
    """

    release: Release
    file: File
    base: File

    def __str__(self) -> str:
        return f"patch {self.file.path} (of {self.base.digest.short} there; at most {self.file.size} B)"


@dataclass(frozen=True, slots=True)
class Seal:
    """Check every file at the destination against the manifest and give the release its name, in one step.

    A release that has its name already is checked all the same, and a damaged file in it is replaced.
    """

    release: Release

    def __str__(self) -> str:
        return f"seal {self.release.id}"


@dataclass(frozen=True, slots=True)
class Command:
    """Run a command in the release's folder on the destination (a target kind's activation)."""

    release: Release
    argv: tuple[str, ...]
    why: str

    def __str__(self) -> str:
        return f"run {' '.join(self.argv)} ({self.why})"


@dataclass(frozen=True, slots=True)
class Point:
    """Make the release the live one, in one step. Undone by pointing back at what was live before."""

    pointer: Pointer

    def __str__(self) -> str:
        return f"point at {self.pointer.release} (serial {self.pointer.serial})"


@dataclass(frozen=True, slots=True)
class Gate:
    """Prove at the destination that the live release works: ``name`` says how, ``options`` with what."""

    release: Release
    name: str  # 'digests' (read it back), 'check' (the bundle's golden check), 'command', 'url'
    options: Mapping[str, Json]

    def __str__(self) -> str:
        return f"gate {self.name}"


@dataclass(frozen=True, slots=True)
class Prune:
    """Remove a release that is neither live nor a rollback candidate."""

    release: str

    def __str__(self) -> str:
        return f"prune {self.release}"


@dataclass(frozen=True, slots=True)
class Hold:
    """Before a wave: wait, then ask whoever runs the command. The executor's own step, no delivery's."""

    seconds: float
    ask: bool
    wave: int  # the one that comes next, from 2
    waves: int

    def __str__(self) -> str:
        what = [f"wait {self.seconds:g} s"] * (self.seconds > 0) + ["ask"] * self.ask
        return f"{' and '.join(what)} before wave {self.wave} of {self.waves}"


Step = Preflight | Stage | Send | Reuse | Patch | Seal | Command | Point | Gate | Prune

"""A promotion or a rollback as data: what is wanted, what is there, and every step. No I/O here.

What follows from the first two is decided in ``planning``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from shipway.registry.ledger.events import Kind
from shipway.registry.nouns import Digest, File, Json
from shipway.targets.steps import Hold, Pointer, Release, Step, newest

ALONE = ("",)
"""The hosts of a destination that is no fleet: one, without a name."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What shall be live on one target, and what its configuration says about getting there.

    ``preflight`` is asked of hosts that lack the release, before anything is sent to them.
    ``gates`` name the gates past the digests and their options. ``restores`` is the serial that a rollback
    goes back to. ``keep`` is how many old releases stay besides the live one and the candidate. ``to`` is the
    destination's address, for the ledger. ``waves`` are the hosts to deploy to, ``allowed`` how many may
    fail; before each wave but the first ``pause`` seconds pass, and ``confirm`` asks.
    """

    target: str
    release: Release
    preflight: tuple[Step, ...] = ()
    activation: tuple[Step, ...] = ()
    gates: tuple[tuple[str, Mapping[str, Json]], ...] = ()
    restores: int | None = None
    keep: int = 5
    to: str = ""
    waves: tuple[tuple[str, ...], ...] = (ALONE,)
    allowed: int = 0
    pause: float = 0.0
    confirm: bool = False


@dataclass(frozen=True, slots=True)
class Found:
    """What a host, or a destination that is no fleet, said when the plan was made.

    ``pointer`` is what it has live. ``placed``: the release is there by names and sizes. ``damaged``: it was
    read and is not what it should be. ``held``: contents that it holds. ``releases``: sealed releases there.
    ``bases``: files that it holds and that others can be made of there, the likeliest first.
    """

    pointer: Pointer | None
    placed: bool
    damaged: bool = False
    held: frozenset[Digest] = frozenset()
    releases: tuple[str, ...] = ()
    bases: tuple[File, ...] = ()


@dataclass(frozen=True, slots=True)
class Seen:
    """What the ledger and the hosts of one target said when the plan was made.

    ``serial`` is the newest in the ledger, ``live`` the pointer that the ledger says is live. ``hosts``
    answered, ``lost`` did not, and why. ``chain``: releases that repeated rollbacks would restore after this
    deployment, nearest first; it may be cut off after as many as are to be kept, and is None where so few are
    anywhere that none must go.
    """

    serial: int
    live: Pointer | None
    hosts: Mapping[str, Found]
    lost: Mapping[str, str] = field(default_factory=dict)
    chain: tuple[str, ...] | None = None

    @property
    def pointer(self) -> Pointer | None:
        """The ledger's, where any host has that; else the newest of any."""
        pointers = [found.pointer for found in self.hosts.values()]
        return self.live if self.live in pointers else newest(pointers)


@dataclass(frozen=True, slots=True)
class Move:
    """One target's part: ``serial`` is the one to claim, or the live one where nothing needs doing.

    ``before`` is what the pointer goes back to if anything fails, ``send`` the bytes that have to travel to
    all hosts together, at most where ``patches`` of the files are patched, ``fresh`` the hosts that have no
    release of that name yet. ``waves``, ``allowed`` and ``lost`` are as in ``Wanted`` and ``Seen``.
    """

    target: str
    serial: int
    release: Release
    before: Pointer | None
    restores: int | None
    fresh: frozenset[str]
    unchanged: bool
    send: int
    to: str = ""
    waves: tuple[tuple[str, ...], ...] = (ALONE,)
    allowed: int = 0
    lost: Mapping[str, str] = field(default_factory=dict)
    patches: int = 0

    @property
    def fleet(self) -> bool:
        return self.waves != (ALONE,)

    def pointer(self, environment: str) -> Pointer:
        manifest = self.release.manifest
        return Pointer(
            environment=environment,
            target=self.target,
            serial=self.serial,
            model=manifest.model,
            version=manifest.version,
            bundle=self.release.bundle,
            release=self.release.id,
        )


@dataclass(frozen=True, slots=True)
class Task:
    """A step, the target at whose destination it is performed, and the hosts where that is a fleet."""

    target: str
    step: Step | Hold
    hosts: tuple[str, ...] = ()

    def to_json(self) -> Json:
        word = type(self.step).__name__.lower()
        return {"target": self.target, "step": word, "text": str(self.step), "hosts": list(self.hosts)}

    @property
    def where(self) -> str:
        """``jetson``, ``jetson (line-1)``, ``jetson (32 hosts)``."""
        if not self.hosts:
            return self.target
        return f"{self.target} ({self.hosts[0] if len(self.hosts) == 1 else f'{len(self.hosts)} hosts'})"

    def __str__(self) -> str:
        return f"{self.where}: {self.step}"


@dataclass(frozen=True, slots=True)
class Plan:
    """All that a command will do, in order."""

    kind: Kind
    environment: str
    moves: tuple[Move, ...]
    tasks: tuple[Task, ...]
    reason: str = ""
    accept: str | None = None

    @property
    def changes(self) -> tuple[Move, ...]:
        """The moves that do something: those to claim and to record."""
        return tuple(move for move in self.moves if not move.unchanged)

    @property
    def send(self) -> int:
        """Bytes; the most that it may be where ``patches``."""
        return sum(move.send for move in self.moves)

    @property
    def patches(self) -> int:
        return sum(move.patches for move in self.moves)

    def to_json(self) -> Json:
        return {
            "kind": self.kind,
            "environment": self.environment,
            "reason": self.reason,
            "accept": self.accept,
            "bytes_to_send": self.send,
            "patches": self.patches,
            "targets": [_move_json(move) for move in self.moves],
            "steps": [task.to_json() for task in self.tasks],
        }

    def __str__(self) -> str:
        """The steps, one a line."""
        return "\n".join(str(task) for task in self.tasks)


def _move_json(move: Move) -> Json:
    manifest = move.release.manifest
    return {
        "target": move.target,
        "kind": manifest.kind,
        "model": manifest.model,
        "version": manifest.version,
        "bundle": str(move.release.bundle),
        "release": move.release.id,
        "precision": manifest.precision,
        "serial": move.serial,
        "before": move.before.to_json() if move.before else None,
        "restores": move.restores,
        "unchanged": move.unchanged,
        "size": manifest.size,
        "bytes_to_send": move.send,
        "patches": move.patches,
        "waves": [list(wave) for wave in move.waves] if move.fleet else [],
        "allowed_failures": move.allowed,
        "unreachable": dict(move.lost),
    }

"""The ledger's events as values and documents. No I/O here.

``started`` claims a serial; one outcome ends it: ``live``, ``failed`` or ``interrupted``. What follows from
them, and what a rollback would restore, is in ``stack``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from shipway.registry.nouns import Digest, Json
from shipway.targets.steps import Pointer

Kind = Literal["promote", "rollback"]
OutcomeName = Literal["live", "failed", "interrupted"]
LIVE: OutcomeName = "live"
FAILED: OutcomeName = "failed"
INTERRUPTED: OutcomeName = "interrupted"


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """One target of one environment: what has a ledger of its own."""

    environment: str
    target: str

    @property
    def alias(self) -> str:
        """MLflow's alias of what is live here."""
        return f"{self.environment}-{self.target}"

    def __str__(self) -> str:
        return f"{self.environment}/{self.target}"


@dataclass(frozen=True, slots=True)
class Owner:
    """The process that deploys, told apart from any other on any machine.

    ``machine`` and ``boot`` are Linux's machine id and boot id, ``namespace`` the process's pid namespace,
    ``born`` the process's start in clock ticks since boot. All are empty where the system has no such thing.
    """

    host: str
    machine: str
    boot: str
    namespace: str
    pid: int
    born: str

    def to_json(self) -> Json:
        return {
            "host": self.host,
            "machine": self.machine,
            "boot": self.boot,
            "namespace": self.namespace,
            "pid": self.pid,
            "born": self.born,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Json]) -> Owner:
        return cls(**data)

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


@dataclass(frozen=True, slots=True)
class Started:
    """The claim of a serial: what is about to be made live, and all that is needed to undo it.

    ``before`` is the destination's pointer at that moment. ``restores`` is the serial that a rollback goes
    back to. ``command`` is shared by the deployments of one command, ``peers`` are its (target, serial)
    pairs. ``accept`` is the reason given for going past a gate. ``at`` is UTC, ISO 8601. ``to`` is the
    address as in ``deploy.yaml`` then, by which it can be undone later; older documents have none (empty).
    """

    place: Place
    serial: int
    kind: Kind
    model: str
    version: int
    bundle: Digest
    release: str
    actor: str
    at: str
    reason: str
    accept: str | None
    restores: int | None
    before: Pointer | None
    command: str
    peers: tuple[tuple[str, int], ...]
    owner: Owner
    to: str = ""

    @property
    def pointer(self) -> Pointer:
        """The pointer that this deployment writes."""
        return Pointer(
            environment=self.place.environment,
            target=self.place.target,
            serial=self.serial,
            model=self.model,
            version=self.version,
            bundle=self.bundle,
            release=self.release,
        )

    def to_json(self) -> Json:
        return {
            "schema": 1,
            "environment": self.place.environment,
            "target": self.place.target,
            "serial": self.serial,
            "kind": self.kind,
            "model": self.model,
            "version": self.version,
            "bundle": str(self.bundle),
            "release": self.release,
            "actor": self.actor,
            "at": self.at,
            "reason": self.reason,
            "accept": self.accept,
            "restores": self.restores,
            "before": self.before.to_json() if self.before else None,
            "command": self.command,
            "peers": [list(peer) for peer in self.peers],
            "owner": self.owner.to_json(),
            "to": self.to,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Json]) -> Started:
        return cls(
            place=Place(data["environment"], data["target"]),
            serial=data["serial"],
            kind=data["kind"],
            model=data["model"],
            version=data["version"],
            bundle=Digest.parse(data["bundle"]),
            release=data["release"],
            actor=data["actor"],
            at=data["at"],
            reason=data["reason"],
            accept=data["accept"],
            restores=data["restores"],
            before=Pointer.from_json(data["before"]) if data["before"] else None,
            command=data["command"],
            peers=tuple((target, serial) for target, serial in data["peers"]),
            owner=Owner.from_json(data["owner"]),
            to=data.get("to", ""),
        )


@dataclass(frozen=True, slots=True)
class Standing:
    """After some event: the serial that is live and the serial that a rollback would restore, if any.

    Each outcome notes it. The note only saves reading: ``stack.fold`` gives the same from the events alone.
    """

    live: int | None = None
    candidate: int | None = None


HostOutcome = Literal["live", "failed", "unreachable"]


@dataclass(frozen=True, slots=True)
class HostEnd:
    """How a deployment ended on one host of a fleet; ``detail`` says why it is not ``live`` there.

    ``failed``: the host has what it had before. ``unreachable``: nobody could ask, or take it back.
    """

    host: str
    outcome: HostOutcome
    detail: str = ""
    bytes_sent: int = 0
    seconds: float = 0.0

    def to_json(self) -> Json:
        return {
            "host": self.host,
            "outcome": self.outcome,
            "detail": self.detail,
            "bytes_sent": self.bytes_sent,
            "seconds": round(self.seconds, 3),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Json]) -> HostEnd:
        return cls(
            host=data["host"],
            outcome=data["outcome"],
            detail=data["detail"],
            bytes_sent=data["bytes_sent"],
            seconds=data["seconds"],
        )


@dataclass(frozen=True, slots=True)
class Ended:
    """The outcome of a serial. ``detail`` says why it failed, or what recovery did.

    ``hosts`` are those of a fleet that it did not succeed on; older documents have none.
    """

    serial: int
    outcome: OutcomeName
    at: str
    standing: Standing
    bytes_sent: int = 0
    seconds: float = 0.0
    detail: str = ""
    hosts: tuple[HostEnd, ...] = ()

    def to_json(self) -> Json:
        return {
            "schema": 1,
            "serial": self.serial,
            "outcome": self.outcome,
            "at": self.at,
            "live": self.standing.live,
            "candidate": self.standing.candidate,
            "bytes_sent": self.bytes_sent,
            "seconds": self.seconds,
            "detail": self.detail,
            "hosts": [host.to_json() for host in self.hosts],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Json]) -> Ended:
        return cls(
            serial=data["serial"],
            outcome=data["outcome"],
            at=data["at"],
            standing=Standing(data["live"], data["candidate"]),
            bytes_sent=data["bytes_sent"],
            seconds=data["seconds"],
            detail=data["detail"],
            hosts=tuple(map(HostEnd.from_json, data.get("hosts", ()))),
        )


@dataclass(frozen=True, slots=True)
class Event:
    """A deployment as far as the ledger knows: ``ended`` is None while it runs, or where it was killed."""

    started: Started
    ended: Ended | None

    @property
    def outcome(self) -> str:
        return self.ended.outcome if self.ended else "started"

    def to_json(self) -> Json:
        """The form of ``history --json``."""
        started = self.started
        return {
            "environment": started.place.environment,
            "target": started.place.target,
            "serial": started.serial,
            "kind": started.kind,
            "model": started.model,
            "version": started.version,
            "bundle": str(started.bundle),
            "actor": started.actor,
            "at": started.at,
            "reason": started.reason,
            "outcome": self.outcome,
            "accept": started.accept,
            "restores": started.restores,
            "detail": self.ended.detail if self.ended else "",
            "hosts": [host.to_json() for host in self.ended.hosts] if self.ended else [],
        }

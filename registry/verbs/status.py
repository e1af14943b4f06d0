"""What is live where, how it is, and what a rollback would do. Never asks MLflow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from shipway.registry.config.project import Project
from shipway.registry.deploy import mirror
from shipway.registry.deploy.waves import allowed_failures
from shipway.registry.errors import ShipwayError
from shipway.registry.ledger.events import Event, Place, Started
from shipway.registry.ledger.ledger import Head, Ledger
from shipway.registry.nouns import Digest, Json
from shipway.registry.verbs.readiness import damaged, known, listed, told, unready
from shipway.targets.deliveries.base import Delivery
from shipway.targets.deliveries.fleet import each
from shipway.targets.steps import Pointer


@dataclass(frozen=True, slots=True)
class HostStatus:
    """One host of a fleet: the serial that it has live, if any, and why it does not serve what it should."""

    serial: int | None
    problem: str = ""

    def to_json(self) -> Json:
        return {"serial": self.serial, "problem": self.problem}


@dataclass(frozen=True, slots=True)
class TargetStatus:
    """One target of one environment. All of what is live is None where nothing is.

    ``healthy``: what the ledger says is live passed its gates, the destination points at it, and it is there
    whole by names and sizes; ``problem`` says what is wrong otherwise. A fleet is healthy while no more of
    its ``hosts`` lag or are out of reach than may fail in a promotion (``failures`` in ``deploy.yaml``), and
    at least one serves; ``problem`` names them in any case. ``rollback_to`` is the version that a rollback
    would restore (``rollback`` names it in full), ``rollback_ready`` whether it is still at the destination,
    on every host that answers, and ``rollback_problem`` what is in the way. ``attempt`` is the newest
    deployment where that is not what is live: it failed, or it runs, or it was killed. ``skew``: another
    target of the environment serves another version of the model. ``mirrored``: MLflow's alias shows it too.
    """

    model: str | None = None
    version: int | None = None
    bundle: Digest | None = None
    serial: int | None = None
    since: str | None = None
    outcome: str | None = None
    healthy: bool = False
    problem: str = ""
    rollback: Started | None = None
    rollback_ready: bool = False
    rollback_problem: str = ""
    attempt: Event | None = None
    skew: bool = False
    mirrored: bool = True
    hosts: Mapping[str, HostStatus] = field(default_factory=dict)

    @property
    def rollback_to(self) -> int | None:
        return self.rollback.version if self.rollback else None

    def to_json(self) -> Json:
        return {
            "model": self.model,
            "version": self.version,
            "bundle": str(self.bundle) if self.bundle else None,
            "serial": self.serial,
            "since": self.since,
            "outcome": self.outcome,
            "healthy": self.healthy,
            "problem": self.problem,
            "rollback_to": self.rollback_to,
            "rollback_serial": self.rollback.serial if self.rollback else None,
            "rollback_ready": self.rollback_ready,
            "rollback_problem": self.rollback_problem,
            "attempt": self.attempt.to_json() if self.attempt else None,
            "skew": self.skew,
            "mirrored": self.mirrored,
            "hosts": {name: host.to_json() for name, host in self.hosts.items()},
        }


def status(
    project: Project, environment: str | None = None, *, deep: bool = False
) -> dict[str, dict[str, TargetStatus]]:
    """Every target's status by environment. Has a lagging mirror try again. Raises UsageError.

    ``deep`` reads back what is live and what a rollback would restore, every byte, and runs the golden check
    of both where ``gate: {check: true}``.
    """
    names = [environment] if environment is not None else list(project.config.environments)
    found = {
        Place(name, target): look(project, name, target, deep=deep)
        for name in names
        for target in project.environment(name).targets
    }
    deployed = {place: one.serial for place, one in found.items() if one.serial or one.attempt}
    behind = mirror.behind(project, deployed)
    if behind:
        mirror.start(project, patient=True)
    return {
        name: {
            place.target: replace(one, skew=_skewed(place, one, found), mirrored=place not in behind)
            for place, one in found.items()
            if place.environment == name
        }
        for name in names
    }


def look(project: Project, environment: str, target: str, *, deep: bool = False) -> TargetStatus:
    """One target's status, from a fixed number of documents however long the ledger is.

    ``deep`` reads what is live, and what a rollback would restore, back at the destination.
    """
    place, ledger = Place(environment, target), Ledger(project.store.objects)
    head = ledger.head(place)
    serial, candidate = head.standing.live, head.standing.candidate
    attempt = _attempt(head)
    if serial is None:
        return TargetStatus(attempt=attempt, outcome=attempt.outcome if attempt else None)
    live = ledger.started(place, serial)
    rollback = ledger.started(place, candidate) if candidate is not None else None
    try:
        found = _ask(project, place, live, rollback, deep)
    except ShipwayError as error:  # one destination that can't be asked must not hide the others
        found = _Found(problem=error.what)
    return TargetStatus(
        model=live.model,
        version=live.version,
        bundle=live.bundle,
        serial=serial,
        since=live.at,
        outcome="live",
        healthy=found.healthy,
        problem=found.problem,
        rollback=rollback,
        rollback_ready=rollback is not None and found.answered and not found.unready,
        rollback_problem=found.unready,
        attempt=attempt,
        hosts=found.hosts,
    )


@dataclass(frozen=True, slots=True)
class _Found:
    """What the destination of one target says."""

    healthy: bool = False
    problem: str = ""
    answered: bool = False
    unready: str = ""
    hosts: Mapping[str, HostStatus] = field(default_factory=dict)


def _ask(project: Project, place: Place, live: Started, rollback: Started | None, deep: bool) -> _Found:
    """Ask a destination, or every host of a fleet at the same time."""
    placement = project.placements(place.environment, [place.target])[place.target]
    delivery = project.delivery(place.environment, place.target)
    now = project.store.bundle(live.bundle)
    then = known(project.store, rollback.bundle) if rollback is not None else None
    check = placement.gate.check

    def ask(name: str, host: Delivery) -> tuple[Pointer | None, str, str]:
        pointer = host.pointer()
        problem = _lag(pointer, live, name or host.address)
        if not problem and not host.has(now):
            problem = f"files of {live.release} are missing at {name or host.address}"
        if not problem and deep:
            problem = damaged(host, now, check=check)
        if rollback is None:
            return pointer, problem, ""
        return pointer, problem, unready(host, then, project.store, deep=deep, check=check)

    good, bad = each(delivery, ask)
    hosts = {name: HostStatus(at.serial if at else None, why) for name, (at, why, _) in good.items()}
    hosts |= {name: HostStatus(None, error.what) for name, error in bad.items()}
    back = told({name: why for name, (_, _, why) in good.items()})
    names = placement.hosts
    if not names:
        problem = hosts[""].problem
        return _Found(not problem, problem, bool(good), back)
    hosts = {name: hosts[name] for name in names}
    wrong = [name for name in names if hosts[name].problem]
    allowed = allowed_failures(placement.failures, len(names))
    return _Found(
        len(wrong) <= min(allowed, len(names) - 1), _lagging(wrong, len(names)), bool(good), back, hosts
    )


def _lagging(wrong: list[str], hosts: int) -> str:
    if not wrong:
        return ""
    return f"{len(wrong)} of {hosts} hosts do not serve it: {listed(wrong)}"


def _attempt(head: Head) -> Event | None:
    """The newest deployment, unless it is what is live."""
    if head.started is None or head.serial == head.standing.live:
        return None
    return Event(head.started, head.ended)


def _lag(pointer: Pointer | None, live: Started, where: str) -> str:
    if pointer is None:
        return f"nothing is live at {where}, or its pointer is damaged"
    if pointer != live.pointer:
        return f"{where} points at {pointer.release} (serial {pointer.serial})"
    return ""


def _skewed(place: Place, one: TargetStatus, found: dict[Place, TargetStatus]) -> bool:
    return one.model is not None and any(
        other.model == one.model and other.version != one.version
        for there, other in found.items()
        if there.environment == place.environment
    )

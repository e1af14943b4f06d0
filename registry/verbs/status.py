"""What is live where, how it is, and what a rollback would do. Never asks MLflow."""

from __future__ import annotations

from dataclasses import dataclass, replace

from shipway.registry.config.project import Project
from shipway.registry.deploy import mirror
from shipway.registry.errors import ShipwayError
from shipway.registry.ledger import owner
from shipway.registry.ledger.events import Event, Place, Started
from shipway.registry.ledger.ledger import Head, Ledger
from shipway.registry.nouns import Digest, Json
from shipway.targets.deliveries.base import Delivery


@dataclass(frozen=True, slots=True)
class TargetStatus:
    """One target of one environment. All of what is live is None where nothing is.

    ``healthy``: what the ledger says is live passed its gates, the destination points at it, and it is there
    whole by names and sizes; ``problem`` says what is wrong otherwise. ``rollback_to`` is the version that a
    rollback would restore (``rollback`` names it in full), ``rollback_ready`` whether it is still at the
    destination. ``attempt`` is the newest deployment where that is not what is live: it failed, or it runs,
    or it was killed. ``skew``: another target of the environment serves another version of the model.
    ``mirrored``: MLflow's alias shows the same.
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
    attempt: Event | None = None
    skew: bool = False
    mirrored: bool = True

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
            "attempt": self.attempt.to_json() if self.attempt else None,
            "skew": self.skew,
            "mirrored": self.mirrored,
        }


def status(project: Project, environment: str | None = None) -> dict[str, dict[str, TargetStatus]]:
    """Every target's status by environment. Has a lagging mirror try again. Raises UsageError."""
    names = [environment] if environment is not None else list(project.config.environments)
    found = {
        Place(name, target): look(project, name, target)
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


def look(project: Project, environment: str, target: str) -> TargetStatus:
    """One target's status, from a fixed number of documents however long the ledger is."""
    place, ledger = Place(environment, target), Ledger(project.store.objects)
    head = ledger.head(place)
    serial, candidate = head.standing.live, head.standing.candidate
    attempt = _attempt(ledger, head)
    if serial is None:
        return TargetStatus(attempt=attempt, outcome=attempt.outcome if attempt else None)
    live = ledger.started(place, serial)
    problem, ready = "", False
    rollback = ledger.started(place, candidate) if candidate is not None else None
    try:
        delivery = project.delivery(environment, target)
        problem = _problem(project, delivery, live)
        ready = rollback is not None and delivery.has(project.store.bundle(rollback.bundle))
    except ShipwayError as error:  # one destination that can't be reached must not hide the others
        problem = problem or error.what
    return TargetStatus(
        model=live.model,
        version=live.version,
        bundle=live.bundle,
        serial=serial,
        since=live.at,
        outcome="live",
        healthy=not problem,
        problem=problem,
        rollback=rollback,
        rollback_ready=ready,
        attempt=attempt,
    )


def _attempt(ledger: Ledger, head: Head) -> Event | None:
    """The newest deployment, unless it is what is live."""
    if head.started is None or head.serial == head.standing.live:
        return None
    return Event(head.started, head.ended)


def running(project: Project, event: Event) -> bool:
    """Whether an attempt without outcome is at work; else it was killed, and the next command sees to it."""
    if event.ended is not None:
        return False
    holder, renewed, _ = Ledger(project.store.objects).holder(event.started)
    return owner.is_alive(holder, renewed)


def _problem(project: Project, delivery: Delivery, live: Started) -> str:
    pointer = delivery.pointer()
    if pointer is None:
        return f"nothing is live at {delivery.address}"
    if pointer != live.pointer:
        return f"{delivery.address} points at {pointer.release} (serial {pointer.serial})"
    if not delivery.has(project.store.bundle(live.bundle)):
        return f"files of {live.release} are missing at {delivery.address}"
    return ""


def _skewed(place: Place, one: TargetStatus, found: dict[Place, TargetStatus]) -> bool:
    return one.model is not None and any(
        other.model == one.model and other.version != one.version
        for there, other in found.items()
        if there.environment == place.environment
    )

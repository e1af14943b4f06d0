"""What a killed command left: recognised by the next one, then finished or undone.

Rules:

1. Only the claims of a dead owner are touched; a living one is a conflict. Each claim is taken over by
   creating a document, so that of several commands that find the same remains one does the work.
2. A command's deployments share their fate (``verdict``): finished where every pointer of it had moved, on
   every host, and the gates still pass, else undone, all of them. Hosts of a fleet that are out of reach are
   left out of this, as many as may fail; those that can't be taken back are named in the outcome.
3. What can't be asked or undone where ``deploy.yaml`` no longer sends the target (it was removed, or its
   address changed) is left as it is, and noted: it must not keep the other targets from being deployed to.
4. Exactly one outcome is recorded for each claim: ``live`` or ``interrupted``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from shipway.registry.deploy.execute import not_back
from shipway.registry.deploy.rollout import take_back
from shipway.registry.deploy.waves import decide
from shipway.registry.errors import DeliveryError, ShipwayError
from shipway.registry.ledger import lease, owner
from shipway.registry.ledger.events import INTERRUPTED, LIVE, Ended, HostEnd, Place, Started
from shipway.registry.ledger.ledger import Ledger
from shipway.registry.observe import SILENT, Observer
from shipway.targets.deliveries.base import Delivery, OutOfReachError, UnprovenError
from shipway.targets.deliveries.fleet import Errors, Fleet, each
from shipway.targets.steps import Gate

Verdict = Literal["finish", "undo"]
GatesOf = Callable[[Started], Sequence[Gate]]
"""Gives the gates of a deployment, the digests first."""


@dataclass(frozen=True, slots=True)
class There:
    """Where a deployment went, None if out of reach; ``current``: the target is still sent there.

    ``allowed``: how many hosts of a fleet may be out of reach for it to be finished all the same.
    """

    delivery: Delivery | None
    current: bool
    allowed: int = 0

    def points_at(self, started: Started) -> bool:
        return self.delivery is not None and self.delivery.pointer() == started.pointer


ThereOf = Callable[[Started], There]


@dataclass(frozen=True, slots=True)
class Part:
    """One target of a killed command: its claim, its outcome if any, and whether the pointer names it."""

    started: Started
    ended: Ended | None
    pointed: bool


def verdict(parts: Sequence[Part], claims: int) -> Verdict:
    """What to do with a killed command that meant to make ``claims`` claims.

    An outcome that it recorded shows how far it was: ``live`` is recorded only after every gate passed, any
    other one only while undoing.
    """
    outcomes = {part.ended.outcome for part in parts if part.ended}
    if outcomes:
        return "finish" if outcomes == {LIVE} else "undo"
    return "finish" if len(parts) == claims and all(part.pointed for part in parts) else "undo"


def recover(
    ledger: Ledger,
    places: Sequence[Place],
    there_of: ThereOf,
    gates_of: GatesOf,
    observer: Observer = SILENT,
) -> list[Ended]:
    """Finish or undo what dead commands left at ``places``; return the outcomes that were recorded.

    Raises ConflictError where a command at one of them is still at work.
    """
    recorded: list[Ended] = []
    for place in places:
        started = ledger.head(place).open
        if started is not None:
            recorded += _recover_command(ledger, started, there_of, gates_of, observer)
    return recorded


def _recover_command(
    ledger: Ledger,
    found: Started,
    there_of: ThereOf,
    gates_of: GatesOf,
    observer: Observer,
) -> list[Ended]:
    claimed = _claimed(ledger, found)
    taken = [(started, ledger.take_over(started)) for started, ended in claimed if ended is None]
    try:
        with lease.kept(ledger, taken):
            return _settle(ledger, found, claimed, taken, there_of, gates_of, observer)
    except BaseException:
        owner.abandon(found.command)  # this process lives on, but not for this
        raise


def _settle(
    ledger: Ledger,
    found: Started,
    claimed: Sequence[tuple[Started, Ended | None]],
    taken: Sequence[tuple[Started, int]],
    there_of: ThereOf,
    gates_of: GatesOf,
    observer: Observer,
) -> list[Ended]:
    theres = {started.place: there_of(started) for started, _ in claimed}
    parts = [Part(started, ended, theres[started.place].points_at(started)) for started, ended in claimed]
    left = [part for part in parts if part.ended is None]
    finish = verdict(parts, len(found.peers)) == "finish"
    failure, lost = _gate(left, theres, gates_of) if finish else ("", {})
    for started, number in taken:
        ledger.check(started, number)
    done = finish and not failure
    away = {}
    for part in left:
        place = part.started.place
        stuck = _put_right(part, theres[place], done, observer)
        away[place] = lost.get(place, {}) if done else stuck
    detail = f"killed ({found.owner}); " + (
        "all of it was in place" if done else f"undone{failure and ': ' + failure}"
    )
    recorded = []
    for part in left:
        bad = away[part.started.place]
        told = detail + (f"; out of reach: {', '.join(bad)}" if bad and done else not_back(bad))
        hosts = tuple(HostEnd(host, "unreachable", error.what) for host, error in bad.items())
        recorded.append(ledger.end(part.started, LIVE if done else INTERRUPTED, detail=told, hosts=hosts))
        observer.note(
            f"{part.started.place}: an earlier {part.started.kind} of {part.started.model}/"
            f"{part.started.version} (serial {part.started.serial}) was {told}."
        )
    return recorded


def _put_right(part: Part, there: There, done: bool, observer: Observer) -> Errors:
    """Undo one part, unless all is ``done``, and remove what was being put together for it.

    Returns the errors of a fleet's hosts that could not be taken back.
    """
    started, delivery = part.started, there.delivery
    stuck: Errors = {}
    try:
        # A fleet's host that was pointed may be out of reach now: only asking all of them tells.
        asked = part.pointed or isinstance(delivery, Fleet)
        if asked and not done and delivery is not None:
            stuck = take_back(delivery, started.pointer, started.before)
    except DeliveryError:
        if there.current:
            raise
        delivery = None
    if delivery is None:
        observer.note(
            f"{started.place}: deploy.yaml has it no more at {started.to or 'its former address'}, "
            "which can't be used; what is there was left as it is."
        )
        return stuck
    with contextlib.suppress(DeliveryError):
        delivery.clear(started.release)
    return stuck


def _claimed(ledger: Ledger, found: Started) -> list[tuple[Started, Ended | None]]:
    """The claims that the command of ``found`` got round to making, in the order in which it made them."""
    claimed = []
    for target, serial in found.peers:
        place = Place(found.place.environment, target)
        if place != found.place and ledger.head(place).serial < serial:
            continue
        started = ledger.started(place, serial)
        if started.command == found.command:
            claimed.append((started, ledger.ended(place, serial)))
    return claimed


def _gate(
    parts: Sequence[Part], theres: Mapping[Place, There], gates_of: GatesOf
) -> tuple[str, dict[Place, Errors]]:
    """Why a gate does not pass, or nothing; and the hosts that are out of reach and can't be asked."""
    lost: dict[Place, Errors] = {}
    for part in parts:
        there = theres[part.started.place]
        if there.delivery is not None:
            text, lost[part.started.place] = _failure(part.started, there, there.delivery, gates_of)
            if text:
                return text, lost
    return "", lost


def _failure(started: Started, there: There, delivery: Delivery, gates_of: GatesOf) -> tuple[str, Errors]:
    """Why it is not in place on every host that answers, and the errors of those that do not."""
    try:
        gates = gates_of(started)
        good, bad = each(delivery, lambda _, host: _judge(started, host, gates))
    except ShipwayError as error:
        return error.what, {}
    away: Errors = {host: error for host, error in bad.items() if isinstance(error, OutOfReachError)}
    if len(away) == len(bad) and decide(len(bad), there.allowed, len(good) + len(bad)) == "go on":
        return "", away
    told = [error for host, error in bad.items() if host not in away] or list(away.values())
    return told[0].what, away


def _judge(started: Started, host: Delivery, gates: Sequence[Gate]) -> None:
    """Raise DeliveryError where a host does not serve the deployment, or a gate fails that nobody accepts."""
    if host.pointer() != started.pointer:
        raise DeliveryError(f"{host.address} was not pointed yet.")
    for gate in gates:
        with contextlib.suppress(*[UnprovenError] * (started.accept is not None)):
            host.perform(gate)

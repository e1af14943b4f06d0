"""The only executor: it claims, walks a plan's steps, undoes what a failure leaves, and records the outcome.

Rules:

1. Every serial is claimed before anything is touched, in the order of the targets' names.
2. Right before a step that others can see, the claim is asked for again: a process that slept while another
   took over must not touch the destination any more.
3. When a step fails (on more hosts of a fleet than may: ``rollout``), every pointer that this command moved
   goes back, newest first; then ``failed`` is recorded, with the hosts that could not be taken back. Where
   even that fails, nothing is recorded: the next command finds the claim and undoes the rest. From the first
   ``live`` in the ledger on there is no way back, and the command has succeeded: what can't be recorded then
   is noted, and recorded by the next command.
4. Pruning is housekeeping: what can't be removed is left and noted.
5. What comes before any pointer moves is done for all targets side by side (``abreast``).
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from shipway.registry.deploy import abreast
from shipway.registry.deploy.plan import Move, Plan, Task
from shipway.registry.deploy.rollout import Rollout
from shipway.registry.errors import DeliveryError, ShipwayError
from shipway.registry.ledger import lease, owner
from shipway.registry.ledger.events import FAILED, INTERRUPTED, LIVE, HostEnd, OutcomeName, Place, Started
from shipway.registry.ledger.ledger import Ledger
from shipway.registry.nouns import Digest, Json
from shipway.registry.observe import SILENT, Confirm, Observer
from shipway.targets.deliveries.base import Delivery
from shipway.targets.deliveries.fleet import Fleet
from shipway.targets.steps import Gate, Hold, Patch, Point, Preflight, Reuse, Send

_UNSEEN = (Preflight, Send, Reuse, Patch, Gate)  # steps that nobody else can see
Watch = Callable[[str, Task], None]
"""Called with ``before`` or ``after`` and the task: progress, and where the crash tests cut."""


@dataclass(frozen=True, slots=True)
class Deployment:
    """What one command did on one target. ``outcome`` is the ledger's, or ``unchanged``.

    ``hosts``: how it ended on each host of a fleet.
    ``check``: what the golden check found, where it was a gate.
    """

    environment: str
    target: str
    serial: int
    model: str
    version: int
    bundle: Digest
    outcome: str
    bytes_sent: int
    seconds: float
    hosts: tuple[HostEnd, ...] = ()
    check: tuple[Json, ...] = ()

    def to_json(self) -> Json:
        return {
            "environment": self.environment,
            "target": self.target,
            "serial": self.serial,
            "model": self.model,
            "version": self.version,
            "bundle": str(self.bundle),
            "outcome": self.outcome,
            "bytes_sent": self.bytes_sent,
            "seconds": round(self.seconds, 3),
            "hosts": [host.to_json() for host in self.hosts],
            "check": list(self.check),
        }


def unwatched(moment: str, task: Task) -> None:
    pass


@dataclass
class _Run:
    """A plan under way: claims and roll-outs by target, who is told and asked, and what happened so far."""

    plan: Plan
    ledger: Ledger
    claims: Mapping[str, Started]
    rollouts: Mapping[str, Rollout]
    observer: Observer
    confirm: Confirm | None
    watch: Watch
    seconds: dict[str, float] = field(default_factory=dict)
    pointed: list[str] = field(default_factory=list)
    recorded: bool = False


def execute(
    plan: Plan,
    ledger: Ledger,
    deliveries: Mapping[str, Delivery],
    *,
    observer: Observer = SILENT,
    confirm: Confirm | None = None,
    watch: Watch = unwatched,
) -> tuple[Deployment, ...]:
    """Carry out ``plan``. Raises ConflictError where it lost the race; what a step raised, after undoing.

    ``confirm`` is asked between waves where the plan says so; without it the answer is no.
    """
    claims = claim(plan, ledger)
    rollouts = {
        move.target: Rollout(
            deliveries[move.target], move, move.pointer(plan.environment), plan.accept, observer
        )
        for move in plan.moves
    }
    run = _Run(plan, ledger, claims, rollouts, observer, confirm, watch)
    with lease.kept(ledger, [(started, 0) for started in claims.values()]):
        try:
            _walk(run)
            _record_live(run)
        except BaseException as error:
            _give_up(run, error)
            raise
    return tuple(_deployment(run, move) for move in plan.moves)


def claim(plan: Plan, ledger: Ledger) -> dict[str, Started]:
    """Claim every serial of the plan, by target. Raises ConflictError, giving back what it had claimed."""
    command = secrets.token_hex(8)
    moves = sorted(plan.changes, key=lambda move: move.target)
    peers = tuple((move.target, move.serial) for move in moves)
    claims: dict[str, Started] = {}
    for move in moves:
        started = _started(plan, move, command, peers)
        try:
            ledger.claim(started)
        except BaseException as error:
            owner.abandon(command)  # whatever can't be given back now, the next command gives back
            with contextlib.suppress(ShipwayError):
                for given_back in claims.values():
                    ledger.end(given_back, INTERRUPTED, detail=f"nothing was changed: {_what(error)}")
            raise
        claims[move.target] = started
    return claims


def _walk(run: _Run) -> None:
    plan = run.plan

    def perform(task: Task) -> None:
        rollout = run.rollouts[task.target]
        hosts = rollout.left(task.hosts)
        if not hosts:
            return
        began = time.monotonic()
        run.watch("before", task)
        if isinstance(task.step, Hold):
            _hold(run, task.target, task.step)
            run.watch("after", task)
            return
        if not isinstance(task.step, _UNSEEN):
            run.ledger.check(run.claims[task.target])
        if isinstance(task.step, Point):
            run.pointed.append(task.target)
        rollout.perform(task.step, hosts, progress.advance)
        run.watch("after", task)
        run.seconds[task.target] = run.seconds.get(task.target, 0.0) + time.monotonic() - began

    with run.observer.phase(f"{plan.kind} to {plan.environment}", plan.send or None) as progress:
        # Who cuts or counts at a step wants them one by one.
        lanes, rest = abreast.split(plan.tasks) if run.watch is unwatched else ({}, plan.tasks)
        abreast.run(lanes, perform)
        for task in rest:
            perform(task)


def _hold(run: _Run, target: str, hold: Hold) -> None:
    """Wait and ask. Raises DeliveryError where the answer is no."""
    failed = 0
    for rollout in run.rollouts.values():
        failed += len(rollout.ends(live=False))
        if isinstance(rollout.delivery, Fleet):
            rollout.delivery.close()  # nobody knows how long this takes
    if hold.seconds:
        with run.observer.phase(f"{target}: {hold}") as progress:
            end = time.monotonic() + hold.seconds
            while (left := end - time.monotonic()) > 0:
                time.sleep(min(1.0, left))
                progress.advance()
    if hold.ask:
        done = f"{target}: wave {hold.wave - 1} of {hold.waves} is done, {failed} hosts failed so far."
        if run.confirm is None or not run.confirm(f"{done} Go on with wave {hold.wave}?"):
            raise DeliveryError(
                f"The roll-out to {target} was stopped before wave {hold.wave} of {hold.waves}.",
                why="Nobody said that it shall go on.",
                remedy="Run the command again to begin anew: hosts that hold the release are sent nothing.",
            )


def _record_live(run: _Run) -> None:
    for target, started in run.claims.items():
        try:
            _record(run, started, LIVE, run.rollouts[target].detail)
        except DeliveryError as error:
            if not run.recorded:
                raise
            owner.abandon(started.command)
            run.observer.note(
                f"{started.place}: {started.model}/{started.version} is live, but this could not be noted: "
                f"{error.what} {error.why} The next promote or rollback records it."
            )
        run.recorded = True


def _give_up(run: _Run, error: BaseException) -> None:
    """Undo and record. What goes wrong in here must not hide ``error``; the next command sees to it."""
    claims = run.claims
    command = next(iter(claims.values())).command if claims else ""
    outcome = FAILED if isinstance(error, Exception) else INTERRUPTED
    try:
        if any(map(run.ledger.lost, claims.values())):
            return  # whoever took it over undoes and records
        if run.recorded or _says_live(run):  # then there is no way back, only the rest to record
            owner.abandon(command)
            _add(error, remedy="All of it is live; the next promote or rollback records the rest.")
            return
        with contextlib.ExitStack() as back:  # newest first, and one that can't be taken back keeps no other
            for target in dict.fromkeys(run.pointed):
                back.callback(run.rollouts[target].undo)
        for target in claims:
            run.rollouts[target].tidy()
        for target, started in claims.items():
            _record(run, started, outcome, _what(error) + not_back(run.rollouts[target].stuck))
        stuck = "".join(not_back(run.rollouts[target].stuck) for target in claims)
        if stuck:
            _add(
                error, why=f"Taken back everywhere else{stuck}.", remedy="The next promote brings them along."
            )
    except ShipwayError as second:
        owner.abandon(command)
        _add(
            error,
            why=f"Undoing it did not end either: {second}",
            remedy="The next shipway command undoes what is left.",
        )


def not_back(hosts: Iterable[str]) -> str:
    """What an outcome's detail says of hosts that could not be taken back."""
    names = ", ".join(hosts)
    return f"; could not be taken back: {names}" if names else ""


def _what(error: BaseException) -> str:
    return error.what if isinstance(error, ShipwayError) else repr(error)


def _add(error: BaseException, *, why: str = "", remedy: str) -> None:
    if isinstance(error, ShipwayError):
        error.why = f"{error.why}\n{why}".strip()
        error.remedy = f"{error.remedy} {remedy}".strip()


def _says_live(run: _Run) -> bool:
    """Whether this command recorded a success before it was interrupted; it does so in the claims' order."""
    first = next(iter(run.claims.values()), None)
    ended = run.ledger.ended(first.place, first.serial) if first else None
    return ended is not None and ended.outcome == LIVE


def _record(run: _Run, started: Started, outcome: OutcomeName, detail: str) -> None:
    target = started.place.target
    rollout = run.rollouts[target]
    run.ledger.end(
        started,
        outcome,
        bytes_sent=rollout.sent,
        seconds=round(run.seconds.get(target, 0.0), 3),
        detail=detail,
        hosts=rollout.ends(live=False),
    )


def _started(plan: Plan, move: Move, command: str, peers: tuple[tuple[str, int], ...]) -> Started:
    manifest = move.release.manifest
    return Started(
        place=Place(plan.environment, move.target),
        serial=move.serial,
        kind=plan.kind,
        model=manifest.model,
        version=manifest.version,
        bundle=move.release.bundle,
        release=move.release.id,
        actor=owner.actor(),
        at=owner.now(),
        reason=plan.reason,
        accept=plan.accept,
        restores=move.restores,
        before=move.before,
        command=command,
        peers=peers,
        owner=owner.this_process(),
        to=move.to,
    )


def _deployment(run: _Run, move: Move) -> Deployment:
    return Deployment(
        environment=run.plan.environment,
        target=move.target,
        serial=move.serial,
        model=move.release.manifest.model,
        version=move.release.manifest.version,
        bundle=move.release.bundle,
        outcome="unchanged" if move.unchanged else LIVE,
        bytes_sent=run.rollouts[move.target].sent,
        seconds=run.seconds.get(move.target, 0.0),
        hosts=run.rollouts[move.target].ends(live=True),
        check=run.rollouts[move.target].checks,
    )

"""What a promotion or a rollback will do, as data. No I/O here.

Rules:

1. Every release is put together, sealed and activated at its destination before any pointer moves; then
   each target is pointed and gated; only when all gates have passed is anything pruned.
2. A rollback is the same plan with an older bundle.
3. A target where the release is live already, and in place, is left alone.
4. Nothing that is live, that was live when the command began, or that a rollback would restore is pruned.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from shipway.registry.ledger.events import Kind
from shipway.registry.nouns import Digest, Json
from shipway.targets.steps import Gate, Point, Pointer, Prune, Release, Reuse, Seal, Send, Stage, Step


@dataclass(frozen=True, slots=True)
class Wanted:
    """What shall be live on one target, and what its configuration says about getting there.

    ``gates`` name the gates past the digests and their options. ``restores`` is the serial that a rollback
    goes back to. ``keep`` is how many old releases stay besides the live one and the candidate. ``to`` is the
    destination's address, for the ledger.
    """

    target: str
    release: Release
    activation: tuple[Step, ...] = ()
    gates: tuple[tuple[str, Mapping[str, Json]], ...] = ()
    restores: int | None = None
    keep: int = 5
    to: str = ""


@dataclass(frozen=True, slots=True)
class Seen:
    """What the ledger and the destination of one target said when the plan was made.

    ``serial`` is the newest in the ledger, ``live`` the pointer that the ledger says is live, ``pointer``
    what the destination says. ``placed``: the release is there by names and sizes. ``damaged``: it was read
    and is not what it should be. ``held``: contents that the destination holds. ``releases``: sealed releases
    there. ``chain``: releases that repeated rollbacks would restore after this deployment, nearest first; it
    may be cut off after as many as are to be kept, and is None where so few are there that none must go.
    """

    serial: int
    live: Pointer | None
    pointer: Pointer | None
    placed: bool
    damaged: bool = False
    held: frozenset[Digest] = frozenset()
    releases: tuple[str, ...] = ()
    chain: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Move:
    """One target's part: ``serial`` is the one to claim, or the live one where nothing needs doing.

    ``before`` is what the pointer goes back to if anything fails, ``send`` the bytes that have to travel,
    ``fresh`` says that the destination has no release of that name yet.
    """

    target: str
    serial: int
    release: Release
    before: Pointer | None
    restores: int | None
    fresh: bool
    unchanged: bool
    send: int
    to: str = ""

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
    """A step, and the target at whose destination it is performed."""

    target: str
    step: Step

    def to_json(self) -> Json:
        return {"target": self.target, "step": type(self.step).__name__.lower(), "text": str(self.step)}

    def __str__(self) -> str:
        return f"{self.target}: {self.step}"


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
        return sum(move.send for move in self.moves)

    def to_json(self) -> Json:
        return {
            "kind": self.kind,
            "environment": self.environment,
            "reason": self.reason,
            "accept": self.accept,
            "bytes_to_send": self.send,
            "targets": [_move_json(move) for move in self.moves],
            "steps": [task.to_json() for task in self.tasks],
        }

    def __str__(self) -> str:
        """The steps, one a line."""
        return "\n".join(str(task) for task in self.tasks)


def plan_promotion(
    kind: Kind,
    environment: str,
    wanted: Sequence[Wanted],
    seen: Mapping[str, Seen],
    *,
    reason: str = "",
    accept: str | None = None,
) -> Plan:
    """Decide every step from what is wanted and what is there, by the rules above."""
    moves = [_move(want, seen[want.target]) for want in wanted]
    going = [(want, move, seen[want.target]) for want, move in zip(wanted, moves, strict=True)]
    going = [item for item in going if not item[1].unchanged]
    tasks = [Task(move.target, step) for want, move, there in going for step in _place(want, move, there)]
    for want, move, _ in going:
        pointer = move.pointer(environment)
        tasks.append(Task(move.target, Point(pointer)))
        tasks.append(Task(move.target, Gate(move.release, "digests", {})))
        tasks += [Task(move.target, gate) for gate in gates(want, pointer)]
    for want, move, there in going:
        tasks += [Task(move.target, Prune(name)) for name in prunable(want, move, there)]
    return Plan(kind, environment, tuple(moves), tuple(tasks), reason, accept)


def gates(want: Wanted, pointer: Pointer) -> list[Gate]:
    """The gates past the digests; each is told which deployment it judges."""
    deployment = pointer.to_json()
    return [Gate(want.release, name, {**options, "deployment": deployment}) for name, options in want.gates]


def prunable(want: Wanted, move: Move, there: Seen) -> list[str]:
    """Releases at the destination that are neither needed nor among the ``keep`` nearest to go back to."""
    if there.chain is None:
        return []
    stay = {move.release.id, *there.chain[: want.keep + 1]}
    stay.update(pointer.release for pointer in (there.live, there.pointer) if pointer)
    return [name for name in there.releases if name not in stay]


def _move(want: Wanted, there: Seen) -> Move:
    bundle = want.release.bundle
    live = there.live
    in_place = there.placed and not there.damaged and live == there.pointer
    unchanged = live is not None and live.bundle == bundle and in_place
    return Move(
        target=want.target,
        serial=live.serial if live and unchanged else there.serial + 1,
        release=want.release,
        before=there.pointer,
        restores=want.restores,
        fresh=want.release.id not in there.releases,
        unchanged=unchanged,
        send=0 if there.placed else sum(step.file.size for step in _sends(want, there)),
        to=want.to,
    )


def _place(want: Wanted, move: Move, there: Seen) -> list[Step]:
    """The steps that come before any pointer moves."""
    release = want.release
    if there.placed:
        return [Seal(release), *want.activation]
    reuses = [Reuse(release, file) for file in release.manifest.files if file.digest in there.held]
    return [Stage(release), *reuses, *_sends(want, there), Seal(release), *want.activation]


def _sends(want: Wanted, there: Seen) -> list[Send]:
    files = want.release.manifest.files
    return [Send(want.release, file) for file in files if file.digest not in there.held]


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
    }

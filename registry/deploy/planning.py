"""What a promotion or a rollback will do: every step, from what is wanted and what is there. No I/O here.

Rules:

1. It goes wave by wave. Of each wave every release is put together, sealed and activated at its destination
   before any pointer of that wave moves; then each target is pointed and gated. A destination that is no
   fleet has one wave. Only when all gates of all waves have passed is anything pruned.
2. A rollback is the same plan with an older bundle.
3. A target where the release is live already, and in place on every host that answers, is left alone.
4. Nothing that is live, that was live when the command began, or that a rollback would restore is pruned.
5. What a host holds is not sent to it again, whatever the others hold.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath

from shipway.registry.deploy.plan import ALONE, Found, Move, Plan, Seen, Task, Wanted
from shipway.registry.deploy.waves import batches
from shipway.registry.ledger.events import Kind
from shipway.registry.nouns import File
from shipway.targets.deliveries.base import AT_ONCE
from shipway.targets.steps import (
    Gate,
    Hold,
    Patch,
    Point,
    Pointer,
    Preflight,
    Prune,
    Reuse,
    Seal,
    Send,
    Stage,
    Step,
)

_PATCHED = (".onnx", ".onnx.data", ".ort")  # files with the weights of models
_LEAST = 1 << 16  # bytes: a smaller file is not worth the asking


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
    tasks: list[Task] = []
    for number in range(max((len(want.waves) for want, _, _ in going), default=0)):
        wave = [item for item in going if number < len(item[0].waves)]
        tasks += _hold([want for want, _, _ in wave], number)
        for want, _, there in wave:
            tasks += _place_wave(want, there, want.waves[number])
        for want, move, _ in wave:
            tasks += _point_wave(want, move.pointer(environment), want.waves[number])
    for want, move, there in going:
        tasks += _prune(want, move, there)
    return Plan(kind, environment, tuple(moves), tuple(tasks), reason, accept)


def _hold(wanted: Sequence[Wanted], number: int) -> list[Task]:
    """What is between two waves: one wait and one question, however many targets have them."""
    holding = [want for want in wanted if want.pause or want.confirm]
    if number == 0 or not holding:
        return []
    pause, ask = max(want.pause for want in holding), any(want.confirm for want in holding)
    waves = max(len(want.waves) for want in holding)
    return [Task(holding[0].target, Hold(pause, ask, number + 1, waves))]


def _place_wave(want: Wanted, there: Seen, wave: Sequence[str]) -> Iterator[Task]:
    """The steps that come before any pointer of the wave moves, each on the hosts that need it."""
    for batch in batches(wave, AT_ONCE):
        steps: dict[str, tuple[Step, list[str]]] = {}
        for host in batch:
            for step in _place(want, there.hosts[host]):
                steps.setdefault(str(step), (step, []))[1].append(host)
        for text in sorted(steps, key=lambda text: _rank(steps[text][0])):
            yield _task(want, *steps[text])


def _point_wave(want: Wanted, pointer: Pointer, wave: Sequence[str]) -> Iterator[Task]:
    for batch in batches(wave, AT_ONCE):
        yield _task(want, Point(pointer), batch)
        for gate in (Gate(want.release, "digests", {}), *gates(want, pointer)):
            yield _task(want, gate, batch)


def _prune(want: Wanted, move: Move, there: Seen) -> Iterator[Task]:
    doomed = {host: prunable(want, move, there, host) for wave in want.waves for host in wave}
    for batch in batches([host for host, names in doomed.items() if names], AT_ONCE):
        for name in dict.fromkeys(name for host in batch for name in doomed[host]):
            yield _task(want, Prune(name), [host for host in batch if name in doomed[host]])


def _task(want: Wanted, step: Step, hosts: Sequence[str]) -> Task:
    return Task(want.target, step, () if want.waves == (ALONE,) else tuple(hosts))


def gates(want: Wanted, pointer: Pointer) -> list[Gate]:
    """The gates past the digests; each is told which deployment it judges."""
    deployment = pointer.to_json()
    return [Gate(want.release, name, {**options, "deployment": deployment}) for name, options in want.gates]


def prunable(want: Wanted, move: Move, there: Seen, host: str) -> list[str]:
    """Releases on a host that are neither needed nor among the ``keep`` nearest to go back to."""
    if there.chain is None:
        return []
    found = there.hosts[host]
    stay = {move.release.id, *there.chain[: want.keep + 1]}
    stay.update(pointer.release for pointer in (there.live, there.pointer, found.pointer) if pointer)
    return [name for name in found.releases if name not in stay]


def _move(want: Wanted, there: Seen) -> Move:
    bundle, live, found = want.release.bundle, there.live, there.hosts
    in_place = all(one.placed and not one.damaged and one.pointer == live for one in found.values())
    unchanged = live is not None and live.bundle == bundle and in_place
    missing = [step for one in found.values() if not one.placed for step in _missing(want, one)]
    return Move(
        target=want.target,
        serial=live.serial if live and unchanged else there.serial + 1,
        release=want.release,
        before=there.pointer,
        restores=want.restores,
        fresh=frozenset(host for host, one in found.items() if want.release.id not in one.releases),
        unchanged=unchanged,
        send=sum(step.file.size for step in missing),
        to=want.to,
        waves=want.waves,
        allowed=want.allowed,
        lost=there.lost,
        patches=sum(isinstance(step, Patch) for step in missing),
    )


def _place(want: Wanted, found: Found) -> list[Step]:
    """What one host needs before its pointer moves."""
    release = want.release
    if found.placed:
        return [Seal(release), *want.activation]
    reuses = [Reuse(release, file) for file in release.manifest.files if file.digest in found.held]
    missing = _missing(want, found)
    return [*want.preflight, Stage(release), *reuses, *missing, Seal(release), *want.activation]


def _rank(step: Step) -> int:
    """Keeps the order of ``_place`` where the steps of several hosts are put together."""
    order = (Preflight, Stage, Reuse, Patch, Send, Seal)
    return order.index(type(step)) if type(step) in order else len(order)


def _missing(want: Wanted, found: Found) -> list[Send | Patch]:
    """What has to be sent to a host: whole, or as what differs from a file of the same name there."""
    steps: list[Send | Patch] = []
    for file in want.release.manifest.files:
        if file.digest in found.held:
            continue
        base = _like(file, found.bases)
        if base and file.size > _LEAST and file.path.endswith(_PATCHED):
            steps.append(Patch(want.release, file, base))
        else:
            steps.append(Send(want.release, file))
    return steps


def _like(file: File, bases: Sequence[File]) -> File | None:
    """What a file is most like: one at its path, or one of its name, as a path may hold the version."""
    name = PurePosixPath(file.path).name
    alike = [base for base in bases if PurePosixPath(base.path).name == name]
    return next((base for base in alike if base.path == file.path), alike[0] if alike else None)

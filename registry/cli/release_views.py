"""What people and programs see of plans, deployments, status and history.

Nothing heavy here, and no I/O but a look at the process that has not ended.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from shipway.registry.cli import fleet_views
from shipway.registry.cli.layout import Cell, Table
from shipway.registry.cli.output import Block
from shipway.registry.ledger.owner import is_alive, now, seconds_since
from shipway.registry.nouns import Json, ModelVersion
from shipway.registry.units import format_age, format_ago, format_size

if TYPE_CHECKING:
    from shipway.registry.deploy.plan import Move, Plan, Task
    from shipway.registry.deploy.site import Outcome
    from shipway.registry.ledger.events import Event
    from shipway.registry.verbs.status import TargetStatus

    Status = Mapping[str, Mapping[str, TargetStatus]]

_STYLES = {"live": "green", "unchanged": "dim", "failed": "red", "interrupted": "yellow", "started": "yellow"}


def age(at: str) -> str:
    """How long ago an ISO 8601 time was."""
    return format_age(seconds_since(at))


def ago(at: str) -> str:
    """The same in a sentence."""
    return format_ago(seconds_since(at))


def short_time(at: str) -> str:
    """The minute of this year, or the day of another one, of an ISO 8601 time in UTC."""
    from datetime import datetime, timezone

    this_year = at[:4] == str(datetime.now(timezone.utc).year)
    return at[5:16].replace("T", " ") if this_year else at[:10]


def outcome_json(done: Outcome) -> Json:
    """``deployments``, and the plan where nothing more than that was asked for."""
    plan = {} if done.deployments else {"plan": done.plan.to_json()}
    return {"deployments": [deployment.to_json() for deployment in done.deployments], **plan}


def outcome(done: Outcome) -> Iterator[Block]:
    """What was deployed, or the plan of a dry run."""
    if not done.deployments:
        yield from plan(done)
        return
    rows = [
        (
            item.target,
            f"{item.model}/{item.version}",
            str(item.serial),
            Cell(item.outcome, _STYLES.get(item.outcome, "")),
            format_size(item.bytes_sent),
            f"{item.seconds:.1f} s",
        )
        for item in done.deployments
    ]
    title = f"{done.plan.kind.capitalize()} in {done.plan.environment}"
    yield Table(("target", "version", "serial", "outcome", "sent", "took"), rows, title)
    for item in done.deployments:
        yield from fleet_views.outcome(item)


def plan(done: Outcome) -> Iterator[Block]:
    rows: list[tuple[str | Cell, ...]] = []
    for move in done.plan.moves:
        manifest = move.release.manifest
        fits = f"opset {manifest.opset}, IR {manifest.ir}"
        rows.append(
            (
                move.target,
                f"{move.before.model}/{move.before.version}" if move.before else "-",
                f"{manifest.model}/{manifest.version}",
                str(move.serial),
                manifest.kind,
                manifest.precision,
                _worst(done.version, manifest.precision),
                format_size(manifest.size),
                _to_send(move),
                Cell("live already", "dim") if move.unchanged else fits,
            )
        )
    columns = ("target", "now", "then", "serial", "kind", "precision", "max abs", "size", "to send", "runs")
    title = f"{done.plan.kind.capitalize()} in {done.plan.environment}"
    yield Table(columns, rows, title, gives=("kind", "serial", "precision", "size", "runs", "max abs"))
    for move in done.plan.moves:
        yield from fleet_views.plan(move)
    yield from _steps(done.plan)
    yield f"{len(done.plan.tasks)} steps, {_to_send(done.plan)} to send. Nothing was changed."


def _to_send(what: Plan | Move) -> str:
    """A file that is made of another one there is counted whole: nobody has compared the two yet."""
    return f"at most {format_size(what.send)}" if what.patches else format_size(what.send)


def _steps(plan: Plan) -> Iterator[str]:
    """The steps, a run of files to send or to reuse on one line."""
    run: list[str] = []
    for task, following in zip(plan.tasks, (*plan.tasks[1:], None), strict=True):
        word = type(task.step).__name__.lower()
        run.append(word)
        if word in ("send", "reuse") and following and _alike(task, following):
            continue
        yield f"  {task}" if len(run) == 1 else f"  {task.where}: {word} {len(run)} files"
        run.clear()


def _alike(one: Task, other: Task) -> bool:
    return (one.target, one.hosts) == (other.target, other.hosts) and type(one.step) is type(other.step)


def _worst(version: ModelVersion | None, precision: str) -> str:
    variant = version.variant(precision) if version else None
    outputs = [output.max_abs for link in (variant.links if variant else ()) for output in link.outputs]
    return f"{max(outputs):.2g}" if outputs else "-"


def status_json(found: Status) -> Json:
    return {
        "environments": {
            environment: {target: one.to_json() for target, one in targets.items()}
            for environment, targets in found.items()
        }
    }


def status(found: Status, *, grid: bool) -> Iterator[Block]:
    """As a grid of targets by environments for a terminal, or one line a target for other programs."""
    if not any(found.values()):
        yield "deploy.yaml names no environment with targets yet."
        return
    yield _grid(found) if grid else _list(found)
    for environment, targets in found.items():
        for target, one in targets.items():
            yield from (Cell(f"{environment}/{target}: {note}", "yellow") for note in _notes(one))
    lagging = sum(not one.mirrored for targets in found.values() for one in targets.values())
    if lagging:
        what = (
            "MLflow's alias of 1 target lags"
            if lagging == 1
            else f"MLflow's aliases of {lagging} targets lag"
        )
        yield Cell(f"{what} behind the ledger and will follow; 'shipway mirror' waits for it.", "dim")


def _grid(found: Status) -> Table:
    names = dict.fromkeys(target for targets in found.values() for target in targets)
    rows: list[tuple[str | Cell, ...]] = [
        (name, *(_square(targets.get(name)) for targets in found.values())) for name in names
    ]
    return Table(("target", *found), rows, wraps=dict.fromkeys(found, 24))


def _square(one: TargetStatus | None) -> Cell:
    if one is None or one.version is None or one.since is None:
        return Cell("-" if one is None else "nothing yet", "dim")
    state = fleet_views.state(one)
    skew = "  (skew)" if one.skew else ""
    text = f"{one.model}/{one.version}{skew}\n{state}, {age(one.since)}, serial {one.serial}\n{_back(one)}"
    return Cell(text, "red" if not one.healthy else "yellow" if one.skew else "green")


def _list(found: Status) -> Table:
    rows: list[tuple[str, ...]] = []
    for environment, targets in found.items():
        for target, one in targets.items():
            if one.version is None or one.since is None:
                rows.append((environment, target, "-", "nothing yet", "-", "-", "-", "-"))
                continue
            state = fleet_views.state(one)
            skew = "skew" if one.skew else "-"
            version = f"{one.model}/{one.version}"
            serial = str(one.serial)
            rows.append((environment, target, version, state, skew, age(one.since), serial, _back(one)))
    return Table(("environment", "target", "version", "state", "skew", "age", "serial", "rollback"), rows)


def _back(one: TargetStatus) -> str:
    if one.rollback is None:
        return "nothing to roll back to"
    ready = "ready" if one.rollback_ready else "not ready"
    return f"back to {one.rollback.model}/{one.rollback.version}: {ready}"


def _notes(one: TargetStatus) -> Iterator[str]:
    if one.problem:
        yield one.problem
    yield from fleet_views.problems(one)
    if one.rollback and one.rollback_problem:
        yield f"rollback to {one.rollback.model}/{one.rollback.version}: {one.rollback_problem}"
    if one.attempt is not None:
        started, ended = one.attempt.started, one.attempt.ended
        what = f"{started.kind} of {started.model}/{started.version} (serial {started.serial})"
        if ended is None:
            # Of another machine only its lease could tell, which the next command reads.
            gone = (
                ""
                if is_alive(started.owner, now())
                else "; it is gone: the next promote or rollback clears up"
            )
            yield f"{what} began {ago(started.at)} and has not ended: {started.owner}{gone}"
        else:
            yield f"{what} {ended.outcome} {ago(ended.at)}" + (f": {ended.detail}" if ended.detail else "")


def history(events: Sequence[Event]) -> Iterator[Block]:
    if not events:
        yield "Nothing was deployed yet."
        return
    rows: list[tuple[str | Cell, ...]] = []
    for event in events:
        started = event.started
        accepted = f" (accepted: {started.accept})" if started.accept else ""
        detail = f" [{event.ended.detail}]" if event.ended and event.ended.detail else ""
        rows.append(
            (
                Cell(started.at[:19].replace("T", " "), short=short_time(started.at)),
                str(started.place),
                str(started.serial),
                started.kind,
                f"{started.model}/{started.version}",
                Cell(event.outcome, _STYLES.get(event.outcome, "")),
                started.actor,
                started.reason + accepted + detail,
            )
        )
    columns = ("when (UTC)", "where", "serial", "what", "version", "outcome", "who", "why")
    yield Table(columns, rows, gives=("when (UTC)", "who", "serial"), wraps={"why": 15})


def aliases(found: Mapping[str, tuple[str, int] | None]) -> Iterator[Block]:
    if not found:
        yield "Nothing was deployed yet, so there are no aliases."
        return
    rows = [(alias, f"{version[0]}/{version[1]}" if version else "-") for alias, version in found.items()]
    yield Table(("alias", "version"), rows)

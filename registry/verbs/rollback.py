"""Make an earlier release live again: the promotion of an older bundle. Never converts, never rebuilds."""

from __future__ import annotations

from collections.abc import Sequence

from shipway.registry.config.project import Project
from shipway.registry.deploy.plan import Plan
from shipway.registry.deploy.site import Goal, Outcome, Site
from shipway.registry.errors import NotFoundError
from shipway.registry.ledger.events import LIVE, Place, Started
from shipway.registry.observe import SILENT, Observer
from shipway.registry.verbs.promote import refuse_blank
from shipway.registry.verbs.readiness import listed
from shipway.targets.steps import Patch, Send


def rollback(
    project: Project,
    environment: str,
    *,
    targets: Sequence[str] = (),
    to_version: int | None = None,
    reason: str = "",
    accept: str | None = None,
    dry_run: bool = False,
    observer: Observer = SILENT,
) -> Outcome:
    """Make the last healthy release before the live one live again, or the newest of ``to_version``.

    Goes for the targets named, or for all on which something is live; either all of them or none. ``accept``
    is the reason for going past gates that do not pass: a server that is down must not keep what is bad live.
    Raises UsageError, NotFoundError where one of them has nothing to go back to, ConflictError and
    DeliveryError.
    """
    refuse_blank(accept)
    site = Site(project, environment, targets)
    if not dry_run:
        site.recover(observer)
    going = [target for target in site.targets if target in targets or site.live(target)]
    wanted = {target: earlier(site, target, to_version) for target in going}
    found = {target: started for target, started in wanted.items() if started}
    refuse_nowhere(site, wanted, to_version)
    goals = {
        target: Goal(project.store.bundle(started.bundle), started.serial)
        for target, started in found.items()
    }
    plan = site.plan("rollback", goals, reason=reason, accept=accept, observer=observer)
    refuse_lost(project, plan)
    deployments = () if dry_run else site.carry_out(plan, observer=observer)
    return Outcome(plan, deployments)


def earlier(site: Site, target: str, to_version: int | None) -> Started | None:
    """What to go back to on ``target``, by the ledger alone."""
    place = Place(site.environment, target)
    standing = site.head(target).standing
    if to_version is None:
        return site.ledger.started(place, standing.candidate) if standing.candidate else None
    live = site.live(target)
    return next(
        (
            event.started
            for event in site.ledger.events(place)
            if event.outcome == LIVE
            and event.started.version == to_version
            and (live is None or event.started.model == live.model)
        ),
        None,
    )


def refuse_nowhere(site: Site, wanted: dict[str, Started | None], to_version: int | None) -> None:
    """Raise NotFoundError where a target has nothing to go back to, naming those that have."""
    lacking = [target for target, started in wanted.items() if started is None]
    if wanted and not lacking:
        return
    what = "an earlier release" if to_version is None else f"a release of version {to_version}"
    able = " ".join(f"--target {target}" for target in wanted if target not in lacking)
    raise NotFoundError(
        f"There is nothing to roll back to in {site.environment}.",
        why=f"Without {what} that was healthy: {', '.join(lacking or site.targets)}.",
        remedy=f"Roll back the others alone: {able}" if able else "'shipway history' shows what was live.",
    )


def refuse_lost(project: Project, plan: Plan) -> None:
    """Raise NotFoundError, before anything is claimed, where what must be sent is in the store no more."""
    files = {task.step.file: task.target for task in plan.tasks if isinstance(task.step, Send | Patch)}
    lost = {file.path: target for file, target in files.items() if not project.store.has(file.digest)}
    if lost:
        raise NotFoundError(
            f"{', '.join(sorted(set(lost.values())))}: what a rollback would restore is gone.",
            why=f"It is not whole at the destination, and the store has lost {listed(sorted(lost))}.",
            remedy="'shipway history' shows what else was live: --to-version V. Or register the model again.",
        )

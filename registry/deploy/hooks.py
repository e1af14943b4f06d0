"""Commands of the user's around a promotion or a rollback (``hooks`` in ``deploy.yaml``).

Rules:

1. ``before_promote`` runs once everything is decided and nothing is claimed. Unless it exits with 0 the
   command ends there, having touched nothing.
2. ``after_promote`` and ``after_rollback`` run once all of it is live and recorded. One that fails is noted;
   the deployment stays.
3. Nothing holds up a rollback: there is no hook before it.
4. Where a command changes nothing, and in a dry run, no hook runs.

A hook runs in the folder of ``deploy.yaml`` and gets ``document`` as JSON on stdin.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from shipway.registry import process
from shipway.registry.config.model import HooksConfig
from shipway.registry.config.project import Project
from shipway.registry.deploy.execute import Deployment
from shipway.registry.deploy.plan import Move, Plan
from shipway.registry.errors import DeliveryError
from shipway.registry.ledger import owner
from shipway.registry.nouns import Json
from shipway.registry.observe import Observer


def before(project: Project, plan: Plan, observer: Observer) -> None:
    """Run ``before_promote`` where there is one. Raises DeliveryError where it does not agree."""
    hooks = project.environment(plan.environment).hooks
    if plan.kind != "promote" or not plan.changes or not hooks.before_promote:
        return
    failure = _run("before_promote", hooks.before_promote, project, plan, (), observer)
    if failure is not None:
        failure.remedy = "Nothing was changed. It is 'hooks.before_promote' in deploy.yaml; see what it says."
        raise failure


def after(project: Project, plan: Plan, done: Sequence[Deployment], observer: Observer) -> None:
    """Run ``after_promote`` or ``after_rollback`` where there is one; note where it fails."""
    name = f"after_{plan.kind}"
    argv = getattr(project.environment(plan.environment).hooks, name)
    if not plan.changes or not argv:
        return
    failure = _run(name, argv, project, plan, done, observer)
    if failure is not None:
        observer.note(f"{failure.what} The deployment stays. {failure.why}")


def document(project: Project, name: str, plan: Plan, done: Sequence[Deployment]) -> Json:
    """What a hook gets on stdin; ``done`` are the deployments as they ended, none before they began."""
    ended = {deployment.target: deployment.to_json() for deployment in done}
    return {
        "schema": 1,
        "hook": name,
        "project": project.config.project,
        "environment": plan.environment,
        "kind": plan.kind,
        "actor": owner.actor(),
        "reason": plan.reason,
        "accept": plan.accept,
        "deployments": [{**_move(plan, move), **ended.get(move.target, {})} for move in plan.changes],
    }


def _move(plan: Plan, move: Move) -> Json:
    manifest = move.release.manifest
    return {
        "environment": plan.environment,
        "target": move.target,
        "serial": move.serial,
        "model": manifest.model,
        "version": manifest.version,
        "bundle": str(move.release.bundle),
        "release": move.release.id,
        "kind": manifest.kind,
        "precision": manifest.precision,
        "to": move.to,
        "restores": move.restores,
        "before": move.before.to_json() if move.before else None,
    }


def _run(
    name: str,
    argv: Sequence[str],
    project: Project,
    plan: Plan,
    done: Sequence[Deployment],
    observer: Observer,
) -> DeliveryError | None:
    """Run one hook to its end; why it failed, or None."""
    hooks: HooksConfig = project.environment(plan.environment).hooks
    told = json.dumps(document(project, name, plan, done)).encode()
    what = f"The hook {name} of {plan.environment} ({' '.join(argv)!r})"
    try:
        with observer.phase(f"{name} of {plan.environment}"):
            finished = process.run(argv, cwd=project.root, timeout=hooks.timeout_s, stdin=told)
    except OSError as error:
        return DeliveryError(f"{what} can't be started.", why=f"{error.strerror}: {error.filename}")
    said = finished.last_lines()
    if finished.timed_out:
        return DeliveryError(f"{what} did not end within {hooks.timeout_s:g} s.", why="\n".join(said))
    if finished.code != 0:
        return DeliveryError(f"{what} failed.", why="\n".join([*said, process.describe_exit(finished.code)]))
    return None

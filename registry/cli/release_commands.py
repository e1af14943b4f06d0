"""Commands about what is deployed: parse, call the verb of the same name, print."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from shipway.registry.cli.options import (
    Accept,
    Assets,
    Bisect,
    DryRun,
    Env,
    Inputs,
    Name,
    OneEnv,
    OneTarget,
    Reason,
    Ref,
    Samples,
    Source,
    Targets,
    To,
    Toolchain,
    Yes,
)
from shipway.registry.cli.session import Session
from shipway.registry.nouns import ModelRef


def ship(
    context: typer.Context,
    path: Source,
    name: Name,
    to: To,
    target: Targets = None,
    reason: Reason = "",
    inputs: Inputs = None,
    samples: Samples = None,
    assets: Assets = None,
    toolchain: Toolchain = None,
    bisect: Bisect = False,
    yes: Yes = False,
) -> None:
    """Register, then promote what came out."""
    from shipway.registry.cli import model_views, release_views
    from shipway.registry.verbs.ship import ship

    session = Session.of(context)
    with session.observing() as observer:
        done, outcome = ship(
            session.project,
            path,
            name,
            to,
            targets=target or (),
            reason=reason,
            inputs=inputs or (),
            samples=samples,
            assets=assets or (),
            toolchain=toolchain,
            bisect=bisect,
            observer=observer,
            confirm=session.asking(observer, yes=yes),
        )
    session.emit(
        lambda: {**release_views.outcome_json(outcome), "registered": model_views.registered_json(done)},
        lambda: [*model_views.registered(done), *release_views.outcome(outcome)],
    )


def plan(context: typer.Context, ref: Ref, to: To, target: Targets = None) -> None:
    """Say what promote would do.

    Steps, bytes to send, numbers, size and compatibility. Bundles are built into the store on the way.
    """
    from shipway.registry.cli import release_views
    from shipway.registry.verbs.plan import plan

    session = Session.of(context)
    with session.observing() as observer:
        outcome = plan(session.project, ModelRef.parse(ref), to, targets=target or (), observer=observer)
    session.emit(lambda: release_views.outcome_json(outcome), lambda: release_views.plan(outcome))


def promote(
    context: typer.Context,
    ref: Ref,
    to: To,
    target: Targets = None,
    reason: Reason = "",
    accept: Accept = None,
    dry_run: DryRun = False,
    yes: Yes = False,
) -> None:
    """Make a version live in an environment."""
    from shipway.registry.cli import release_views
    from shipway.registry.verbs.promote import promote

    session = Session.of(context)
    with session.observing() as observer:
        outcome = promote(
            session.project,
            ModelRef.parse(ref),
            to,
            targets=target or (),
            reason=reason,
            accept=accept,
            dry_run=dry_run,
            observer=observer,
            confirm=session.asking(observer, yes=yes),
        )
    session.emit(lambda: release_views.outcome_json(outcome), lambda: release_views.outcome(outcome))


def rollback(
    context: typer.Context,
    env: OneEnv,
    target: Targets = None,
    to_version: Annotated[int | None, typer.Option(metavar="V", help="Which one, if not the last.")] = None,
    reason: Reason = "",
    accept: Accept = None,
    dry_run: DryRun = False,
) -> None:
    """Make the last healthy release live again.

    The one before the current, by the ledger. Nothing is converted or built.
    """
    from shipway.registry.cli import release_views
    from shipway.registry.verbs.rollback import rollback

    session = Session.of(context)
    with session.observing() as observer:
        outcome = rollback(
            session.placed,
            env,
            targets=target or (),
            to_version=to_version,
            reason=reason,
            accept=accept,
            dry_run=dry_run,
            observer=observer,
        )
    session.emit(lambda: release_views.outcome_json(outcome), lambda: release_views.outcome(outcome))


def status(
    context: typer.Context,
    env: Env = None,
    deep: Annotated[
        bool, typer.Option("--deep", help="Read releases back, live and to roll back to, and check them.")
    ] = False,
) -> None:
    """Show what is live where, and how it is.

    Environment by target: version, age, health, skew and rollback readiness.
    """
    from shipway.registry.cli import release_views
    from shipway.registry.verbs.status import status

    session = Session.of(context)
    if deep:
        with session.observing() as observer, observer.phase("reading releases back"):
            found = status(session.placed, env, deep=True)
    else:
        found = status(session.placed, env)
    session.emit(
        lambda: release_views.status_json(found),
        lambda: release_views.status(found, grid=sys.stdout.isatty()),
    )


def history(
    context: typer.Context,
    env: Env = None,
    target: OneTarget = None,
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="How many, newest first.")] = 50,
) -> None:
    """Show the ledger, newest first."""
    from shipway.registry.cli import release_views
    from shipway.registry.verbs.history import history

    session = Session.of(context)
    events = history(session.placed, env, target, limit)
    session.emit(
        lambda: {"events": [event.to_json() for event in events]}, lambda: release_views.history(events)
    )


def mirror(context: typer.Context) -> None:
    """Bring MLflow's aliases in step, now."""
    from shipway.registry.cli import release_views
    from shipway.registry.deploy.mirror import mirror_now

    session = Session.of(context)
    found = mirror_now(session.placed)
    session.emit(
        lambda: {"aliases": {alias: f"{v[0]}/{v[1]}" if v else None for alias, v in found.items()}},
        lambda: release_views.aliases(found),
    )

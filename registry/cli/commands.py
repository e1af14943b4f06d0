"""The commands: each parses, calls the verb of its name, and prints. Verbs are imported when they are called."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from shipway.registry.cli.session import Session
from shipway.registry.nouns import Json, ModelRef

app = typer.Typer(
    name="shipway",
    help="From a trained PaddlePaddle model to servers, Jetson boards, phones and browsers: register, promote, "
    "roll back. Global options may stand after the command too.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Ref = Annotated[str, typer.Argument(metavar="REF", help="NAME/VERSION or NAME@ALIAS.")]
Source = Annotated[Path, typer.Argument(metavar="PATH", help="A Paddle or ONNX model, or the folder of one.")]
Name = Annotated[str, typer.Option("--name", help="Name of the registered model.")]
Inputs = Annotated[
    list[str] | None,
    typer.Option("--input", metavar="NAME:DTYPE:SHAPE", help="Fix or name an input's shape."),
]
Samples = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Inputs of yours (.npz, .npy) to measure on.")
]
Assets = Annotated[
    list[Path] | None, typer.Option("--asset", metavar="FILE", help="A file that travels into every bundle.")
]
Toolchain = Annotated[str | None, typer.Option(help="Convert with this one and no other.")]
To = Annotated[str, typer.Option("--to", metavar="ENV", help="Environment of deploy.yaml.")]
Env = Annotated[str | None, typer.Option("--env", metavar="ENV", help="Only this environment.")]
Targets = Annotated[
    list[str] | None, typer.Option("--target", "-t", metavar="T", help="Only this target; may be repeated.")
]
Reason = Annotated[str, typer.Option(help="Why; the ledger keeps it.")]
Accept = Annotated[
    str | None, typer.Option(metavar="REASON", help="Go past a failed gate; the ledger keeps why.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done and change nothing.")]


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"shipway {version('shipway')}")
        raise typer.Exit


@app.callback()
def _global(
    context: typer.Context,
    config: Annotated[Path, typer.Option("--config", "-c", help="The project's file.")] = Path("deploy.yaml"),
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON document on stdout, nothing else.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no notes.")] = False,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True)] = False,
) -> None:
    context.obj = Session(config, as_json, quiet)


@app.command()
def init(context: typer.Context, folder: Annotated[Path, typer.Argument(metavar="[DIR]")] = Path()) -> None:
    """Write a commented deploy.yaml to start from."""
    from shipway.registry.verbs.init import init

    session = Session.of(context)
    path = init(folder)
    remedy = "Next: shipway register PATH --name NAME"
    session.emit(lambda: {"path": str(path)}, lambda: [f"Wrote {path}.", remedy])


@app.command()
def register(
    context: typer.Context,
    path: Source,
    name: Name,
    inputs: Inputs = None,
    samples: Samples = None,
    assets: Assets = None,
    toolchain: Toolchain = None,
) -> None:
    """Turn a trained model into a verified model version."""
    from shipway.registry.cli import tables
    from shipway.registry.verbs.register import register

    session = Session.of(context)
    with session.observing() as observer:
        done = register(
            session.project,
            path,
            name,
            inputs=inputs or (),
            samples=samples,
            assets=assets or (),
            toolchain=toolchain,
            observer=observer,
        )
    session.emit(done.to_json, lambda: tables.registered(done))


@app.command()
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
) -> None:
    """Register, then promote what came out: from a trained model to live in one line."""
    from shipway.registry.cli import tables
    from shipway.registry.verbs.promote import promote
    from shipway.registry.verbs.register import register

    session = Session.of(context)
    session.project.placements(to, target or ())  # a wrong environment is told before minutes of conversion
    with session.observing() as observer:
        done = register(
            session.project,
            path,
            name,
            inputs=inputs or (),
            samples=samples,
            assets=assets or (),
            toolchain=toolchain,
            observer=observer,
        )
        outcome = promote(
            session.project, done.version.ref, to, targets=target or (), reason=reason, observer=observer
        )
    session.emit(
        lambda: {**outcome.to_json(), "registered": done.to_json()},
        lambda: [*tables.registered(done), *tables.outcome(outcome)],
    )


@app.command()
def versions(
    context: typer.Context,
    name: Annotated[str | None, typer.Argument(metavar="[NAME]")] = None,
    everywhere: Annotated[
        bool, typer.Option("--all", help="Ask MLflow too, for versions that the store has no record of.")
    ] = False,
) -> None:
    """List what is registered."""
    from shipway.registry.cli import tables
    from shipway.registry.verbs.versions import versions

    session = Session.of(context)
    found = versions(session.project, name, ask_mlflow=everywhere)
    session.emit(lambda: {"versions": [item.to_json() for item in found]}, lambda: tables.versions(found))


@app.command()
def show(context: typer.Context, ref: Ref) -> None:
    """Show one version whole: interface, links, variants, files."""
    from shipway.registry.cli import tables
    from shipway.registry.verbs.versions import show

    session = Session.of(context)
    version, live = show(session.project, ModelRef.parse(ref))
    session.emit(lambda: {**version.to_json(), "live": list(live)}, lambda: tables.shown(version, live))


@app.command()
def diff(context: typer.Context, left: Ref, right: Ref) -> None:
    """Compare two versions: digests, operators, sizes, numbers, latency."""
    from shipway.registry.cli import tables
    from shipway.registry.verbs.versions import diff

    session = Session.of(context)
    found = diff(session.project, ModelRef.parse(left), ModelRef.parse(right))
    session.emit(found.to_json, lambda: tables.difference(found))


@app.command()
def bundle(
    context: typer.Context,
    ref: Ref,
    target: Annotated[str, typer.Option("--target", "-t", metavar="T", help="Target of deploy.yaml.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder to write, which must not be there yet.")],
) -> None:
    """Build one bundle locally, to look at or to run."""
    from shipway.registry.cli import tables
    from shipway.registry.verbs.bundle import build_bundle, export
    from shipway.registry.verbs.resolve import resolve

    session = Session.of(context)
    with session.observing() as observer:
        version = resolve(session.project, ModelRef.parse(ref))
        manifest = build_bundle(session.project, version, target, observer)
        export(session.project.store, manifest, out)
    session.emit(lambda: tables.bundle_json(manifest, out), lambda: tables.bundle(manifest, out))


@app.command()
def plan(context: typer.Context, ref: Ref, to: To, target: Targets = None) -> None:
    """Say what promote would do."""
    promote(context, ref, to, target, dry_run=True)


@app.command()
def promote(
    context: typer.Context,
    ref: Ref,
    to: To,
    target: Targets = None,
    reason: Reason = "",
    accept: Accept = None,
    dry_run: DryRun = False,
) -> None:
    """Make a version live in an environment."""
    from shipway.registry.cli import tables
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
        )
    session.emit(
        lambda: {**outcome.to_json(), **({"plan": outcome.plan.to_json()} if dry_run else {})},
        lambda: tables.plan(outcome.plan) if dry_run else tables.outcome(outcome),
    )


@app.command()
def rollback(
    context: typer.Context,
    env: Annotated[str, typer.Option("--env", metavar="ENV", help="Environment of deploy.yaml.")],
    target: Targets = None,
    to_version: Annotated[int | None, typer.Option(metavar="V", help="Which one, if not the last.")] = None,
    reason: Reason = "",
    dry_run: DryRun = False,
) -> None:
    """Make the last healthy release before the current one live again."""
    from shipway.registry.cli import tables
    from shipway.registry.verbs.rollback import rollback

    session = Session.of(context)
    with session.observing() as observer:
        outcome = rollback(
            session.project,
            env,
            targets=target or (),
            to_version=to_version,
            reason=reason,
            dry_run=dry_run,
            observer=observer,
        )
    session.emit(
        lambda: {**outcome.to_json(), **({"plan": outcome.plan.to_json()} if dry_run else {})},
        lambda: tables.plan(outcome.plan) if dry_run else tables.outcome(outcome),
    )


@app.command()
def status(context: typer.Context, env: Env = None) -> None:
    """Environment by target: version, age, health, skew, rollback readiness."""
    from shipway.registry.cli import tables
    from shipway.registry.verbs.status import status

    session = Session.of(context)
    found = status(session.project, env)
    session.emit(lambda: tables.status_json(found), lambda: tables.status(found))


@app.command()
def history(
    context: typer.Context,
    env: Env = None,
    target: Annotated[
        str | None, typer.Option("--target", "-t", metavar="T", help="Only this target.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many, newest first.")] = 50,
) -> None:
    """Show the ledger, newest first."""
    from shipway.registry.cli import tables
    from shipway.registry.verbs.history import history

    session = Session.of(context)
    events = history(session.project, env, target, limit)
    session.emit(lambda: {"events": [event.to_json() for event in events]}, lambda: tables.history(events))


@app.command()
def mirror(context: typer.Context) -> None:
    """Bring MLflow's aliases in step with the ledger, now."""
    from shipway.registry.cli import tables
    from shipway.registry.deploy.mirror import mirror_now

    session = Session.of(context)
    found = mirror_now(session.project)
    session.emit(
        lambda: {"aliases": {alias: f"{v[0]}/{v[1]}" if v else None for alias, v in found.items()}},
        lambda: tables.aliases(found),
    )


@app.command()
def verify(
    context: typer.Context,
    subject: Annotated[str, typer.Argument(metavar="DIR_OR_REF", help="A bundle's folder or a version.")],
) -> None:
    """Check digests and numbers of a bundle or a version again."""

    session = Session.of(context)


@app.command()
def inspect(context: typer.Context, ref: Ref, precision: Annotated[str, typer.Option()] = "fp32") -> None:
    """Open the graph in Netron."""
    import sys

    from shipway.registry.errors import UsageError
    from shipway.registry.verbs.inspect import inspect

    session = Session.of(context)
    if session.json or not sys.stdout.isatty():
        raise UsageError("inspect opens a page to look at.", remedy="Run it on a terminal, without --json.")
    inspect(session.project, ModelRef.parse(ref), precision)


@app.command()
def doctor(context: typer.Context) -> None:
    """Look at tools, toolchains, store and registry: what works, what is missing, how to get it."""
    from shipway.registry.cli import tables
    from shipway.registry.errors import ShipwayError
    from shipway.registry.verbs.doctor import doctor

    session = Session.of(context)
    try:
        findings = doctor(session.project)
    except ShipwayError as error:
        findings = doctor(None, error)
    document: Json = {"findings": [finding.to_json() for finding in findings]}
    session.emit(lambda: document, lambda: tables.findings(findings))


@app.command()
def schema(context: typer.Context) -> None:
    """Print the JSON Schema of deploy.yaml, for editors."""
    from shipway.registry.cli.output import print_json
    from shipway.registry.config.schema import schema

    print_json(schema())

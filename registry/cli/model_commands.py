"""Commands about models and the project: parse, call the verb of the same name, print."""

from __future__ import annotations

import contextlib
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from shipway.registry.cli import complete
from shipway.registry.cli.options import (
    Assets,
    Bisect,
    Inputs,
    Name,
    Out,
    Ref,
    Samples,
    Source,
    Target,
    Toolchain,
)
from shipway.registry.cli.session import Session
from shipway.registry.nouns import Json, ModelRef


def init(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where to write it.")] = Path(),
) -> None:
    """Write a commented deploy.yaml to start from."""
    from shipway.registry.verbs.init import init

    session = Session.of(context)
    path = init(folder)
    there = "" if folder.resolve() == Path.cwd() else f"cd {shlex.quote(str(folder))}, then "
    remedy = f"Next: {there}shipway register PATH --name NAME"
    session.emit(lambda: {"path": str(path)}, lambda: [f"Wrote {path}.", remedy])


def register(
    context: typer.Context,
    path: Source,
    name: Name,
    inputs: Inputs = None,
    samples: Samples = None,
    assets: Assets = None,
    toolchain: Toolchain = None,
    bisect: Bisect = False,
) -> None:
    """Turn a trained model into a verified version."""
    from shipway.registry.cli import model_views
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
            bisect=bisect,
            observer=observer,
        )
    session.emit(lambda: model_views.registered_json(done), lambda: model_views.registered(done))


def versions(
    context: typer.Context,
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help="Only those of this model.", autocompletion=complete.models),
    ] = None,
    everywhere: Annotated[
        bool, typer.Option("--all", help="Ask MLflow too, for versions that the store has no record of.")
    ] = False,
) -> None:
    """List what is registered."""
    from shipway.registry.cli import model_views
    from shipway.registry.verbs.versions import versions

    session = Session.of(context)
    found = versions(session.placed, name, ask_mlflow=everywhere)
    session.emit(
        lambda: {"versions": [item.to_json() for item in found]}, lambda: model_views.versions(found)
    )


def show(
    context: typer.Context,
    ref: Ref,
    report: Annotated[
        Path | None,
        typer.Option("--report", metavar="FILE", help="Write it as a page, too: an HTML file."),
    ] = None,
) -> None:
    """Show one version whole."""
    from shipway.registry.cli import model_views
    from shipway.registry.verbs.report import write_report
    from shipway.registry.verbs.versions import show

    session = Session.of(context)
    version, live = show(session.placed, ModelRef.parse(ref))
    if report is not None:
        write_report(version, report)
    session.emit(
        lambda: {**version.to_json(), "live": list(live)},
        lambda: [*model_views.shown(version, live), *([f"Wrote {report}."] if report is not None else [])],
    )


def diff(context: typer.Context, left: Ref, right: Ref) -> None:
    """Compare two versions.

    Digests, interface, operators, sizes, numbers and latency, as far as they were measured.
    """
    from shipway.registry.cli import model_views
    from shipway.registry.verbs.versions import diff

    session = Session.of(context)
    found = diff(session.placed, ModelRef.parse(left), ModelRef.parse(right))
    session.emit(found.to_json, lambda: model_views.difference(found))


def bundle(context: typer.Context, ref: Ref, target: Target, out: Out) -> None:
    """Build one bundle locally, to look at or to run."""
    from shipway.registry.cli import model_views
    from shipway.registry.verbs.bundle import bundle

    session = Session.of(context)
    with session.observing() as observer:
        manifest = bundle(session.project, ModelRef.parse(ref), target, out, observer)
    session.emit(lambda: model_views.bundle_json(manifest, out), lambda: model_views.bundle(manifest, out))


def verify(
    context: typer.Context,
    dir_or_ref: Annotated[str, typer.Argument(metavar="DIR_OR_REF", help="A bundle's folder or a version.")],
    digests_only: Annotated[
        bool, typer.Option("--digests-only", help="Leave the numbers alone: runs nothing.")
    ] = False,
    digest: Annotated[
        str | None,
        typer.Option("--digest", metavar="DIGEST", help="The bundle that it must be: sha256:..."),
    ] = None,
) -> None:
    """Check a bundle or a version again.

    Digests of all files, and the numbers on the golden inputs.
    """
    from shipway.registry.cli import model_views
    from shipway.registry.errors import ConfigError, UsageError
    from shipway.registry.nouns import Digest
    from shipway.registry.verbs.verify import is_bundle, verify_bundle, verify_version

    session = Session.of(context)
    run = not digests_only
    try:
        wanted = Digest.parse(digest) if digest is not None else None
    except ValueError as error:
        raise UsageError(f"{digest!r} is no digest.", remedy="Write sha256: and 64 digits.") from error
    with session.observing() as observer:
        if is_bundle(dir_or_ref):
            store = None
            with contextlib.suppress(ConfigError, UsageError):  # a bundle can be checked without a project
                store = session.placed.store
            folder = Path(dir_or_ref)
            done = verify_bundle(folder, digest=wanted, store=store, run=run, observer=observer)
        elif wanted is not None:
            raise UsageError("--digest is a bundle's.", remedy="Give it with the bundle's folder.")
        else:
            version = ModelRef.parse(dir_or_ref)
            if version.version is None and version.alias is None:
                raise UsageError(
                    f"{dir_or_ref!r} is neither a folder here nor a version.",
                    remedy="Give the folder that holds bundle.json, or a version as NAME/VERSION.",
                )
            done = verify_version(session.placed, version, run=run, observer=observer)
    session.emit(done.to_json, lambda: model_views.verified(done))


def inspect(
    context: typer.Context,
    ref: Ref,
    precision: Annotated[str, typer.Option(metavar="P", help="fp32, fp16 or int8.")] = "fp32",
) -> None:
    """Open the graph in Netron."""
    from shipway.registry.errors import UsageError
    from shipway.registry.verbs.inspect import inspect

    session = Session.of(context)
    if session.json or not sys.stdout.isatty():
        raise UsageError("inspect opens a page to look at.", remedy="Run it on a terminal, without --json.")
    inspect(session.placed, ModelRef.parse(ref), precision)


def doctor(
    context: typer.Context,
    prepare: Annotated[
        bool, typer.Option("--prepare", help="Fetch now what a register may need later, for offline use.")
    ] = False,
) -> None:
    """Say what works, what is missing, how to get it."""
    from shipway.registry.cli import model_views
    from shipway.registry.errors import ShipwayError
    from shipway.registry.verbs.doctor import doctor

    session = Session.of(context)
    try:
        findings = doctor(session.project, prepare=prepare)
    except ShipwayError as error:
        findings = doctor(None, error, prepare=prepare)
    document: Json = {"findings": [finding.to_json() for finding in findings]}
    session.emit(lambda: document, lambda: model_views.findings(findings, grid=sys.stdout.isatty()))


def schema(context: typer.Context) -> None:
    """Print the JSON Schema of deploy.yaml, for editors."""
    from shipway.registry.cli.output import print_json
    from shipway.registry.config.schema import schema

    print_json(schema())

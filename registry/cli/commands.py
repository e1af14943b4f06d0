"""The typer app: global options, and the commands in the order of ``--help``.

A command imports its verb when it is called, so that none waits for what another one needs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from shipway.registry.cli import model_commands, release_commands
from shipway.registry.cli.session import Session

app = typer.Typer(
    name="shipway",
    help="From a trained PaddlePaddle model to servers, Jetson boards, phones and browsers: register, "
    "promote, roll back. Global options may stand after the command too.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"shipway {version('shipway')}")
        raise typer.Exit


@app.callback()
def _global(
    context: typer.Context,
    config: Annotated[
        Path, typer.Option("--config", "-c", metavar="FILE", help="The project's file.")
    ] = Path("deploy.yaml"),
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON document on stdout, nothing else.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no notes.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say which shipway this is.")
    ] = False,
) -> None:
    context.obj = Session(config, as_json, quiet)


for _command in (
    model_commands.init,
    model_commands.register,
    release_commands.ship,
    model_commands.versions,
    model_commands.show,
    model_commands.diff,
    model_commands.bundle,
    release_commands.plan,
    release_commands.promote,
    release_commands.rollback,
    release_commands.status,
    release_commands.history,
    release_commands.mirror,
    model_commands.verify,
    model_commands.inspect,
    model_commands.doctor,
    model_commands.schema,
):
    # The whole line, wrapped: typer cuts what it takes from a docstring where the terminal is narrow.
    app.command(short_help=(_command.__doc__ or "").partition("\n")[0])(_command)

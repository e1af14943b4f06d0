"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from shipway.registry.cli import complete

Ref = Annotated[
    str,
    typer.Argument(metavar="REF", help="NAME/VERSION or NAME@ALIAS.", autocompletion=complete.references),
]
Source = Annotated[Path, typer.Argument(metavar="PATH", help="A Paddle or ONNX model, or the folder of one.")]
Name = Annotated[
    str,
    typer.Option(
        "--name", metavar="NAME", help="Name of the registered model.", autocompletion=complete.models
    ),
]
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
Toolchain = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="Convert with this one and no other.", autocompletion=complete.toolchains
    ),
]
Bisect = Annotated[
    bool, typer.Option("--bisect", help="Where a link of the chain fails, name the first layer that differs.")
]
To = Annotated[
    str,
    typer.Option(
        "--to", metavar="ENV", help="Environment of deploy.yaml.", autocompletion=complete.environments
    ),
]
Env = Annotated[
    str | None,
    typer.Option("--env", metavar="ENV", help="Only this environment.", autocompletion=complete.environments),
]
Targets = Annotated[
    list[str] | None,
    typer.Option(
        "--target",
        "-t",
        metavar="T",
        help="Only this target; may be repeated.",
        autocompletion=complete.targets,
    ),
]
Reason = Annotated[str, typer.Option(metavar="TEXT", help="Why; the ledger keeps it.")]
Accept = Annotated[
    str | None, typer.Option(metavar="REASON", help="Go past a failed gate; the ledger keeps why.")
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Answer every question with yes.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done and change nothing.")]
Target = Annotated[
    str,
    typer.Option(
        "--target", "-t", metavar="T", help="Target of deploy.yaml.", autocompletion=complete.targets
    ),
]
Out = Annotated[Path, typer.Option(metavar="DIR", help="Folder to write; it must not be there yet.")]
OneEnv = Annotated[
    str,
    typer.Option(
        "--env", metavar="ENV", help="Environment of deploy.yaml.", autocompletion=complete.environments
    ),
]
OneTarget = Annotated[
    str | None,
    typer.Option("--target", "-t", metavar="T", help="Only this target.", autocompletion=complete.targets),
]

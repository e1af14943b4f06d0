"""``make demo``: register a real model twice, promote both to four targets, roll back, and look.

Everything happens in ``.demo/``, made anew each time. The commands are printed as a person would type them.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import models
from rich.console import Console
from rich.table import Table
from rich.text import Text

HERE = Path(__file__).resolve().parent
WORK = HERE.parent / ".demo"
SHIPWAY = Path(sys.executable).with_name("shipway")

console = Console(highlight=False)


def shipway(*arguments: str) -> None:
    """Run a command before the reader's eyes; stop the demo where it fails."""
    command = Text.assemble(("$ ", "bold green"), (shlex.join(["shipway", *arguments]), "bold"))
    console.print("", command, sep="\n", soft_wrap=True)
    sys.stdout.flush()
    started = time.monotonic()
    code = subprocess.run([SHIPWAY, *arguments], cwd=WORK).returncode
    console.print(f"[dim]({time.monotonic() - started:.1f} s)[/]")
    if code:
        sys.exit(f"shipway {arguments[0]} ended with exit {code}")


def live() -> dict[str, Any]:
    """What ``status --json`` says of the environment ``prod``, by target."""
    printed = subprocess.run([SHIPWAY, "status", "--json"], cwd=WORK, check=True, capture_output=True).stdout
    environment: dict[str, Any] = json.loads(printed)["environments"]["prod"]
    return environment


def main() -> None:
    source = models.fetch()
    recognition = source / models.NAMES["rec"]
    dictionary = source / models.DICTIONARY
    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir()
    shutil.copyfile(HERE / "deploy.yaml", WORK / "deploy.yaml")
    shutil.copytree(recognition, WORK / "training" / "rec")
    shutil.copyfile(dictionary, WORK / "training" / dictionary.name)
    models.tuned(recognition, WORK / "training" / "rec-tuned")
    asset = f"training/{dictionary.name}"
    started = time.monotonic()

    shipway("register", "training/rec", "--name", "ocr-rec", "--asset", asset)
    shipway("promote", "ocr-rec/1", "--to", "prod", "--reason", "first release")
    shipway("register", "training/rec-tuned", "--name", "ocr-rec", "--asset", asset)
    shipway("diff", "ocr-rec/1", "ocr-rec/2")
    shipway("plan", "ocr-rec/2", "--to", "prod")
    shipway("promote", "ocr-rec/2", "--to", "prod", "--reason", "tuned on new receipts")
    before = live()
    shipway("rollback", "--env", "prod", "--reason", "the tuned one misreads totals")
    after = live()
    shipway("mirror")
    shipway("status")
    shipway("history")

    table = Table(title="What the rollback changed", title_justify="left")
    for column in ("target", "live before", "live after", "serial", "can return to"):
        table.add_column(column)
    for target, now in after.items():
        was = before[target]
        back = now["rollback_to"]
        table.add_row(
            target,
            f"{was['model']}/{was['version']}",
            f"{now['model']}/{now['version']}",
            f"{was['serial']} -> {now['serial']}",
            str(back) if back else "-",
        )
    console.print()
    console.print(table)
    wrong = [t for t in after if (before[t]["version"], after[t]["version"]) != (2, 1)]
    if wrong or len(after) != 4:
        sys.exit(f"the rollback did not bring version 1 back on: {', '.join(wrong) or 'all four targets'}")
    work, program = os.path.relpath(WORK), os.path.relpath(SHIPWAY, WORK)
    console.print(f"Done in {time.monotonic() - started:.0f} s. The project is in {work}. Look around:")
    command = f"cd {shlex.quote(work)} && {shlex.quote(program)} show ocr-rec/1"
    console.print(f"  {command}", soft_wrap=True, markup=False)


if __name__ == "__main__":
    main()

"""``make bench``: every figure that shipway promises, against its baseline, in one run.

    python benchmarks/run.py [--only WORD] [--json FILE] [--markdown FILE]

What is run against what is told in ``rows.py`` and ``remote.py``; figures hold for one run on one machine.
Each row stands for itself: one that fails is told at the end and costs no other row its figures. The JSON
file is written anew after each.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import figures
from measure import Result, compare
from remote import REMOTE
from rich.console import Console
from rich.table import Table
from rows import LOCAL

BEGIN, END = "<!-- figures: written by benchmarks/run.py -->", "<!-- end of figures -->"


def results(work: Path, only: str) -> Iterator[Result]:
    for group in (*LOCAL, *REMOTE):
        if not any(only in name for name in group.names):
            continue
        folder = work / group.make.__name__
        folder.mkdir()
        try:
            for contest in group.make(folder):
                if any(only in subject.name for subject in contest.subjects):
                    print(f"measuring: {', '.join(s.name for s in contest.subjects)}", file=sys.stderr)
                    yield from compare(contest)
        except Exception as error:  # what the group needs could not be made: others have their rows
            name = f"all of {group.make.__name__}"
            yield Result(name, "", 0, "", problem=f"{type(error).__name__}: {error}")
        finally:
            shutil.rmtree(folder, ignore_errors=True)  # some of them are gigabytes


def cells(result: Result) -> list[str]:
    """A line of the table, for people."""
    if not result.subject:
        return [result.name, result.against, "", "", "", "", f"{result.limit:g}", result.verdict]
    ratios = result.ratios
    return [
        result.name,
        result.against,
        f"{statistics.median(result.subject):.3g} {result.unit}",
        f"{statistics.median(result.baseline):.3g} {result.unit}",
        f"{result.ratio:.3f}",
        f"{min(ratios):.3f} to {max(ratios):.3f}",
        f"{result.limit:g}",
        result.verdict,
    ]


COLUMNS = ("what", "against", "ours", "baseline", "ratio", "spread", "at most", "verdict")
COLOURS = {"met": "green", "missed": "red", "failed": "red"}


def table(measured: list[Result]) -> Table:
    view = Table(title="medians of interleaved runs; ratio pair by pair")
    for column in COLUMNS:
        view.add_column(column, justify="left" if column in ("what", "against", "verdict") else "right")
    for result in measured:
        *values, verdict = cells(result)
        view.add_row(*values, f"[{COLOURS[verdict]}]{verdict}[/]")
    return view


def markdown(measured: list[Result], seconds: float) -> str:
    """The figures as a document shows them, between ``BEGIN`` and ``END``."""
    lines = figures.table(COLUMNS, [cells(result) for result in measured])
    return "\n".join([BEGIN, "", figures.measured(seconds), "", *lines, "", END])


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="", help="rows whose name holds this word")
    parser.add_argument("--json", type=Path, default=Path("build/bench.json"), help="where the figures go")
    parser.add_argument("--markdown", type=Path, help="a document whose table of figures is to be replaced")
    arguments = parser.parse_args()
    os.environ.pop("SHIPWAY_MIRROR", None)  # as users have it: aliases follow in a process of their own
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    measured: list[Result] = []
    with tempfile.TemporaryDirectory(prefix="shipway-bench-") as name:
        for result in results(Path(name), arguments.only):
            measured.append(result)
            rows = [one.to_json() for one in measured]
            document = {
                "machine": figures.machine(),
                "seconds": round(time.monotonic() - began),
                "rows": rows,
            }
            arguments.json.write_text(json.dumps(document, indent=2) + "\n")
            print("  " + "  ".join(cells(result)), file=sys.stderr)
    seconds = time.monotonic() - began
    Console(width=150).print(table(measured))
    if arguments.markdown is not None:
        figures.insert(arguments.markdown, markdown(measured, seconds))
    for result in measured:
        if result.problem:
            print(f"{result.name}: {result.problem}")
    short = [result.name for result in measured if not result.met]
    told = f"; not: {', '.join(short)}" if short else ""
    print(f"{len(measured) - len(short)} of {len(measured)} met{told}. It took {seconds / 60:.1f} minutes.")
    return 1 if any(result.problem for result in measured) else 0


if __name__ == "__main__":
    sys.exit(main())

"""``make bench``: every figure that shipway promises, against its baseline, in one run.

    python benchmarks/run.py [--only WORD] [--json FILE]

What each row runs and against what is told in ``rows.py``; the figures hold for one run on one machine.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from measure import Result, compare
from rich.console import Console
from rich.table import Table
from rows import rows


def results(work: Path, only: str) -> Iterator[Result]:
    for row in rows(work):
        if only in row.name:
            print(f"measuring: {row.name}", file=sys.stderr)
            yield compare(row)


def table(measured: list[Result]) -> Table:
    view = Table(title="medians of interleaved runs; ratio pair by pair")
    for column in ("what", "against", "ours", "baseline", "ratio", "spread", "at most", "verdict"):
        view.add_column(column, justify="left" if column in ("what", "against", "verdict") else "right")
    for result in measured:
        ratios = result.ratios
        view.add_row(
            result.name,
            result.against,
            f"{statistics.median(result.subject):.3g} {result.unit}",
            f"{statistics.median(result.baseline):.3g} {result.unit}",
            f"{result.ratio:.3f}",
            f"{min(ratios):.3f} to {max(ratios):.3f}",
            f"{result.limit:g}",
            "[green]met[/]" if result.met else "[red]missed[/]",
        )
    return view


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="", help="rows whose name holds this word")
    parser.add_argument(
        "--json", type=Path, default=Path("build/bench.json"), help="where to write the figures"
    )
    arguments = parser.parse_args()
    os.environ["SHIPWAY_MIRROR"] = "off"  # the aliases are verified by rows that ask for them
    with tempfile.TemporaryDirectory(prefix="shipway-bench-") as name:
        measured = list(results(Path(name), arguments.only))
    Console(width=150).print(table(measured))
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps([result.to_json() for result in measured], indent=2) + "\n")
    missed = [result.name for result in measured if not result.met]
    print(
        f"{len(measured) - len(missed)} of {len(measured)} met"
        + (f"; missed: {', '.join(missed)}" if missed else "")
    )


if __name__ == "__main__":
    main()

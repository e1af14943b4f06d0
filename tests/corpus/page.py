"""The corpus' table on a terminal and as a page of the reference."""

from __future__ import annotations

import datetime
import os
import platform
import textwrap
from collections import Counter
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from environments import OTHERS
from rich.console import Console
from rich.table import Table
from verdicts import Row, Verdict

COLUMNS = (
    *("model", "saved by", "plain paddle2onnx", "shipway", "toolchain", "repairs", "max abs", "scale"),
    "without samples",
)
_HOW = """
*Plain paddle2onnx* is what `pip install paddlepaddle paddle2onnx` gives today (3.3.1 and 2.1.0), run by the
command line of its documentation (its optimiser off: with it, it installs packages while it converts).
*shipway* is `shipway register`. One judge holds both against Paddle Inference of the version that saved the
model, on three sets of inputs: `ok` is max_abs <= 1e-5 + 1e-5 * scale on every output. `max abs` and
`scale` are those of the output that is furthest out. An output that hardly varies is named as flat; a model
of which all are is not ok. A model that one Paddle can't save (`scaled_dot_product_attention` on a CPU by
2.6.2, a quantised one by 3.3.1) is left out there. What plain paddle2onnx makes of `pad-modes` and `norms`
changes from run to run: `norms`, saved by 3.3.1, was ok in one run of five on 2026-11-22. *Without samples*
(of models saved by 3.3.1) is what a plain `shipway register` on inputs of its own making ends with; elsewhere
the judge's inputs are its `--samples`.
"""
_SHORT = {"paddle-3.2.2+paddle2onnx-2.0.1": "3.2.2 + 2.0.1", "paddle2onnx-1.2.4": "1.2.4 alone"}


def cells(row: Row) -> list[str]:
    """One line of the table, as text; numbers are those of the link from Paddle to what runs."""
    worst = row.shipway.worst if row.shipway.ok else None
    shipway = row.shipway.cell
    if row.shipway.ok and row.shipway.flat:
        shipway += f" (flat: {', '.join(row.shipway.flat)})"
    return [
        row.model,
        row.saved_by,
        row.plain.cell,
        shipway,
        _SHORT.get(row.toolchain, row.toolchain),
        ", ".join(row.repairs),
        f"{worst['max_abs']:.1e}" if worst else "",
        f"{worst['scale']:.1e}" if worst else "",
        row.bare,
    ]


def totals(rows: Sequence[Row]) -> list[str]:
    """What each achieved, by the Paddle that saved the models."""
    lines = []
    for saver in dict.fromkeys(row.saved_by for row in rows):
        some = [row for row in rows if row.saved_by == saver]
        plain, ours = sum(row.plain.ok for row in some), sum(row.shipway.ok for row in some)
        many = len(some)
        line = f"Saved by Paddle {saver}: plain paddle2onnx {plain} of {many}, shipway {ours} of {many}"
        if some[0].public:
            line += f", the best of all public toolchains, model by model, {sum(map(_by_any, some))}"
        if any(row.bare for row in some):
            line += f"; shipway without samples {sum(row.bare == 'ok' for row in some)}"
        lines.append(f"{line}.")
    return lines


def _by_any(row: Row) -> bool:
    return row.plain.ok or any(verdict.ok for verdict in row.public.values())


def show(rows: Sequence[Row]) -> None:
    """Print the table, the totals and what failed."""
    table = Table(title="the corpus")
    for column in COLUMNS:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*cells(row))
    console = Console(width=None if os.isatty(1) else 190)
    console.print(table)
    for line in totals(rows):
        console.print(line)
    for row in rows:
        if not row.shipway.ok:
            console.print(
                f"{row.model} ({row.saved_by}): {row.shipway.word}: {row.shipway.why}", markup=False
            )


def machine() -> str:
    """The kind of machine that measured."""
    release = (
        platform.freedesktop_os_release().get("PRETTY_NAME", "") if Path("/etc/os-release").exists() else ""
    )
    return f"{os.cpu_count()} cores, {platform.machine()}, {release or platform.system()}"


def versions() -> str:
    """What else the numbers depend on."""
    return ", ".join(f"{name} {metadata.version(name)}" for name in ("onnxruntime", "onnx", "onnxslim"))


def markdown(rows: Sequence[Row]) -> str:
    """The page: what was measured with what, the tables, the totals, and every failure in words."""
    date = datetime.datetime.now(datetime.timezone.utc)
    about = (
        f"What `make corpus` measured on {date:%Y-%m-%d}, with {versions()} and Python "
        f"{platform.python_version()}, on a machine with {machine()}. `tests/corpus` makes the models, with "
        "seeded weights, but for the three of PP-OCRv4, which are the real ones."
    )
    lines = ["# The corpus: which models convert", ""]
    for paragraph in (about, _HOW, *totals(rows)):
        lines += [textwrap.fill(paragraph.strip(), 116, break_on_hyphens=False), ""]
    for saver in dict.fromkeys(row.saved_by for row in rows):
        some = [row for row in rows if row.saved_by == saver]
        end = None if any(row.bare for row in some) else -1
        grid = _grid((COLUMNS[:1] + COLUMNS[2:])[:end], [_without_saver(row)[:end] for row in some])
        lines += [f"## Saved by Paddle {saver}", "", *grid, ""]
    if any(row.public for row in rows):
        lines += _public_section(rows)
    failed = [row for row in rows if not row.shipway.ok]
    lines += ["## What shipway does not convert", ""]
    lines += [
        f"- `{row.model}`, saved by {row.saved_by}: {row.shipway.word}. {_one_line(row.shipway)}"
        for row in failed
    ]
    lines += [] if failed else ["Nothing of the corpus."]
    return "\n".join(lines) + "\n"


def _without_saver(row: Row) -> list[str]:
    model, _, *rest = cells(row)
    return [model, *rest]


def _public_section(rows: Sequence[Row]) -> list[str]:
    """How many models each public toolchain converts, and those that only some do."""
    lines = ["## Other public toolchains", "", "Asked for opset 17, as shipway asks its own."]
    missed = [row for row in rows if row.missed_by_shipway]
    lines += [
        "None of them converts a model that shipway does not."
        if not missed
        else "They convert what shipway does not: "
        + ", ".join(f"{r.model} ({r.saved_by})" for r in missed)
        + ".",
        "",
    ]
    grid = []
    names = ["plain", *(public.name for public in OTHERS), "the best of these, model by model", "shipway"]
    counts: dict[str, Counter[str]] = {name: Counter() for name in names}
    tried: dict[str, Counter[str]] = {name: Counter() for name in names}
    for row in rows:
        verdicts = {"plain": row.plain, **row.public, "shipway": row.shipway}
        for name, verdict in verdicts.items():
            tried[name][row.saved_by] += 1
            counts[name][row.saved_by] += verdict.ok
        tried[names[-2]][row.saved_by] += 1
        counts[names[-2]][row.saved_by] += _by_any(row)
    savers = list(dict.fromkeys(row.saved_by for row in rows))
    for name in names:
        done = [
            f"{counts[name][s]} of {tried[name][s]}" if tried[name][s] else "does not read it" for s in savers
        ]
        grid.append([name, *done])
    return [*lines, *_grid(("toolchain", *(f"saved by {saver}" for saver in savers)), grid), ""]


def _grid(head: Sequence[str], lines: Sequence[Sequence[str]]) -> list[str]:
    rule = ["---"] * len(head)
    return [f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in (head, rule, *lines)]


def _one_line(verdict: Verdict) -> str:
    return " ".join(verdict.why.split())[:400]

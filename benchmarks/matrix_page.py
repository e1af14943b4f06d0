"""What ``make matrix`` found, as a table on a terminal and as a document's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import figures
from rich.table import Table

KINDS = ("server-tensorrt", "jetson-ort", "mobile-ort", "browser-wasm")
BEGIN, END = "<!-- figures: written by benchmarks/matrix.py -->", "<!-- end of figures -->"
SHARE, BYTES = 0.02, 200_000  # what a bundle may weigh over its floor: either


@dataclass(frozen=True)
class Cell:
    """One bundle, checked. Sizes in bytes, ``p50`` in milliseconds, ``max_rel`` over the output's scale.

    ``copies``: the size of the Brotli copies of model and runtime.
    ``problem``: why there are no figures. ``refused``: the precision failed its gate, so there is no bundle.
    """

    model: str
    kind: str
    precision: str
    passed: bool = False
    provider: str = ""
    max_abs: float | None = None
    max_rel: float | None = None
    p50: float = 0.0
    size: int = 0
    floor: int = 0
    copies: int = 0
    problem: str = ""
    refused: bool = False

    @property
    def overhead(self) -> int:
        """What is neither model nor runtime, nor a copy of them."""
        return self.size - self.floor - self.copies

    @property
    def light(self) -> bool:
        return self.overhead < max(SHARE * self.floor, BYTES)

    @property
    def verdict(self) -> str:
        if self.refused:
            return "refused"
        if self.problem:
            return "failed"
        return "wrong numbers" if not self.passed else "passed" if self.light else "too heavy"

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "overhead": self.overhead, "light": self.light, "verdict": self.verdict}


def bad(measured: Sequence[Cell]) -> list[Cell]:
    """What must not be: a precision that its gate refuses may be."""
    return [cell for cell in measured if cell.verdict not in ("passed", "refused")]


def told(cell: Cell) -> str:
    """One line for the log."""
    first = (cell.problem.splitlines() or [""])[-1]
    figures_of = f"{_error(cell)}, {_time(cell)} ms" if cell.provider else first[:200]
    return f"  {cell.model} {cell.kind} {cell.precision}: {cell.verdict} {figures_of}"


def table(measured: Sequence[Cell]) -> Table:
    view = Table(title="models by target kinds; sizes in kB")
    for column in ("model", "kind", "precision", "provider"):
        view.add_column(column)
    for column in ("max abs (of scale)", "p50 ms", "bundle", "floor", ".br copies", "the rest", "of floor"):
        view.add_column(column, justify="right")
    view.add_column("verdict")
    for cell in measured:
        view.add_row(
            *(cell.model, cell.kind, cell.precision, cell.provider),
            *(_error(cell), _time(cell)),
            *(f"{value / 1e3:,.1f}" for value in (cell.size, cell.floor, cell.copies, cell.overhead)),
            f"{cell.overhead / cell.floor:.1%}" if cell.floor else "",
            cell.verdict,
        )
    return view


def markdown(measured: Sequence[Cell], seconds: float, load: float) -> str:
    """Three tables of model by kind: errors, latency, sizes. ``load``: the machine's average at the start."""
    seen = f"{figures.measured(seconds)} Its load average was {load:.1f} when the run began."
    count = f"{len(measured) - len(bad(measured))} of {len(measured)} as they should be."
    lines = [BEGIN, "", f"{seen} {count}"]
    for title, say in (
        ("Largest error against Paddle, and over the output's scale", _error),
        ("Median latency of the golden input, ms", _time),
        ("Size of the bundle without Brotli copies, kB, and what of it is over the floor", _weight),
        ("Size of the Brotli copies, kB", _copies),
    ):
        lines += ["", f"## {title}", "", *_by_kind(measured, say)]
    return "\n".join([*lines, "", END])


def _by_kind(measured: Sequence[Cell], say: Callable[[Cell], str]) -> list[str]:
    found = {(cell.model, cell.precision, cell.kind): cell for cell in measured}
    rows = []
    for model, precision in dict.fromkeys((cell.model, cell.precision) for cell in measured):
        cells = [found.get((model, precision, kind)) for kind in KINDS]
        texts = [
            "not measured" if one is None else say(one) if one.provider else one.verdict for one in cells
        ]
        rows.append([model, precision, *texts])
    return figures.table(["model", "precision", *KINDS], rows)


def _error(cell: Cell) -> str:
    known = (f"{value:.1e}" if value is not None else "none" for value in (cell.max_abs, cell.max_rel))
    return "{} ({})".format(*known)


def _time(cell: Cell) -> str:
    return f"{cell.p50:.2f}" if cell.p50 < 10 else f"{cell.p50:.1f}"


def _weight(cell: Cell) -> str:
    return f"{(cell.size - cell.copies) / 1e3:,.0f} (+{cell.overhead / 1e3:,.0f})"


def _copies(cell: Cell) -> str:
    return f"{cell.copies / 1e3:,.0f}" if cell.copies else "none"

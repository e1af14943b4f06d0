"""What goes to a person's eyes: tables and lines, plain where nobody looks at a terminal.

rich is imported only where a table is drawn on a terminal. Text from outside (reasons, names) is made
harmless first: a control character in it is shown as an escape, never sent to the terminal.
"""

from __future__ import annotations

import json
import os
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TextIO

from shipway.registry.nouns import Json


@dataclass(frozen=True, slots=True)
class Cell:
    """A table's cell, with one of rich's style names for terminals. May hold several lines."""

    text: str
    style: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under column names; a plain string stands for a cell without style."""

    columns: tuple[str, ...]
    rows: Sequence[Sequence[str | Cell]]
    title: str = ""


Block = str | Cell | Table
"""A line or a table."""


def harmless(text: str, *, lines: bool = False) -> str:
    """``text`` without control characters; ``lines`` keeps line ends."""
    return "".join(
        c if c.isprintable() or (lines and c == "\n") else c.encode("unicode_escape").decode() for c in text
    )


def width(text: str) -> int:
    """Columns that ``text`` takes on a terminal: a wide character two (Unicode TR 11), a mark none."""
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text
    )


def colours(stream: TextIO) -> bool:
    """Whether ``stream`` is a terminal that wants colours (https://no-color.org)."""
    return stream.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"


def print_json(document: Json) -> None:
    """The one document on stdout, keys in the order given."""
    utf8 = (sys.stdout.encoding or "").lower().startswith("utf")
    sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=not utf8) + "\n")
    sys.stdout.flush()


def print_blocks(blocks: Iterable[Block], stream: TextIO | None = None) -> None:
    """Lines and tables to ``stream`` (stdout): drawn on a terminal, plain elsewhere."""
    stream = stream or sys.stdout
    for block in blocks:
        if stream.isatty():
            _draw(block, stream)
        else:
            stream.write(_plain(block))
    stream.flush()


def _cell(value: str | Cell) -> Cell:
    return value if isinstance(value, Cell) else Cell(value)


def _plain(block: Block) -> str:
    if not isinstance(block, Table):
        return harmless(_cell(block).text, lines=True) + "\n"
    rows = [[harmless(_cell(value).text) for value in row] for row in block.rows]
    rows.insert(0, [harmless(column) for column in block.columns])
    widths = [max(width(row[index]) for row in rows) for index in range(len(block.columns))]
    lines = [
        "  ".join(text + " " * (wide - width(text)) for text, wide in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    return "\n".join([block.title] * bool(block.title) + lines) + "\n"


def _draw(block: Block, stream: TextIO) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    console = Console(file=stream, highlight=False)
    if not isinstance(block, Table):
        cell = _cell(block)
        console.print(Text(harmless(cell.text, lines=True), style=cell.style))
        return
    drawn = RichTable(
        title=block.title or None,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    for column in block.columns:
        drawn.add_column(column, overflow="fold")
    for row in block.rows:
        drawn.add_row(*(Text(harmless(c.text, lines=True), style=c.style) for c in map(_cell, row)))
    console.print(drawn)

"""What goes to a person's eyes: tables and lines, plain where nobody looks at a terminal.

rich is imported only where a table is drawn on a terminal. Text from outside (reasons, names) is made
harmless first: a control character in it is shown as an escape, never sent to the terminal.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, TextIO

from shipway.registry.cli.layout import GAP, Cell, Table, cell, fit, width, widths
from shipway.registry.nouns import Json

if TYPE_CHECKING:
    from rich.console import Console

Block = str | Cell | Table
"""A line or a table."""


class UnwrittenError(Exception):
    """stdout does not take the result: its disk is full, say."""


def harmless(text: str, *, lines: bool = False) -> str:
    """``text`` without control characters; ``lines`` keeps line ends."""
    return "".join(
        c if c.isprintable() or (lines and c == "\n") else c.encode("unicode_escape").decode() for c in text
    )


def colours(stream: TextIO) -> bool:
    """Whether ``stream`` is a terminal that wants colours (https://no-color.org)."""
    return stream.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"


def print_json(document: Json) -> None:
    """The one document on stdout, keys in the order given. Raises UnwrittenError."""
    utf8 = (sys.stdout.encoding or "").lower().startswith("utf")
    with _told():
        sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=not utf8) + "\n")
        sys.stdout.flush()


def print_blocks(blocks: Iterable[Block], stream: TextIO | None = None) -> None:
    """Lines and tables to ``stream`` (stdout): drawn on a terminal, plain elsewhere.

    Raises UnwrittenError.
    """
    stream = stream or sys.stdout
    for block in blocks:
        with _told():
            if stream.isatty():
                _draw(block, stream)
            else:
                stream.write(_plain(block))
    with _told():
        stream.flush()


@contextlib.contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:  # nobody is there who could miss anything
        raise
    except OSError as error:
        leave_stdout()
        raise UnwrittenError(error.strerror) from error


def leave_stdout() -> None:
    """Let what is still in its buffer go nowhere: Python would stumble over it once more at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _plain(block: Block) -> str:
    if not isinstance(block, Table):
        return harmless(cell(block).text, lines=True) + "\n"
    rows = [[harmless(cell(value).text) for value in row] for row in block.rows]
    rows.insert(0, [harmless(column) for column in block.columns])
    widths = [max(width(row[index]) for row in rows) for index in range(len(block.columns))]
    lines = [
        "  ".join(text + " " * (wide - width(text)) for text, wide in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    return "\n".join([block.title] * bool(block.title) + lines) + "\n"


def _draw(block: Block, stream: TextIO) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(file=stream, highlight=False)
    if not isinstance(block, Table):
        line = cell(block)
        for words in harmless(line.text, lines=True).split("\n"):
            console.print(Text(_wrapped(words, console.width), style=line.style), soft_wrap=True)
        return
    safe = replace(
        block,
        columns=tuple(map(harmless, block.columns)),
        rows=[[_harmless(cell(value)) for value in row] for row in block.rows],
    )
    console.print()
    if safe.title:
        console.print(Text(safe.title, style="bold"))
    fitting = fit(safe, console.width)
    if fitting is None:
        _draw_one_by_one(safe, console)
    else:
        _draw_table(fitting, console)


def _wrapped(line: str, room: int) -> str:
    """Indented where it goes on; a word is never cut, so that a digest or a path can be copied."""
    if width(line) <= room:
        return line
    indent = " " * (len(line) - len(line.lstrip()) + 2)
    return textwrap.fill(line, room, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def _harmless(one: Cell) -> Cell:
    return replace(one, text=harmless(one.text, lines=True), short=harmless(one.short, lines=True))


def _draw_table(table: Table, console: Console) -> None:
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    drawn = RichTable(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, GAP - 1, 0, 0))
    for column, least in zip(table.columns, widths(table), strict=True):
        drawn.add_column(column, overflow="fold", no_wrap=column not in table.wraps, min_width=least)
    for row in table.rows:
        drawn.add_row(*(Text(c.text, style=c.style) for c in map(cell, row)))
    console.print(drawn)


def _draw_one_by_one(table: Table, console: Console) -> None:
    """A heading and a line a column for every row: what is too wide for a table."""
    from rich.table import Table as RichTable
    from rich.text import Text

    for row in table.rows:
        first, *rest = map(cell, row)
        console.print(Text(first.text, style=first.style or "bold"))
        drawn = RichTable.grid(padding=(0, GAP, 0, 0))
        drawn.add_column(no_wrap=True)
        drawn.add_column(overflow="fold")
        for column, value in zip(table.columns[1:], rest, strict=True):
            if value.text:
                drawn.add_row(Text(f"  {column}", style="dim"), Text(value.text, style=value.style))
        console.print(drawn)

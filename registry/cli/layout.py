"""How a table fits a terminal: what gives way first, and what a row becomes when nothing more can. No I/O."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

GAP = 2  # columns between two cells


@dataclass(frozen=True, slots=True)
class Cell:
    """A table's cell, with one of rich's style names for terminals. May hold several lines.

    ``short`` says the same in fewer columns, for where there is little room.
    """

    text: str
    style: str = ""
    short: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under column names; a plain string stands for a cell without style.

    ``gives`` names what gives way on a narrow terminal, in this order: a column with short forms takes them,
    any other is left out (``--json`` has all of it). ``wraps`` are the columns of words that may take several
    lines, with the least width that still reads well; every other cell stays on its line.
    """

    columns: tuple[str, ...]
    rows: Sequence[Sequence[str | Cell]]
    title: str = ""
    gives: tuple[str, ...] = ()
    wraps: Mapping[str, int] = field(default_factory=dict)


def width(text: str) -> int:
    """Columns that ``text`` takes on a terminal: a wide character two (Unicode TR 11), a mark none."""
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text
    )


def cell(value: str | Cell) -> Cell:
    return value if isinstance(value, Cell) else Cell(value)


def fit(table: Table, room: int) -> Table | None:
    """``table`` with what must give way for ``room`` columns gone. None where that is not enough."""
    for name in table.gives:
        if least(table) <= room:
            break
        table = _give(table, table.columns.index(name))
    return table if least(table) <= room else None


def least(table: Table) -> int:
    """The fewest columns in which it reads well."""
    return sum(widths(table)) + GAP * (len(table.columns) - 1)


def widths(table: Table) -> list[int]:
    """The least width of each column: of its longest line, or what a column of words can do with."""
    found = []
    for index, name in enumerate(table.columns):
        lines = [line for row in table.rows for line in cell(row[index]).text.splitlines()]
        natural = max(map(width, [name, *lines]))
        found.append(min(natural, max(width(name), table.wraps.get(name, natural))))
    return found


def _give(table: Table, index: int) -> Table:
    cells = [[cell(value) for value in row] for row in table.rows]
    if any(row[index].short for row in cells):
        for row in cells:
            row[index] = replace(row[index], text=row[index].short or row[index].text)
        return replace(table, rows=cells)
    columns = table.columns[:index] + table.columns[index + 1 :]
    return replace(table, columns=columns, rows=[row[:index] + row[index + 1 :] for row in cells])

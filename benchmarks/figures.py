"""Figures in documents: what they were measured on, and how they replace the last ones."""

from __future__ import annotations

import datetime
import os
import platform
from collections.abc import Sequence
from pathlib import Path


def machine() -> str:
    with open("/proc/cpuinfo") as lines:  # noqa: PTH123
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return f"{os.cpu_count()} cores ({model}), {memory:.0f} GB, Python {platform.python_version()}"


def measured(seconds: float) -> str:
    """When, on what and how long."""
    when = datetime.datetime.now(datetime.timezone.utc).date()
    return f"Measured {when} on {machine()}, in {seconds / 60:.0f} minutes."


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table."""
    return [f"| {' | '.join(row)} |" for row in (columns, ["---"] * len(columns), *rows)]


def insert(path: Path, figures: str) -> None:
    """Put ``figures`` in the place of the last ones: between the lines that it begins and ends with.

    Raises ValueError where there is no place for them.
    """
    lines = figures.splitlines()
    begin, end = lines[0], lines[-1]
    before, found, rest = path.read_text(encoding="utf-8").partition(begin)
    _, ended, after = rest.partition(end)
    if not (found and ended):
        raise ValueError(f"{path} has no line {begin!r} with {end!r} after it")
    path.write_text(before + figures + after, encoding="utf-8")

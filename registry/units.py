"""Sizes and durations between people and programs. No I/O here."""

from __future__ import annotations

import math
import re

_UNITS = {
    "B": 1,
    "kB": 10**3,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}


def parse_size(value: object) -> int:
    """Bytes from ``20MB`` (decimal, as in SI), ``16MiB`` (binary) or a plain number of bytes.

    Raises ValueError, saying what is accepted. A size is at least one byte.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        size = value
    else:
        match = re.fullmatch(r"(\d+(?:\.\d+)?) ?([A-Za-z]+)", value) if isinstance(value, str) else None
        if match is None or match[2] not in _UNITS:
            raise ValueError("must be a size such as 20MB, 1.5GB or 16MiB")
        size = int(float(match[1]) * _UNITS[match[2]])
    if size < 1:
        raise ValueError("must be a size of at least one byte")
    return size


def parse_duration(value: object) -> float:
    """Seconds from ``90``, ``90s``, ``10m``, ``1.5h``, ``1d``. Raises ValueError, saying what is accepted."""
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < float("inf"):
        return float(value)
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?([smhd])", value) if isinstance(value, str) else None
    if match is None:
        raise ValueError("must be a time such as 90 (seconds), 30s, 10m, 1h or 1d")
    return float(match[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[match[2]]


def format_size(size: int) -> str:
    """Bytes for a person, decimal: ``0 B``, ``999 B``, ``1.2 kB``, ``10.9 MB``."""
    amount = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 999.95 or (unit == "B" and size < 1000):
            return f"{size} B" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} TB"


def format_age(seconds: float) -> str:
    """How long ago, for a person: ``now``, ``42 s``, ``5 min``, ``3 h``, ``12 d``."""
    if seconds < 1:
        return "now"
    for limit, divisor, unit in ((100, 1, "s"), (6000, 60, "min"), (48 * 3600, 3600, "h")):
        if seconds < limit:
            return f"{int(seconds // divisor)} {unit}"
    return f"{int(seconds // 86400)} d"


def format_left(seconds: float) -> str:
    """How long still to wait, rounded up: ``42 s``, ``40 min``, ``3 h``."""
    if seconds <= 99:
        return f"{math.ceil(seconds)} s"
    return f"{math.ceil(seconds / 60)} min" if seconds <= 99 * 60 else f"{math.ceil(seconds / 3600)} h"


def format_ago(seconds: float) -> str:
    """The same in a sentence: ``just now``, ``42 s ago``."""
    return "just now" if seconds < 1 else f"{format_age(seconds)} ago"

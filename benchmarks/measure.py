"""Run whole processes side by side and compare them: only ratios of one run mean anything.

The subject and its baseline are run in turn (A B A B ...), so that a machine that slows down slows both.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Run:
    """One finished process: wall and processor seconds, and the largest resident set in bytes."""

    wall: float
    cpu: float
    peak: int


def run(command: Sequence[str | Path], cwd: Path, env: Mapping[str, str] | None = None) -> Run:
    """Run ``command`` to its end; a failure ends the benchmark with what it printed."""
    log = cwd / ".benchmark.log"
    with log.open("wb") as output:
        started = time.perf_counter()
        process = subprocess.Popen(
            [str(word) for word in command],
            cwd=cwd,
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(map(str, command))} ended with {process.returncode}:\n{log.read_text()[-4000:]}")
    return Run(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)


@dataclass(frozen=True)
class Row:
    """One line of the table: the subject against its baseline, and the most that their ratio may be."""

    name: str
    against: str
    limit: float
    subject: Callable[[], float]
    baseline: Callable[[], float]
    verify: Callable[[], None] = lambda: None
    unit: str = "s"
    rounds: int = 5


@dataclass(frozen=True)
class Result:
    name: str
    against: str
    limit: float
    unit: str
    subject: tuple[float, ...]
    baseline: tuple[float, ...]

    @property
    def ratios(self) -> tuple[float, ...]:
        return tuple(a / b for a, b in zip(self.subject, self.baseline, strict=True))

    @property
    def ratio(self) -> float:
        """The median of the ratios, pair by pair."""
        return statistics.median(self.ratios)

    @property
    def met(self) -> bool:
        return self.ratio <= self.limit

    def to_json(self) -> dict[str, object]:
        return {
            "name": self.name,
            "against": self.against,
            "limit": self.limit,
            "unit": self.unit,
            "subject": list(self.subject),
            "baseline": list(self.baseline),
            "ratio": self.ratio,
            "spread": [min(self.ratios), max(self.ratios)],
            "met": self.met,
        }


def compare(row: Row) -> Result:
    """Measure a row: one uncounted round to warm the caches, then ``row.rounds`` interleaved ones."""
    row.subject()
    row.baseline()
    subject, baseline = [], []
    for _ in range(row.rounds):
        subject.append(row.subject())
        baseline.append(row.baseline())
    row.verify()
    return Result(row.name, row.against, row.limit, row.unit, tuple(subject), tuple(baseline))

"""Run whole processes side by side and compare them: only ratios of one run mean anything.

Subjects and their baseline are run in turn (A B floor A B floor ...), so that a machine that slows down slows
all of them. Subjects that are held against the same baseline share its runs.
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
    """One finished process: wall and processor seconds, those of its children included."""

    wall: float
    cpu: float


class FailedError(Exception):
    """A process of the benchmark failed, or left something else behind than it should have."""


def run(command: Sequence[str | Path], cwd: Path, env: Mapping[str, str] | None = None) -> Run:
    """Run ``command`` to its end. Raises FailedError with what it printed.

    What was written before is on disk first: no side pays for its set-up, or for what the other left.
    """
    log = cwd / ".benchmark.log"
    os.sync()
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
        said = log.read_text(errors="replace")[-4000:]
        raise FailedError(f"{' '.join(map(str, command))} ended with {process.returncode}:\n{said}")
    return Run(wall, usage.ru_utime + usage.ru_stime)


# A process begins with the largest size that its parent ever had, so that one is small.
_PEAK = """
import os, subprocess, sys
child = subprocess.Popen(sys.argv[2:])
_, status, usage = os.wait4(child.pid, 0)
open(sys.argv[1], "w").write(str(usage.ru_maxrss * 1024))
sys.exit(os.waitstatus_to_exitcode(status))
"""


def peak(command: Sequence[str | Path], cwd: Path) -> int:
    """Run ``command`` to its end; its largest resident set, in bytes. Raises FailedError."""
    told = cwd / ".benchmark.peak"
    run([sys.executable, "-c", _PEAK, told, *command], cwd)
    return int(told.read_text())


Measure = Callable[[], float]


@dataclass(frozen=True)
class Subject:
    """What a line of the table is about, and the most that its ratio to the baseline may be."""

    name: str
    limit: float
    measure: Measure


@dataclass(frozen=True)
class Contest:
    """Subjects against one baseline. ``verify`` raises FailedError where what they left is not right.

    ``warm``: one uncounted round first, for caches that every later use finds full.
    """

    against: str
    baseline: Measure
    subjects: tuple[Subject, ...]
    verify: Callable[[], None]
    unit: str = "s"
    rounds: int = 5
    warm: bool = True


@dataclass(frozen=True)
class Result:
    """A line of the table. ``problem``: why its figures do not count, where they do not."""

    name: str
    against: str
    limit: float
    unit: str
    subject: tuple[float, ...] = ()
    baseline: tuple[float, ...] = ()
    problem: str = ""

    @property
    def ratios(self) -> tuple[float, ...]:
        return tuple(a / b for a, b in zip(self.subject, self.baseline, strict=True))

    @property
    def ratio(self) -> float:
        """The median of the ratios, pair by pair."""
        return statistics.median(self.ratios)

    @property
    def met(self) -> bool:
        return not self.problem and self.ratio <= self.limit

    @property
    def verdict(self) -> str:
        return "failed" if self.problem else "met" if self.met else "missed"

    def to_json(self) -> dict[str, object]:
        figures: dict[str, object] = {}
        if self.subject:
            figures = {
                "subject": list(self.subject),
                "baseline": list(self.baseline),
                "ratio": self.ratio,
                "spread": [min(self.ratios), max(self.ratios)],
            }
        return {
            "name": self.name,
            "against": self.against,
            "limit": self.limit,
            "unit": self.unit,
            **figures,
            "verdict": self.verdict,
            "problem": self.problem,
        }


def compare(contest: Contest) -> list[Result]:
    """Measure a contest round by round and verify what it left; a problem is kept with the figures."""
    problem = ""
    subjects: list[list[float]] = [[] for _ in contest.subjects]
    baseline: list[float] = []
    try:
        for number in range(contest.rounds + contest.warm):
            found = [subject.measure() for subject in contest.subjects]
            floor = contest.baseline()
            if number >= contest.warm:
                baseline.append(floor)
                for values, value in zip(subjects, found, strict=True):
                    values.append(value)
        contest.verify()
    except Exception as error:  # a benchmark that fails must not take the others' figures with it
        problem = f"{type(error).__name__}: {error}"
    return [
        Result(
            subject.name,
            contest.against,
            subject.limit,
            contest.unit,
            tuple(values),
            tuple(baseline),
            problem,
        )
        for subject, values in zip(contest.subjects, subjects, strict=True)
    ]

"""Progress on a terminal: nothing for the first moment, then a bar for each phase that is under way.

rich is imported only when something takes long enough to be worth a bar.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from shipway.registry.cli.output import harmless
from shipway.registry.observe import SILENT, Advance, Confirm, Observer

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

PATIENCE_S = 0.7  # what is over by then needs no bar


@dataclass
class _Phase:
    owner: TerminalObserver
    name: str
    total: int | None
    passing: bool
    began: float = field(default_factory=time.monotonic)
    done: int = 0
    task: TaskID | None = None

    def advance(self, amount: int = 1) -> None:
        self.owner.advanced(self, amount)


class TerminalObserver:
    """Shows phases with rich, and notes as lines above them, on stderr. Use it as a context manager."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._phases: list[_Phase] = []
        self._bars: Progress | None = None
        self._timer: threading.Timer | None = None

    @contextmanager
    def phase(self, name: str, total: int | None = None, *, passing: bool = False) -> Iterator[Advance]:
        with self._lock:
            phase = _Phase(self, name, total, passing)
            self._phases.append(phase)
            if self._bars is not None:
                self._add(phase)
            elif self._timer is None:
                self._timer = threading.Timer(PATIENCE_S, self._show)
                self._timer.daemon = True
                self._timer.start()
        try:
            yield phase
        finally:
            with self._lock:
                self._phases.remove(phase)
                if self._bars is not None and phase.task is not None:
                    self._bars.remove_task(phase.task)
                    if not phase.passing and time.monotonic() - phase.began >= PATIENCE_S:
                        self._bars.console.print(
                            self._line(phase), style="dim", highlight=False, markup=False
                        )

    def advanced(self, phase: _Phase, amount: int) -> None:
        with self._lock:
            phase.done += amount
            if self._bars is not None and phase.task is not None:
                self._bars.update(phase.task, completed=phase.done)

    def note(self, text: str) -> None:
        with self._lock:
            if self._bars is not None:
                self._bars.console.print(harmless(text), highlight=False, markup=False)
            else:
                sys.stderr.write(harmless(text) + "\n")

    @contextmanager
    def out_of_the_way(self) -> Iterator[None]:
        """Take the bars off the terminal while somebody is asked."""
        with self._lock:
            if self._bars is not None:
                self._bars.stop()
            try:
                yield
            finally:
                if self._bars is not None:
                    self._bars.start()

    def __enter__(self) -> TerminalObserver:
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
            if self._bars is not None:
                self._bars.stop()

    def _show(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        with self._lock:
            if not self._phases:  # all is over: the next phase starts a new wait
                self._timer = None
                return
            columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn())
            console = Console(stderr=True)
            self._bars = Progress(*columns, TimeElapsedColumn(), console=console, transient=True)
            for phase in self._phases:
                self._add(phase)
            self._bars.start()

    def _add(self, phase: _Phase) -> None:
        assert self._bars is not None
        phase.task = self._bars.add_task(harmless(phase.name), total=phase.total, completed=phase.done)

    @staticmethod
    def _line(phase: _Phase) -> str:
        return f"  {harmless(phase.name)} ({time.monotonic() - phase.began:.1f} s)"


class PlainObserver:
    """For stderr that is no terminal: notes as lines, no progress."""

    def phase(
        self, name: str, total: int | None = None, *, passing: bool = False
    ) -> AbstractContextManager[Advance]:
        return SILENT.phase(name, total)

    def note(self, text: str) -> None:
        sys.stderr.write(harmless(text) + "\n")


def asking(observer: Observer, *, yes: bool) -> Confirm | None:
    """How questions are answered: by ``--yes``, by whoever sits at the terminal, or not at all (None)."""
    if yes:
        return lambda question: True
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return None

    def ask(question: str) -> bool:
        with observer.out_of_the_way() if isinstance(observer, TerminalObserver) else nullcontext():
            sys.stderr.write(f"{harmless(question, lines=True)} [y/N] ")
            sys.stderr.flush()
            return sys.stdin.readline().strip().lower() in ("y", "yes")

    return ask


@contextmanager
def observing(*, quiet: bool) -> Iterator[Observer]:
    """The observer that fits stderr."""
    if quiet:
        yield SILENT
    elif sys.stderr.isatty():
        with TerminalObserver() as observer:
            yield observer
    else:
        yield PlainObserver()

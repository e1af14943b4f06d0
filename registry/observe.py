"""How long work tells what it is doing, without knowing who listens.

The command line listens with a progress bar on a terminal; tests and programs listen with nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

Confirm = Callable[[str], bool]
"""Asks a person a question that can be answered yes or no, and waits for the answer."""


class Advance(Protocol):
    """One phase of the work, under way. Safe to call from any thread."""

    def advance(self, amount: int = 1) -> None:
        """Note that ``amount`` more of the phase's total is done."""


class Observer(Protocol):
    """Hears of phases and notes. Phases may overlap and may be opened in any thread."""

    def phase(
        self, name: str, total: int | None = None, *, passing: bool = False
    ) -> AbstractContextManager[Advance]:
        """Open a phase of ``total`` units (bytes, files, runs) or of unknown length; the block ends it.

        One that is ``passing`` is of interest only while it lasts: one host's step among many, say.
        """

    def note(self, text: str) -> None:
        """Tell a person one line that is no result: a retry, a fall-back, a hint."""


class _Silent:
    def advance(self, amount: int = 1) -> None:
        pass

    @contextmanager
    def phase(self, name: str, total: int | None = None, *, passing: bool = False) -> Iterator[Advance]:
        yield self

    def note(self, text: str) -> None:
        pass


SILENT: Observer = _Silent()
"""Hears everything and says nothing."""

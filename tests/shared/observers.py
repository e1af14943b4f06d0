"""Who hears what long work tells of itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from shipway.registry.observe import SILENT, Advance


class Notes:
    """An observer that keeps what it hears: its ``notes``, and the names of the ``phases``."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.phases: list[str] = []

    @contextmanager
    def phase(self, name: str, total: int | None = None, *, passing: bool = False) -> Iterator[Advance]:
        self.phases.append(name)
        with SILENT.phase(name, total, passing=passing) as advance:
            yield advance

    def note(self, text: str) -> None:
        self.notes.append(text)

"""What the ledger says, newest first."""

from __future__ import annotations

import heapq
import itertools

from shipway.registry.config.project import Project
from shipway.registry.ledger.events import Event, Place
from shipway.registry.ledger.ledger import Ledger


def history(
    project: Project, environment: str | None = None, target: str | None = None, limit: int = 50
) -> list[Event]:
    """The newest ``limit`` events of all places, or of one environment's, or of one target's.

    Reads about as many events as it returns. Places are merged by time; within one the serial decides, so
    that a clock that was set back can't turn it round. Raises UsageError for unknown names.
    """
    names = [environment] if environment is not None else list(project.config.environments)
    places = [
        Place(name, known)
        for name in names
        for known in project.environment(name).targets
        if target is None or known == target
    ]
    if not places and names:
        project.placements(names[0], [target] if target else [])  # says which targets there are
    ledger = Ledger(project.store.objects)
    merged = heapq.merge(*map(ledger.events, places), key=lambda event: event.started.at, reverse=True)
    return list(itertools.islice(merged, limit))

"""What the ledger says, newest first."""

from __future__ import annotations

import heapq
import itertools

from shipway.registry.config.project import Project
from shipway.registry.deploy.mirror import places_of
from shipway.registry.ledger.events import Event
from shipway.registry.ledger.ledger import Ledger


def history(
    project: Project, environment: str | None = None, target: str | None = None, limit: int = 50
) -> list[Event]:
    """The newest ``limit`` events of all places, or of one environment's, or of one target's.

    Reads about as many events as it returns. Places are merged by time; within one the serial decides, so
    that a clock that was set back can't turn it round. The ledger is the truth: places that ``deploy.yaml``
    no longer has are among them. Raises UsageError for names that neither knows.
    """
    ledger = Ledger(project.store.objects)
    known = dict.fromkeys((*places_of(project), *ledger.places()))
    places = [
        place
        for place in known
        if environment in (None, place.environment) and target in (None, place.target)
    ]
    if not places:
        _refuse(project, environment, target)
    merged = heapq.merge(*map(ledger.events, places), key=lambda event: event.started.at, reverse=True)
    return list(itertools.islice(merged, limit))


def _refuse(project: Project, environment: str | None, target: str | None) -> None:
    """Say which names there are; nothing, where there are none at all."""
    names = [environment] if environment is not None else list(project.config.environments)
    if names:
        project.placements(names[0], [target] if target else [])

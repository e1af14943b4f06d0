"""What is live and what a rollback restores, by the events alone: a stack (ADR 0003). Pure.

Rules:

1. Only ``live`` changes what is live. After any other outcome the same release is live as before.
2. Promoting puts a release on top; rolling back takes the top off, so that a second rollback looks further
   back and never returns to the release that the first one left.
3. The candidate is what a rollback would restore: the next below the top. A release of the same bundle as the
   live one is no candidate.
"""

from __future__ import annotations

from collections.abc import Iterable

from shipway.registry.errors import IntegrityError
from shipway.registry.ledger.events import LIVE, Event, OutcomeName, Standing, Started
from shipway.registry.nouns import Digest


def standing_after(
    before: Standing,
    started: Started,
    outcome: OutcomeName,
    *,
    live_bundle: Digest | None = None,
    restored: Standing | None = None,
) -> Standing:
    """What stands after ``started`` ended with ``outcome``.

    ``live_bundle`` is the bundle of ``before.live``; ``restored`` is the standing right after the serial
    that ``started`` restores became live.
    """
    if outcome != LIVE:
        return before
    if started.restores is not None:
        if restored is None:
            raise ValueError("a rollback needs the standing of what it restores")
        return Standing(started.serial, restored.candidate)
    if before.live is None or live_bundle == started.bundle:
        return Standing(started.serial, before.candidate)
    return Standing(started.serial, before.live)


def fold(events: Iterable[Event]) -> Standing:
    """What stands after all events of one place, oldest first, from nothing but the events.

    Raises IntegrityError where serials do not rise by one or an event follows one that never ended.
    """
    standing = Standing()
    standings: dict[int, Standing] = {}
    bundles: dict[int, Digest] = {}
    for expected, event in enumerate(events, start=1):
        started = event.started
        if started.serial != expected or len(standings) != expected - 1:
            raise IntegrityError(
                f"The ledger of {started.place} is broken at serial {started.serial}.",
                why=f"Serial {expected} was due, after {len(standings)} that ended.",
                remedy="Restore the store from a backup: nothing of shipway's ever writes this.",
            )
        if event.ended is None:
            continue
        standing = standing_after(
            standing,
            started,
            event.ended.outcome,
            live_bundle=bundles.get(standing.live) if standing.live is not None else None,
            restored=standings.get(started.restores) if started.restores is not None else None,
        )
        bundles[started.serial] = started.bundle
        standings[started.serial] = standing
    return standing

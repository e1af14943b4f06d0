"""What is live and what a rollback restores: tables, and Hypothesis against a stack kept by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shipway.registry.errors import IntegrityError
from shipway.registry.ledger.events import Ended, Event, OutcomeName, Owner, Place, Standing, Started
from shipway.registry.ledger.stack import fold, standing_after
from shipway.registry.nouns import Digest

OWNER = Owner("host", "machine", "boot", "pid:[1]", 7, "123")


def started(serial: int, bundle: str, restores: int | None = None) -> Started:
    return Started(
        place=Place("prod", "server"),
        serial=serial,
        kind="rollback" if restores else "promote",
        model="ocr",
        version=1,
        bundle=Digest.of(bundle.encode()),
        release=f"ocr-1-{bundle}",
        actor="me@host",
        at="2026-01-01T00:00:00.000Z",
        reason="",
        accept=None,
        restores=restores,
        before=None,
        command="c0ffee",
        peers=(("server", serial),),
        owner=OWNER,
    )


def story(text: str) -> list[Event]:
    """Events from ``a b! <1 c~``: promotes (``!`` failed, ``~`` interrupted), and ``<n`` restores n."""
    events: list[Event] = []
    for serial, word in enumerate(text.split(), start=1):
        outcome: OutcomeName = "failed" if "!" in word else "interrupted" if "~" in word else "live"
        word = word.strip("!~")
        restores = int(word[1:]) if word.startswith("<") else None
        bundle = events[restores - 1].started.bundle if restores else Digest.of(word.encode())
        event = replace(started(serial, word, restores), bundle=bundle)
        events.append(Event(event, Ended(serial, outcome, "2026-01-01T00:00:01.000Z", Standing())))
    return events


@pytest.mark.parametrize(
    ("text", "live", "candidate"),
    [
        ("", None, None),
        ("a", 1, None),
        ("a b", 2, 1),
        ("a b <1", 3, None),  # rolled back to the first: nothing further back
        ("a b c <2", 4, 1),
        ("a b c <2 <1", 5, None),  # rolling back twice never returns to c
        ("a b <1 c", 4, 3),
        ("a b <1 c <3", 5, None),
        ("a b!", 1, None),  # a failed promote changes nothing
        ("a b c!", 2, 1),
        ("a! b", 2, None),  # what never was healthy is no candidate
        ("a b c~", 2, 1),
        ("a b b", 3, 1),  # the same bundle again (its pointer was lost): the candidate stays
        ("a b a", 3, 2),
        ("a b c <1", 4, None),  # --to-version: right back to the first
        ("a b c <1 <3", 5, 2),  # and forward again: before c there was b
        ("a b <1!", 2, 1),  # a rollback that failed
        ("a b <1! <1", 4, None),
    ],
)
def test_what_stands(text: str, live: int | None, candidate: int | None) -> None:
    assert fold(story(text)) == Standing(live, candidate)


def test_an_event_without_outcome_changes_nothing() -> None:
    events = story("a b")
    events.append(Event(started(3, "c"), None))
    assert fold(events) == Standing(2, 1)


@pytest.mark.parametrize("serials", [(2,), (1, 3), (1, 1)])
def test_gaps_and_doubles_are_found(serials: tuple[int, ...]) -> None:
    ended = Ended(1, "live", "", Standing())
    events = [Event(started(serial, f"b{serial}"), ended) for serial in serials]
    with pytest.raises(IntegrityError, match="broken at serial"):
        fold(events)


def test_nothing_may_follow_what_never_ended() -> None:
    with pytest.raises(IntegrityError):
        fold([Event(started(1, "a"), None), Event(started(2, "b"), None)])


@given(st.data())
def test_the_notes_the_fold_and_a_stack_agree(data: st.DataObject) -> None:
    """A stack of (serial, bundle): promoting pushes, rolling back pops; each step notes what stands."""
    stack: list[tuple[int, str]] = []
    stacks: dict[int, list[tuple[int, str]]] = {}
    events: list[Event] = []
    notes: dict[int, Standing] = {}
    note = Standing()
    for serial in range(1, data.draw(st.integers(0, 14)) + 1):
        outcome: OutcomeName = data.draw(st.sampled_from(["live", "live", "live", "failed", "interrupted"]))
        restorable = sorted(stacks)
        move = data.draw(st.sampled_from(["promote", "rollback", "to"]))
        restores = None
        if move == "rollback" and len(stack) > 1:
            restores, bundle = stack[-2]
        elif move == "to" and restorable:
            restores = data.draw(st.sampled_from(restorable))
            bundle = stacks[restores][-1][1]
        else:
            bundle = data.draw(st.sampled_from("abcd"))
        event = started(serial, bundle, restores)
        live_bundle = Digest.of(stack[-1][1].encode()) if stack else None
        restored = notes[restores] if restores else None
        note = standing_after(note, event, outcome, live_bundle=live_bundle, restored=restored)
        notes[serial] = note
        events.append(Event(event, Ended(serial, outcome, "", note)))
        if outcome == "live":
            if restores is not None:
                stack = [*stacks[restores][:-1], (serial, bundle)]
            elif stack and stack[-1][1] == bundle:
                stack = [*stack[:-1], (serial, bundle)]
            else:
                stack = [*stack, (serial, bundle)]
            stacks[serial] = stack
        candidate = stack[-2][0] if len(stack) > 1 else None
        assert note == Standing(stack[-1][0] if stack else None, candidate)
    assert fold(events) == note

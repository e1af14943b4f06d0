"""The ledger's events as documents."""

from __future__ import annotations

from shipway.registry.ledger.events import Ended, Event, HostEnd, Owner, Place, Standing, Started
from shipway.registry.nouns import Digest
from shipway.targets.steps import Pointer

STARTED = Started(
    place=Place("prod", "server"),
    serial=2,
    kind="rollback",
    model="ocr",
    version=1,
    bundle=Digest.of(b"b"),
    release="ocr-1-b",
    actor="me@host",
    at="2026-01-01T00:00:00.000Z",
    reason="",
    accept="because",
    restores=1,
    before=Pointer("prod", "server", 1, "ocr", 1, Digest.of(b"a"), "ocr-1-a"),
    command="c0ffee",
    peers=(("server", 2),),
    owner=Owner("host", "machine", "boot", "pid:[1]", 7, "123"),
    to="ssh://me@{host}/models",
)
ENDED = Ended(
    *(2, "failed", "2026-01-01T00:00:01.000Z", Standing(1, None)),
    bytes_sent=5,
    seconds=0.5,
    detail="why",
    hosts=(HostEnd("line-1", "failed", "no room", 5, 0.5),),
)


def test_json_forms_round_trip() -> None:
    assert Started.from_json(STARTED.to_json()) == STARTED
    assert Ended.from_json(ENDED.to_json()) == ENDED


def test_documents_of_older_releases_are_read() -> None:
    """``to`` and ``hosts`` came later; the ledger is never rewritten."""
    older = STARTED.to_json()
    del older["to"]
    assert Started.from_json(older).to == ""
    older = ENDED.to_json()
    del older["hosts"]
    assert Ended.from_json(older).hosts == ()


def test_history_prints_both_as_one() -> None:
    printed = Event(STARTED, ENDED).to_json()
    assert (printed["environment"], printed["target"], printed["outcome"]) == ("prod", "server", "failed")
    assert printed["bundle"].startswith("sha256:")

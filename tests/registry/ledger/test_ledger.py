"""The ledger on a real folder: claims, the newest serial, what is read, and what is broken."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from shipway.registry.errors import ConflictError, IntegrityError
from shipway.registry.ledger import owner
from shipway.registry.ledger.events import Owner, Place, Standing, Started
from shipway.registry.ledger.ledger import Ledger
from shipway.registry.nouns import Digest
from shipway.registry.store.folder import FolderObjects

PLACE = Place("prod", "server")
DEAD = Owner("far-away", "machine", "boot", "pid:[1]", 7, "123")


class CountingObjects(FolderObjects):
    """Counts how many documents are read or asked for."""

    reads = 0

    def get(self, key: str) -> bytes | None:
        self.reads += 1
        return super().get(key)

    def exists(self, key: str) -> bool:
        self.reads += 1
        return super().exists(key)

    def list(self, prefix: str) -> Iterator[str]:
        raise AssertionError("the ledger must not be listed")


@pytest.fixture
def objects(tmp_path: Path) -> CountingObjects:
    return CountingObjects(tmp_path)


@pytest.fixture
def ledger(objects: CountingObjects) -> Ledger:
    return Ledger(objects)


def started(serial: int, *, by: Owner | None = None, restores: int | None = None) -> Started:
    return Started(
        place=PLACE,
        serial=serial,
        kind="promote",
        model="ocr",
        version=serial,
        bundle=Digest.of(str(serial).encode()),
        release=f"ocr-{serial}",
        actor="me@host",
        at="2020-01-01T00:00:00.000Z" if by else owner.now(),
        reason="",
        accept=None,
        restores=restores,
        before=None,
        command=f"command {serial}",
        peers=(("server", serial),),
        owner=by or owner.this_process(),
    )


def deploy(ledger: Ledger, *serials: int) -> None:
    for serial in serials:
        ledger.claim(started(serial))
        ledger.end(started(serial), "live")


def test_an_empty_ledger_has_no_head(ledger: Ledger) -> None:
    head = ledger.head(PLACE)
    assert (head.serial, head.started, head.ended, head.standing) == (0, None, None, Standing())
    assert list(ledger.events(PLACE)) == []


def test_a_serial_is_claimed_once(ledger: Ledger) -> None:
    ledger.claim(started(1))
    with pytest.raises(ConflictError, match="Somebody else deploys to prod/server"):
        ledger.claim(started(1))


def test_a_serial_ends_once(ledger: Ledger) -> None:
    deploy(ledger, 1)
    with pytest.raises(ConflictError, match="has ended already"):
        ledger.end(started(1), "failed")
    ended = ledger.ended(PLACE, 1)
    assert ended is not None
    assert ended.outcome == "live"


def test_an_open_claim_shows_what_stood_before_it(ledger: Ledger) -> None:
    deploy(ledger, 1, 2)
    ledger.claim(started(3))
    head = ledger.head(PLACE)
    assert head.open == started(3) or (head.open is not None and head.open.serial == 3)
    assert head.standing == Standing(2, 1)


def test_events_are_read_newest_first_and_no_more_than_asked(
    ledger: Ledger, objects: CountingObjects
) -> None:
    deploy(ledger, *range(1, 31))
    objects.reads = 0
    events = ledger.events(PLACE)
    assert [next(events).started.serial for _ in range(3)] == [30, 29, 28]
    assert objects.reads < 12


def test_the_head_costs_the_same_however_long_the_ledger_is(ledger: Ledger, objects: CountingObjects) -> None:
    costs = []
    for upto in (10, 300):
        deploy(ledger, *range(ledger.head(PLACE).serial + 1, upto + 1))
        objects.reads = 0
        assert ledger.head(PLACE).serial == upto
        costs.append(objects.reads)
    assert costs[0] == costs[1] <= 6


@pytest.mark.parametrize("hint", [None, b"", b"nonsense", b'{"serial": 3}', b'{"serial": 99}', b"[]"])
def test_the_hint_is_only_a_hint(ledger: Ledger, objects: CountingObjects, hint: bytes | None) -> None:
    deploy(ledger, *range(1, 24))
    objects.delete("ledger/prod/server/head.json")
    if hint is not None:
        objects.put("ledger/prod/server/head.json", hint)
    assert ledger.head(PLACE).serial == 23


def test_the_chain_is_what_repeated_rollbacks_would_restore(ledger: Ledger) -> None:
    deploy(ledger, 1, 2, 3)
    back = replace(started(4, restores=2), bundle=started(2).bundle)
    ledger.claim(back)
    ledger.end(back, "live")
    assert [one.serial for one in ledger.chain(PLACE, Standing(3, 2))] == [2, 1]
    assert [one.serial for one in ledger.chain(PLACE, ledger.head(PLACE).standing)] == [1]


def test_a_serial_is_claimed_only_after_the_one_before_has_ended(
    ledger: Ledger, objects: CountingObjects
) -> None:
    deploy(ledger, 1)
    ledger.claim(started(2))
    for serial in (3, 4):
        with pytest.raises(ConflictError if serial == 3 else IntegrityError):
            ledger.claim(started(serial))
        assert not objects.exists(f"ledger/prod/server/{serial:08d}.started.json")
    ledger.end(started(2), "failed")
    ledger.claim(started(3))


def test_only_a_dead_owner_is_taken_over_and_only_once(ledger: Ledger) -> None:
    mine = started(1)
    ledger.claim(mine)
    with pytest.raises(ConflictError):
        ledger.take_over(mine)
    ledger.end(mine, "failed")
    dead = started(2, by=DEAD)
    ledger.claim(dead)
    assert ledger.take_over(dead) == 1
    with pytest.raises(ConflictError):
        ledger.take_over(dead)  # now this process holds it, and lives


def test_whoever_lost_its_claim_learns_it(ledger: Ledger) -> None:
    dead = started(1, by=DEAD)
    ledger.claim(dead)
    ledger.check(dead)
    number = ledger.take_over(dead)
    ledger.check(dead, number)
    with pytest.raises(ConflictError, match="taken over"):
        ledger.check(dead)
    ledger.end(dead, "interrupted")
    with pytest.raises(ConflictError, match="taken over"):
        ledger.check(dead, number)


@pytest.mark.parametrize("document", ["started", "outcome"])
@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b"\xff"])
def test_a_document_that_was_altered_is_named(
    ledger: Ledger, objects: CountingObjects, document: str, content: bytes
) -> None:
    deploy(ledger, 1)
    objects.put(f"ledger/prod/server/00000001.{document}.json", content)
    with pytest.raises(IntegrityError, match="prod/server is broken at serial 1"):
        ledger.head(PLACE)


def test_documents_are_plain_json_with_stable_names(ledger: Ledger, objects: CountingObjects) -> None:
    deploy(ledger, 1)
    raw = objects.get("ledger/prod/server/00000001.outcome.json")
    assert raw is not None
    assert {"schema", "serial", "outcome", "at", "live", "candidate"} <= set(json.loads(raw))
    raw = objects.get("ledger/prod/server/00000001.started.json")
    assert raw is not None
    assert json.loads(raw)["owner"]["pid"] == owner.this_process().pid


@pytest.mark.parametrize("year", [2019, 2999])
def test_an_owner_whose_clock_was_wrong_by_years_and_is_put_right_keeps_its_claim(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, year: int
) -> None:
    claim = replace(started(1, by=DEAD), at=f"{year}-01-01T00:00:00.000Z")
    ledger.claim(claim)
    assert not owner.is_alive(*ledger.holder(claim)[:2])  # a time like that proves nothing
    ledger.renew(claim)
    assert owner.is_alive(*ledger.holder(claim)[:2])
    with pytest.raises(ConflictError):
        ledger.take_over(claim)
    monkeypatch.setattr(owner, "now", lambda: f"{year}-06-01T00:00:00.000Z")  # wrong again
    ledger.renew(claim)
    monkeypatch.undo()
    assert ledger.take_over(claim) == 1
    with pytest.raises(ConflictError, match="taken over"):
        ledger.check(claim)  # so that it touches nothing any more


@pytest.mark.parametrize("raw", [b"", b"{}", b"[]", b'{"at": 5}', b'{"at": "noon"}', b"\xff", b"[" * 100_000])
def test_a_lease_that_cannot_be_read_is_as_good_as_none(
    ledger: Ledger, objects: CountingObjects, raw: bytes
) -> None:
    dead = started(1, by=DEAD)
    ledger.claim(dead)
    objects.put("ledger/prod/server/00000001.lease.json", raw)
    assert ledger.holder(dead) == (DEAD, dead.at, 0)
    assert ledger.take_over(dead) == 1


def test_a_lease_that_a_store_can_not_give_is_no_missing_one(
    ledger: Ledger, objects: CountingObjects, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = started(1, by=DEAD)
    ledger.claim(dead)
    get = objects.get

    def broken(key: str) -> bytes | None:
        if key.endswith("lease.json"):
            raise ValueError("a bug")
        return get(key)

    monkeypatch.setattr(objects, "get", broken)
    with pytest.raises(ValueError, match="a bug"):
        ledger.take_over(dead)


@pytest.mark.parametrize("raw", [b"", b"{}", b"[]", b'{"owner": {}, "at": "noon"}', b"[" * 100_000])
def test_a_take_over_that_cannot_be_read_is_told(
    ledger: Ledger, objects: CountingObjects, raw: bytes
) -> None:
    dead = started(1, by=DEAD)
    ledger.claim(dead)
    objects.put("ledger/prod/server/00000001.taken-1.json", raw)
    with pytest.raises(IntegrityError, match="take-over 1 can't be read"):
        ledger.holder(dead)

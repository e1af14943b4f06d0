"""The ledger's documents, over the store's ``Objects``.

=============================================  =======================================================
``ledger/ENV/TARGET/<serial>.started.json``    the claim, created only if absent: that is the lock
``ledger/ENV/TARGET/<serial>.taken-<n>.json``  a claim on what a dead owner left; the last one counts
``ledger/ENV/TARGET/<serial>.lease.json``      when the owner last gave a sign of life
``ledger/ENV/TARGET/<serial>.outcome.json``    how it ended, created only if absent: exactly one
``ledger/ENV/TARGET/head.json``                a hint at the newest serial, where probing begins
=============================================  =======================================================

Serials have eight digits, start at 1 and have no gaps: the next is claimed only after the newest has ended.
So what a claimer read before it claimed still holds after it did. The newest serial is found by probing
from the hint in doubling steps, then halving: a missing or stale hint costs a few probes, never truth.
Started and outcome are never changed or removed. Leases and hints are best effort: a store that takes no more
of them fails no deployment. Rules about what the events mean: ``stack``.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass

from shipway.registry.errors import ConflictError, DeliveryError, IntegrityError
from shipway.registry.ledger import owner as owners
from shipway.registry.ledger import stack
from shipway.registry.ledger.events import Ended, Event, HostEnd, OutcomeName, Owner, Place, Standing, Started
from shipway.registry.nouns import Json
from shipway.registry.store.objects import Objects

UNREADABLE = (ValueError, KeyError, TypeError, AttributeError, RecursionError)
"""What reading a document raises that is none of ours."""


@dataclass(frozen=True, slots=True)
class Head:
    """The newest serial of a place (0: none yet), its events, and what stands before or after them."""

    serial: int
    started: Started | None
    ended: Ended | None
    standing: Standing

    @property
    def open(self) -> Started | None:
        """The deployment that has no outcome yet."""
        return self.started if self.ended is None else None


class Ledger:
    """Reads and appends events. All methods raise DeliveryError where the store can't be used."""

    def __init__(self, objects: Objects) -> None:
        self.objects = objects

    # reading

    def head(self, place: Place) -> Head:
        """The newest serial, from a fixed number of documents however long the ledger is."""
        serial = self._newest(place)
        if serial == 0:
            return Head(0, None, None, Standing())
        started = self.started(place, serial)
        ended = self.ended(place, serial)
        if ended is not None:
            return Head(serial, started, ended, ended.standing)
        return Head(serial, started, None, self.standing_after(place, serial - 1))

    def started(self, place: Place, serial: int) -> Started:
        """Raises IntegrityError where the claim of a serial that must be there is gone or unreadable."""
        raw = self.objects.get(_key(place, serial, "started"))
        if raw is None:
            raise _broken(place, serial, "its claim is gone")
        try:
            return Started.from_json(json.loads(raw))
        except UNREADABLE as error:
            raise _broken(place, serial, f"its claim can't be read ({error!r})") from error

    def ended(self, place: Place, serial: int) -> Ended | None:
        raw = self.objects.get(_key(place, serial, "outcome"))
        if raw is None:
            return None
        try:
            return Ended.from_json(json.loads(raw))
        except UNREADABLE as error:
            raise _broken(place, serial, f"its outcome can't be read ({error!r})") from error

    def standing_after(self, place: Place, serial: int) -> Standing:
        """What stood right after a serial that has ended; nothing stood before the first."""
        if serial == 0:
            return Standing()
        ended = self.ended(place, serial)
        if ended is None:
            raise _broken(place, serial, "it has no outcome though a later one started")
        return ended.standing

    def places(self) -> Iterator[Place]:
        """Every place that anything was ever deployed to. Costs as much as there are places, not events."""
        for environment in self.objects.folders("ledger/"):
            for target in self.objects.folders(f"ledger/{environment}/"):
                yield Place(environment, target)

    def events(self, place: Place) -> Iterator[Event]:
        """Newest first, each read only when it is asked for."""
        for serial in range(self._newest(place), 0, -1):
            yield Event(self.started(place, serial), self.ended(place, serial))

    def chain(self, place: Place, standing: Standing) -> Iterator[Started]:
        """What repeated rollbacks would restore, one after the other, beginning with the candidate."""
        serial = standing.candidate
        while serial is not None:
            yield self.started(place, serial)
            serial = self.standing_after(place, serial).candidate

    def lost(self, started: Started) -> bool:
        """Whether another took over what this process had claimed."""
        return self.objects.exists(_key(started.place, started.serial, "taken-1"))

    # writing

    def claim(self, started: Started) -> None:
        """Begin a deployment. Raises ConflictError, having changed nothing, where another has the serial.

        The same where the serial before has no outcome yet: there may be one unfinished deployment, no more.
        """
        place, serial = started.place, started.serial
        if serial > 1 and not self.objects.exists(_key(place, serial - 1, "outcome")):
            holder = self.started(place, serial - 1)
        elif self._create(_key(place, serial, "started"), _bytes(started.to_json())):
            return
        else:
            holder = self.started(place, serial)
        raise ConflictError(
            f"Somebody else deploys to {place}.",
            why=f"{holder.actor} claimed serial {holder.serial} at {holder.at} "
            f"for {holder.model}/{holder.version}.",
            remedy="Wait for it ('shipway status' shows it), then run the command again.",
        )

    def renew(self, started: Started) -> None:
        """Give a sign of life, for processes on other machines."""
        self.objects.put(_key(started.place, started.serial, "lease"), _bytes({"at": owners.now()}))

    def holder(self, started: Started) -> tuple[Owner, str, int]:
        """Who holds an unfinished deployment, its last sign of life, and how often it was taken over.

        Raises IntegrityError where a take-over can't be read. A lease that can't be is as good as none.
        """
        place, serial = started.place, started.serial
        holder, renewed, times = started.owner, started.at, 0
        while (raw := self.objects.get(_key(place, serial, f"taken-{times + 1}"))) is not None:
            times += 1
            holder, renewed = _taken(started, times, raw)
        signs = [renewed]
        lease = self.objects.get(_key(place, serial, "lease")) or b""
        with contextlib.suppress(*UNREADABLE):
            signs.append(_time(json.loads(lease)))
        # The nearest to now is the last one, also where a clock that was ahead by a year was put right since.
        return holder, min(signs, key=lambda at: abs(owners.seconds_since(at))), times

    def take_over(self, started: Started) -> int:
        """Claim what a dead owner left; return the number of the take-over, for ``check``.

        Raises ConflictError where the owner lives or another process is quicker.
        """
        holder, renewed, times = self.holder(started)
        claim = {"owner": owners.this_process().to_json(), "at": owners.now()}
        key = _key(started.place, started.serial, f"taken-{times + 1}")
        alive = owners.is_alive(holder, renewed) and not owners.is_abandoned(started.command)
        if alive or not self.objects.create(key, _bytes(claim)):
            raise ConflictError(
                f"Somebody else deploys to {started.place}.",
                why=f"{holder} ({started.actor}) is at {started.model}/{started.version} since {started.at}.",
                remedy="Wait for it, then run the command again. If that machine is gone for good, its claim "
                f"runs out {owners.LEASE_S // 60} minutes after its last sign of life.",
            )
        return times + 1

    def check(self, started: Started, taken: int = 0) -> None:
        """Raise ConflictError where the claim (or the take-over numbered ``taken``) was lost or has ended.

        A process that slept too long learns here that it must not touch the destination any more.
        """
        place, serial = started.place, started.serial
        over = self.objects.exists(_key(place, serial, "outcome"))
        if over or self.objects.exists(_key(place, serial, f"taken-{taken + 1}")):
            raise ConflictError(
                f"This deployment (serial {serial} of {place}) was taken over by another command.",
                why="It gave no sign of life for so long that it counted as dead.",
                remedy="Look at 'shipway status', then run the command again if it is still wanted.",
            )

    def end(
        self,
        started: Started,
        outcome: OutcomeName,
        *,
        bytes_sent: int = 0,
        seconds: float = 0.0,
        detail: str = "",
        hosts: tuple[HostEnd, ...] = (),
    ) -> Ended:
        """Record the outcome. Raises ConflictError where one was recorded already.

        Any other error means that nothing was recorded.
        """
        place, serial = started.place, started.serial
        before = self.standing_after(place, serial - 1)
        standing = stack.standing_after(
            before,
            started,
            outcome,
            live_bundle=self.started(place, before.live).bundle if before.live is not None else None,
            restored=self.standing_after(place, started.restores) if started.restores is not None else None,
        )
        ended = Ended(serial, outcome, owners.now(), standing, bytes_sent, seconds, detail, hosts)
        if not self._create(_key(place, serial, "outcome"), _bytes(ended.to_json())):
            raise ConflictError(
                f"Serial {serial} of {place} has ended already.",
                remedy="Look at 'shipway history': another command took it over.",
            )
        with contextlib.suppress(DeliveryError):  # it is recorded: what only saves reading must not undo that
            self.objects.put(_hint(place), _bytes({"serial": serial}))
        with contextlib.suppress(DeliveryError):
            self.objects.delete(_key(place, serial, "lease"))
        return ended

    def _create(self, key: str, data: bytes) -> bool:
        """As ``Objects.create``, and true where that failed after the document was there."""
        try:
            return self.objects.create(key, data)
        except DeliveryError:
            if self.objects.get(key) != data:
                raise
            return True

    # the newest serial

    def _newest(self, place: Place) -> int:
        low = self._hinted(place)
        if low and not self._claimed(place, low):
            low = 0  # the hint is wrong: somebody restored half a store
        step = 1
        while self._claimed(place, low + step):
            low, step = low + step, step * 2
        high = low + step  # low is claimed (or 0), high is not
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self._claimed(place, middle) else (low, middle)
        return low

    def _hinted(self, place: Place) -> int:
        raw = self.objects.get(_hint(place))
        try:
            return max(0, int(json.loads(raw)["serial"])) if raw else 0
        except UNREADABLE:
            return 0

    def _claimed(self, place: Place, serial: int) -> bool:
        return self.objects.exists(_key(place, serial, "started"))


def _key(place: Place, serial: int, what: str) -> str:
    return f"ledger/{place.environment}/{place.target}/{serial:08d}.{what}.json"


def _taken(started: Started, times: int, raw: bytes) -> tuple[Owner, str]:
    try:
        taken = json.loads(raw)
        return Owner.from_json(taken["owner"]), _time(taken)
    except UNREADABLE as error:
        why = f"its take-over {times} can't be read ({error!r})"
        raise _broken(started.place, started.serial, why) from error


def _time(document: Json) -> str:
    """When it was written. Raises one of ``UNREADABLE``."""
    owners.seconds_since(document["at"])
    return str(document["at"])


def _hint(place: Place) -> str:
    return f"ledger/{place.environment}/{place.target}/head.json"


def _bytes(data: Json) -> bytes:
    return json.dumps(data, sort_keys=True, ensure_ascii=False).encode()


def _broken(place: Place, serial: int, why: str) -> IntegrityError:
    return IntegrityError(
        f"The ledger of {place} is broken at serial {serial}: {why}.",
        remedy="Restore the store's 'ledger' folder from a backup; nothing of shipway's removes from it.",
    )

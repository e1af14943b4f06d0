"""One target's part in one command: its hosts, which of them failed, and what follows from that.

Rules:

1. A host that fails a step takes no further part, and goes back at once to what it had itself before.
2. While no more hosts have failed than may, the others go on; then the roll-out stops, and every host that
   was pointed goes back (``waves.decide``).
3. Hosts that were in no wave yet are not touched, not even to undo.
4. A destination that is no fleet is a single host without a name, and it may not fail.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Sequence

from shipway.registry.deploy.plan import ALONE, Move
from shipway.registry.deploy.waves import decide
from shipway.registry.errors import ConflictError, DeliveryError, ShipwayError
from shipway.registry.ledger.events import HostEnd
from shipway.registry.nouns import Json
from shipway.registry.observe import Observer
from shipway.targets.deliveries.base import Delivery, HostDelivery, OutOfReachError, UnprovenError
from shipway.targets.deliveries.fleet import Errors, Fleet, each, failure
from shipway.targets.steps import Gate, Patch, Point, Pointer, Prune, Step


class Rollout:
    """``pointer`` is the deployment's own, ``accept`` the reason for going past gates, if any."""

    def __init__(
        self, delivery: Delivery, move: Move, pointer: Pointer, accept: str | None, observer: Observer
    ) -> None:
        self.delivery = delivery
        self.move = move
        self.notes: list[str] = []
        self.stuck: Errors = {}  # hosts that could not be taken back
        self._failed: Errors = {}
        self._pointer = pointer
        self._accept = accept
        self._observer = observer
        self._hosts = len(move.lost) + sum(map(len, move.waves))
        self._touched: dict[str, None] = {}
        self._pointed: dict[str, None] = {}
        self._sent: dict[str, int] = {}
        self._seconds: dict[str, float] = {}
        self._verdicts: dict[str, Json] = {}
        self._told: dict[str, str] = {}

    @property
    def sent(self) -> int:
        return sum(self._sent.values())

    def left(self, hosts: Sequence[str]) -> tuple[str, ...]:
        """Those of ``hosts`` that still take part."""
        return tuple(host for host in hosts or ALONE if host not in self._failed)

    def perform(self, step: Step, hosts: Sequence[str], advance: Callable[[int], None]) -> None:
        """Do a step on hosts that take part. Raises what the failures of too many hosts come to."""
        self._touched.update(dict.fromkeys(hosts))
        if isinstance(step, Point):  # before the fact: undoing what was not done does no harm
            self._pointed.update(dict.fromkeys(hosts))

        def work(host: str, delivery: Delivery) -> None:
            began = time.monotonic()
            try:
                with self._shown(host, step):
                    sent = self._perform(host, delivery, step)
            finally:
                self._seconds[host] = self._seconds.get(host, 0.0) + time.monotonic() - began
            self._sent[host] = self._sent.get(host, 0) + sent
            advance(step.file.size if isinstance(step, Patch) else sent)  # what the plan has counted

        _, bad = each(self.delivery, work, hosts)
        if bad:
            self._drop(bad)

    @property
    def checks(self) -> tuple[Json, ...]:
        """What the golden check found on each host where it ran as a gate and passed; see ``checked``."""
        return tuple(checked(host, verdict) for host, verdict in sorted(self._verdicts.items()))

    @property
    def detail(self) -> str:
        """What the ledger says of a deployment that is live: what was accepted, and which hosts lack it."""
        bad = [end.host for end in self.ends(live=False)]
        lacking = f"not on {len(bad)} of {self._hosts} hosts: {', '.join(bad)}"
        return "; ".join([*self.notes, lacking] if bad else self.notes)

    def undo(self) -> None:
        """Take back every host that was pointed. Raises DeliveryError where not one host answers."""
        self.stuck = take_back(self.delivery, self._pointer, self.move.before, self._pointed)

    def tidy(self) -> None:
        """Remove what was put there in vain. A destination that can't be used keeps it: it harms nobody."""
        release = self.move.release.id

        def work(host: str, delivery: Delivery) -> None:
            delivery.clear(release)
            if host in self.move.fresh and host not in self._pointed:
                delivery.perform(Prune(release))  # what clients saw as live, they may still be reading

        each(self.delivery, work, self._touched)

    def ends(self, *, live: bool) -> tuple[HostEnd, ...]:
        """How it ended on each host of a fleet; where all of it is not ``live``, on those that failed."""
        if not self.move.fleet:
            return ()
        going = [host for wave in self.move.waves for host in wave]
        kept = [host for host in going if live or host in self._failed or host in self.stuck]
        lost = (HostEnd(host, "unreachable", why) for host, why in self.move.lost.items())
        return (*map(self._end, kept), *lost)

    def _end(self, host: str) -> HostEnd:
        error = self.stuck.get(host) or self._failed.get(host)
        sent, seconds = self._sent.get(host, 0), self._seconds.get(host, 0.0)
        if error is None:
            return HostEnd(host, "live", "", sent, seconds)
        unknown = host in self.stuck or isinstance(error, OutOfReachError)
        return HostEnd(host, "unreachable" if unknown else "failed", error.what, sent, seconds)

    def _shown(self, host: str, step: Step) -> contextlib.AbstractContextManager[object]:
        return self._observer.phase(f"{host}: {step}", passing=True) if host else contextlib.nullcontext()

    def _perform(self, host: str, delivery: Delivery, step: Step) -> int:
        try:
            sent = delivery.perform(step)
            if isinstance(step, Gate) and delivery.verdict is not None:
                self._verdicts[host] = delivery.verdict
                self._tell(host, delivery.verdict)
            return sent
        except (DeliveryError, ConflictError) as error:
            where = f" on {host}" if host else ""
            if isinstance(step, Prune):
                self._observer.note(f"{self.move.target}: {step}: left there{where}. {error.what}")
                return 0
            if isinstance(error, ConflictError):
                raise
            if self._accept and isinstance(step, Gate) and isinstance(error, UnprovenError):
                self.notes.append(f"accepted though {step} failed{where}: {error.what}")
                self._observer.note(f"{self.move.target}: {self.notes[-1]}")
                return 0
            raise

    def _tell(self, host: str, verdict: Json) -> None:
        """Say what the check found, once for all hosts where it found the same."""
        if "provider" not in verdict:  # a kind of somebody else's may say no more than that it passed
            return
        text = f"its check passed on {verdict['provider']}"
        if verdict.get("missing"):
            text += f"; not in use here: {', '.join(verdict['missing'])}"
        if self._told.setdefault(text, host) == host:
            name = f"{self.move.target}, {host}" if host else self.move.target
            self._observer.note(f"{name}: {text}.")

    def _drop(self, bad: Errors) -> None:
        """Go on without these hosts, or raise."""
        self._failed.update(bad)
        lost: Errors = {host: OutOfReachError(why) for host, why in self.move.lost.items()}
        failed, tried = {**lost, **self._failed}, len(lost) + len(self._touched)
        if decide(len(failed), self.move.allowed, tried) == "stop":
            raise failure(failed, self._hosts)
        if not isinstance(self.delivery, Fleet):
            raise ValueError("a destination that is no fleet has no host to spare")

        def work(host: str, delivery: HostDelivery) -> None:
            if host in self._pointed:
                delivery.undo(self._pointer)
            with contextlib.suppress(DeliveryError):
                delivery.clear(self.move.release.id)

        _, stuck = self.delivery.each(work, bad)
        self.stuck.update({host: error for host, error in stuck.items() if host in self._pointed})
        for host, error in bad.items():
            now = "nobody can tell what it serves" if host in self.stuck else "it serves what it did before"
            self._observer.note(f"{self.move.target}: {host} failed, and {now}. {_line(error)}")


def checked(host: str, verdict: Json) -> Json:
    """What ``--json`` tells of a golden check on ``host`` (empty where there is only one)."""
    kept = ("provider", "missing", "reasons", "max_abs", "max_rel", "p50_ms", "p95_ms")
    return {"host": host or None, **{key: verdict[key] for key in kept if key in verdict}}


def take_back(
    delivery: Delivery, mine: Pointer, before: Pointer | None, hosts: Iterable[str] | None = None
) -> Errors:
    """Make live again what was live before ``mine``: on these hosts of a fleet, or all of them.

    What somebody else made live meanwhile, past the ledger, is theirs and stays. Returns the errors of hosts
    where that failed. Raises DeliveryError where it failed altogether.
    """
    if isinstance(delivery, Fleet):
        return delivery.undo(mine, hosts)
    found = delivery.pointer()
    if found == before or (found is not None and found != mine):
        return {}  # it never moved: a destination that can't be written must not hold up the others
    if before is not None and before.release in delivery.releases():
        delivery.perform(Point(before))
    else:
        delivery.withdraw()
    return {}


def _line(error: ShipwayError) -> str:
    return " ".join(f"{error.what} {error.why}".split())

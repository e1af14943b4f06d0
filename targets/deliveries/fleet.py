"""Several hosts as one destination. Hosts may differ: one was off, one is new, one was in no wave yet.

``each`` is how everything is asked and done: on many hosts at once, with an answer or an error of its own
from each. What follows from errors is decided elsewhere (``shipway.registry.deploy.rollout``). As a
``Delivery`` it speaks for all its hosts: its pointer is the newest that any host has that answers, and
``audit`` reports each host whose own is another one.

At most ``AT_ONCE`` hosts are connected to: the connections of others are closed first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from shipway.registry.errors import ConflictError, DeliveryError, ShipwayError
from shipway.registry.nouns import Digest, Json
from shipway.targets.deliveries.base import AT_ONCE, Delivery, HostDelivery
from shipway.targets.manifest import Manifest, ManifestDiff
from shipway.targets.steps import Pointer, Step, newest

_T = TypeVar("_T")
_REMEDIES = 3  # different ones that a message repeats
Errors = dict[str, ShipwayError]


class Fleet:
    """All of ``hosts`` by name, under the address that names them together. For methods see ``Delivery``."""

    def __init__(self, address: str, hosts: Mapping[str, HostDelivery], at_once: int = AT_ONCE) -> None:
        if not hosts:
            raise ValueError("a fleet has at least one host")
        self.address = address
        self.patches = all(host.patches for host in hosts.values())
        self.verdict: Json | None = None  # each host has its own
        self.programs = next(iter(hosts.values())).programs
        self.hosts = dict(hosts)
        self._at_once = at_once
        self._open: dict[str, None] = {}  # hosts that were used and not closed since, the longest ago first

    def each(
        self, work: Callable[[str, HostDelivery], _T], names: Iterable[str] | None = None
    ) -> tuple[dict[str, _T], Errors]:
        """What each host gave, or the error it ended with. Returns only after every host came to an end.

        ``work`` runs in threads. Raises what is no single host's fault: a missing key, an altered store.
        """
        from concurrent.futures import ThreadPoolExecutor, wait  # not for a status of folders

        names = tuple(self.hosts if names is None else names)
        crowd = len(names) > self._at_once
        self._make_room(names)

        def one(name: str) -> _T:
            try:
                return work(name, self.hosts[name])
            finally:
                if crowd:
                    self.hosts[name].close()

        with ThreadPoolExecutor(min(self._at_once, max(1, len(names))), "shipway-host") as pool:
            futures = {name: pool.submit(one, name) for name in names}
            try:
                wait(futures.values())
            except BaseException:  # Ctrl-C: who has not begun shall not; who has comes to an end first
                for future in futures.values():
                    future.cancel()
                raise
        for name in names:
            self._open.pop(name, None)
        if not crowd:
            self._open.update(dict.fromkeys(names))
        good: dict[str, _T] = {}
        bad: Errors = {}
        for name, future in futures.items():
            error = future.exception()
            if error is None:
                good[name] = future.result()
            elif isinstance(error, DeliveryError | ConflictError):
                bad[name] = error
            else:
                raise error
        return good, bad

    def undo(self, mine: Pointer, names: Iterable[str] | None = None) -> Errors:
        """Take hosts back to what each had before ``mine``; the errors of those where that failed.

        Raises DeliveryError where not one of all hosts answers: then it may well be us who are cut off.
        """
        names = tuple(self.hosts if names is None else names)
        done, bad = self.each(lambda _, host: host.undo(mine), names)
        others = [name for name in self.hosts if name not in names][: self._at_once]
        if bad and not done and not (others and self.each(_pointer, others)[0]):
            raise failure(bad, len(self.hosts))
        return bad

    def perform(self, step: Step) -> int:
        return sum(self._all(lambda _, host: host.perform(step)).values())

    def pointer(self) -> Pointer | None:
        """Raises DeliveryError only where no host answers."""
        found, bad = self.each(_pointer)
        if not found:
            raise failure(bad, len(self.hosts))
        return newest(found.values())

    def audit(self, manifest: Manifest) -> ManifestDiff:
        """Paths begin with the host's name; ``HOST/current`` is one that lags behind."""
        found = self._all(lambda _, host: (host.pointer(), host.audit(manifest)))
        latest = newest(pointer for pointer, _ in found.values())
        missing, changed = [], []
        for name, (pointer, difference) in found.items():
            if pointer != latest:
                missing.append(f"{name}/current")
            missing += [f"{name}/{path}" for path in difference.missing]
            changed += [f"{name}/{path}" for path in difference.changed]
        return ManifestDiff(tuple(missing), tuple(changed))

    def has(self, manifest: Manifest) -> bool:
        return all(self._all(lambda _, host: host.has(manifest)).values())

    def holds(self, digests: Iterable[Digest]) -> frozenset[Digest]:
        """What every host holds."""
        wanted = frozenset(digests)
        return frozenset.intersection(*self._all(lambda _, host: host.holds(wanted)).values())

    def releases(self) -> tuple[str, ...]:
        return tuple(sorted(set().union(*self._all(lambda _, host: host.releases()).values())))

    def withdraw(self) -> None:
        self._all(lambda _, host: host.withdraw())

    def clear(self, release: str) -> None:
        self._all(lambda _, host: host.clear(release))

    def close(self) -> None:
        """Hang up everywhere; the next use connects again."""
        self._close(tuple(self._open))

    def _all(self, work: Callable[[str, HostDelivery], _T]) -> dict[str, _T]:
        good, bad = self.each(work)
        if bad:
            raise failure(bad, len(self.hosts))
        return good

    def _make_room(self, names: Iterable[str]) -> None:
        wanted = set(names)
        if len(wanted) > self._at_once:  # they do not begin all at once: who is open is in the way
            self.close()
        idle = [name for name in self._open if name not in wanted]
        self._close(idle[: max(0, len(idle) + len(wanted) - self._at_once)])

    def _close(self, names: Iterable[str]) -> None:
        for name in names:
            self.hosts[name].close()
            del self._open[name]


def each(
    delivery: Delivery, work: Callable[[str, Delivery], _T], names: Iterable[str] | None = None
) -> tuple[dict[str, _T], Errors]:
    """The same for any destination. One that is no fleet is a single host without a name."""
    if isinstance(delivery, Fleet):
        return delivery.each(work, names)
    try:
        return {"": work("", delivery)}, {}
    except (DeliveryError, ConflictError) as error:
        return {}, {"": error}


def failure(bad: Mapping[str, ShipwayError], hosts: int) -> ShipwayError:
    """One error that tells of all that failed of so many hosts."""
    first = next(iter(bad.values()))
    if hosts == 1 or not any(isinstance(error, DeliveryError) for error in bad.values()):
        return first
    remedies = dict.fromkeys(error.remedy for error in bad.values() if error.remedy)
    return DeliveryError(
        f"{len(bad)} of {hosts} hosts failed: {', '.join(bad)}.",
        why="\n".join(" ".join(f"{name}: {error.what} {error.why}".split()) for name, error in bad.items()),
        remedy="\n".join(list(remedies)[:_REMEDIES]),
    )


def _pointer(_: str, host: HostDelivery) -> Pointer | None:
    return host.pointer()

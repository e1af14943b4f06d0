"""Several hosts as one destination: each step is done on all of them at once, and counts when all did it.

Hosts may differ: one was off, one is new. The fleet's pointer is the newest that any host has, and ``audit``
reports each host whose own is another one, so that a promotion brings all of them to the same release and
recovery finds a command that was killed half way. Undoing takes each host back to the release that the fleet
had; a host that never had that one goes back to what it had itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from shipway.registry.errors import DeliveryError, ShipwayError
from shipway.registry.nouns import Digest
from shipway.targets.deliveries.ssh import SshDelivery
from shipway.targets.manifest import Manifest, ManifestDiff
from shipway.targets.steps import Point, Pointer, Seal, Step

_T = TypeVar("_T")
_REMEDIES = 3  # different ones that a message repeats
AT_ONCE = 32  # hosts that are worked on at the same time


class Fleet:
    """All of ``hosts``, under the address that names them together. See ``Delivery`` for each method."""

    def __init__(self, address: str, hosts: Sequence[SshDelivery]) -> None:
        if not hosts:
            raise ValueError("a fleet has at least one host")
        self.address = address
        self.hosts = tuple(hosts)
        self._sealed: set[str] = set()

    def perform(self, step: Step) -> int:
        if isinstance(step, Point):
            # What this command put there must be there. Anything else is a way back, as far as it goes.
            back = step.pointer.release not in self._sealed
            sent = self._all(partial(SshDelivery.point, pointer=step.pointer, back=back))
        else:
            sent = self._all(partial(SshDelivery.perform, step=step))
        if isinstance(step, Seal):
            self._sealed.add(step.release.id)
        return sum(sent)

    def pointer(self) -> Pointer | None:
        found = [pointer for pointer in self._all(SshDelivery.pointer) if pointer]
        return max(found, key=lambda pointer: pointer.serial, default=None)

    def audit(self, manifest: Manifest) -> ManifestDiff:
        """Paths begin with the host's name; ``HOST/current`` is one that lags behind."""
        pointers = self._all(SshDelivery.pointer)
        newest = max((pointer.serial for pointer in pointers if pointer), default=None)
        missing, changed = [], []
        found = self._all(partial(SshDelivery.audit, manifest=manifest))
        for host, pointer, difference in zip(self.hosts, pointers, found, strict=True):
            if newest is not None and (pointer is None or pointer.serial != newest):
                missing.append(f"{host.host}/current")
            missing += [f"{host.host}/{path}" for path in difference.missing]
            changed += [f"{host.host}/{path}" for path in difference.changed]
        return ManifestDiff(tuple(missing), tuple(changed))

    def has(self, manifest: Manifest) -> bool:
        return all(self._all(partial(SshDelivery.has, manifest=manifest)))

    def holds(self, digests: Iterable[Digest]) -> frozenset[Digest]:
        """What every host holds. A host that holds more still gets no file that it has already."""
        wanted = frozenset(digests)
        return frozenset.intersection(*self._all(partial(SshDelivery.holds, digests=wanted)))

    def releases(self) -> tuple[str, ...]:
        return tuple(sorted(set().union(*self._all(SshDelivery.releases))))

    def withdraw(self) -> None:
        self._all(SshDelivery.withdraw)

    def clear(self, release: str) -> None:
        self._all(partial(SshDelivery.clear, release=release))

    def close(self) -> None:
        """Hang up everywhere; the next use connects again."""
        self._all(SshDelivery.close)

    def _all(self, work: Callable[[SshDelivery], _T]) -> list[_T]:
        """What each host gave, in order. Raises only after every host came to an end."""
        with ThreadPoolExecutor(min(AT_ONCE, len(self.hosts)), "shipway-host") as pool:
            futures = [pool.submit(work, host) for host in self.hosts]
        failed: list[tuple[SshDelivery, ShipwayError]] = []
        for host, future in zip(self.hosts, futures, strict=True):
            error = future.exception()
            if error is not None and not isinstance(error, ShipwayError):
                raise error
            if error is not None:
                failed.append((host, error))
        if failed:
            raise self._failure(failed)
        return [future.result() for future in futures]

    def _failure(self, failed: Sequence[tuple[SshDelivery, ShipwayError]]) -> ShipwayError:
        first = failed[0][1]
        if len(self.hosts) == 1 or not isinstance(first, DeliveryError):
            return first
        names = ", ".join(host.host for host, _ in failed)
        lines = [" ".join(f"{host.host}: {error.what} {error.why}".split()) for host, error in failed]
        remedies = dict.fromkeys(error.remedy for _, error in failed if error.remedy)
        return DeliveryError(
            f"{len(failed)} of {len(self.hosts)} hosts failed: {names}.",
            why="\n".join(lines),
            remedy="\n".join(list(remedies)[:_REMEDIES]),
        )

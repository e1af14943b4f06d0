"""What a delivery is: the only thing that touches a destination."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal, Protocol

from shipway.registry.errors import ConflictError, DeliveryError
from shipway.registry.nouns import Digest, File, Json
from shipway.targets.manifest import Manifest, ManifestDiff
from shipway.targets.steps import Pointer, Step

Fetch = Callable[[File], Path]
"""Gives a local, read-only path of a file's bytes: how a delivery reads the store."""
Programs = Literal["here", "there", "nowhere"]
"""Where a release's programs run: on this machine, on the destination's own host; storage runs none."""
AT_ONCE = 32  # hosts that are worked on, and connected to, at the same time


class OutOfReachError(DeliveryError):
    """The destination does not answer, so that nobody can tell what is live there now."""


class UnprovenError(DeliveryError):
    """A program or a server says no, gives no answer, or there is none.

    It speaks of the release, or of what the user asks of it: the only failure of a gate to ``--accept``.
    """


def changed(pointer: str) -> ConflictError:
    """What is live was changed between the look that a command took at it and its own change."""
    return ConflictError(
        f"{pointer} was changed by somebody else meanwhile.",
        why="It is not the one that was there when this command began.",
        remedy="Look at 'shipway status', then run the command again if it is still wanted.",
    )


class Delivery(Protocol):
    """A destination that can be asked what it holds and told to perform a step.

    Every step can be performed again after a crash, and none leaves a half release under a release's name.
    ``Point`` replaces what ``pointer`` found last, and nothing else: it raises ConflictError otherwise.
    All methods raise DeliveryError, saying what to do, where the destination can't be used.
    """

    address: str
    patches: bool
    """Whether it makes files of others that it holds (``Patch``)."""
    programs: Programs
    verdict: Json | None
    """What the gate printed that passed here last, if it was the bundle's golden check; else None."""

    def perform(self, step: Step) -> int:
        """Do one step; return the bytes that were sent for it."""

    def pointer(self) -> Pointer | None:
        """What is live, or None where nothing ever was."""

    def audit(self, manifest: Manifest) -> ManifestDiff:
        """Read the release of ``manifest`` back, digest by digest."""

    def has(self, manifest: Manifest) -> bool:
        """Whether the release is there, sealed, by name and sizes alone: cheap, for plans and ``status``."""

    def holds(self, digests: Iterable[Digest]) -> frozenset[Digest]:
        """Which of these contents the destination already has in some release, so need not be sent."""

    def releases(self) -> tuple[str, ...]:
        """Names of the sealed releases."""

    def withdraw(self) -> None:
        """Take the pointer away: the undo of a first deployment whose gate failed."""

    def clear(self, release: str) -> None:
        """Remove whatever a started deployment left in the staging place of ``release``."""


class HostDelivery(Delivery, Protocol):
    """One host of several."""

    def undo(self, mine: Pointer) -> None:
        """Make live again what was live here before ``mine``; nothing, where ``mine`` is not what is live."""

    def close(self) -> None:
        """Hang up; the next use connects again."""

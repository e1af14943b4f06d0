"""Signs of life for claims, given by a thread while their owner works: one file may take an hour to send."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Iterator

from shipway.registry.errors import ConflictError
from shipway.registry.ledger.events import Started
from shipway.registry.ledger.ledger import Ledger

EVERY_S = 60.0  # between signs of life; well under owner.LEASE_S
_END_S = 5.0  # how long a thread that hangs in the store is waited for at the end; it is a daemon


@contextlib.contextmanager
def kept(ledger: Ledger, claims: Iterable[tuple[Started, int]]) -> Iterator[None]:
    """Renew the leases of ``claims`` until the block ends; each with its take-over's number (see ``check``).

    Nothing that goes wrong here is an error of the command: it asks for its claim again by itself before it
    changes what others see. A claim that was lost or has ended is not renewed any more.
    """
    held = list(claims)
    over = threading.Event()

    def work() -> None:
        while held and not over.wait(EVERY_S):
            held[:] = [claim for claim in held if _renewed(ledger, *claim)]

    thread = threading.Thread(target=work, name="shipway-lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(_END_S)


def _renewed(ledger: Ledger, started: Started, taken: int) -> bool:
    """Renew one; False where it is nobody's to renew any more."""
    with contextlib.suppress(Exception):  # the store is away or full: the next sign of life may succeed
        try:
            ledger.check(started, taken)
        except ConflictError:
            return False
        ledger.renew(started)
    return True

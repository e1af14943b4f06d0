"""Talking to one host from code that waits: one event loop for all hosts, and new tries after a cut."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import threading
import time
import weakref
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, TypeVar

from shipway.registry.nouns import Json
from shipway.targets.deliveries.base import OutOfReachError
from shipway.targets.deliveries.ssh_address import Address, Patience, SshOptions, Traffic
from shipway.targets.deliveries.ssh_link import CutError, Link, Source

_T = TypeVar("_T")
_INLINE = 1 << 16  # bytes of a file up to which asking first would take longer than sending


class _Loop:
    """An event loop in a thread of its own, for as long as the process lives. A forked child gets its own."""

    _lock = threading.Lock()
    _current: tuple[int, asyncio.AbstractEventLoop] | None = None

    @classmethod
    def run(cls, work: Coroutine[Any, Any, _T]) -> _T:
        """Run to the end, and be interruptible meanwhile."""
        future = asyncio.run_coroutine_threadsafe(work, cls._get())
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    @classmethod
    def soon(cls, work: Callable[[], None]) -> None:
        """Have the loop do something, if there is one. Takes no lock: the caller may be holding it."""
        current = cls._current
        if current is not None and current[0] == os.getpid():
            current[1].call_soon_threadsafe(work)

    @classmethod
    def _get(cls) -> asyncio.AbstractEventLoop:
        with cls._lock:
            if cls._current is None or cls._current[0] != os.getpid():
                loop = asyncio.new_event_loop()
                threading.Thread(target=loop.run_forever, name="shipway-ssh", daemon=True).start()
                cls._current = (os.getpid(), loop)
            return cls._current[1]


class Session:
    """One host, for one command. Connects when first used and again when cut. Several threads may use it.

    Raises OutOfReachError where the host can't be reached, ConfigError where it can't be tried. A host that
    was given up is tried once, not patiently, until it answers again.
    """

    def __init__(self, address: Address, options: SshOptions, patience: Patience) -> None:
        self.address = address
        self.traffic = Traffic()
        self._given_up = False
        self._patience = patience
        self._lock = threading.Lock()
        self._link = Link(address, options, patience, secrets.token_hex(8), self.traffic)
        self._finalizer = weakref.finalize(self, _hang_up, self._link, os.getpid())

    def ask(self, request: Json) -> Json:
        """The helper's answer. A request must do no harm when it is done twice."""
        return self._tried(partial(self._link.ask, request))

    def send(self, request: Json, source: Source, size: int, *, ask_first: bool = False) -> Json:
        """The helper's answer to a file of ``size`` bytes; it goes on where a cut connection left off.

        A small file goes with the request, unless the helper shall be asked first. OSError where ``source``
        can't be read, EOFError where it is shorter.
        """
        if size > _INLINE or ask_first:
            return self._tried(partial(self._link.stream, request, source, size))
        with source.open("rb") as stream:
            payload = stream.read()
        if len(payload) < size:
            raise EOFError(source)
        return self._tried(partial(self._link.ask, {**request, "inline": True}, payload[:size]))

    def close(self) -> None:
        """Hang up. What is asked later connects again."""
        with self._lock:
            if self._link.is_open:
                _Loop.run(self._link.close())

    def _tried(self, work: Callable[[], Coroutine[Any, Any, Json]]) -> Json:
        with self._lock:
            return _Loop.run(self._try(work))

    async def _try(self, work: Callable[[], Coroutine[Any, Any, Json]]) -> Json:
        tries, pause, began = 0, self._patience.pause, time.monotonic()
        farthest = 0  # where the host said that it has got to: what we wrote may never have arrived
        self._link.offset = 0
        while True:
            try:
                if not self._link.is_open:
                    await self._link.open()
                answer = await work()
                self._given_up = False
                return answer
            except CutError as error:
                await self._link.close()
                if self._link.offset > farthest:
                    farthest, tries, pause = self._link.offset, 0, self._patience.pause
                tries += 1
                hopeless = self._given_up or self.traffic.connections == 0
                if tries >= self._patience.attempts or hopeless:
                    self._given_up = True
                    raise self._unreachable(error, time.monotonic() - began) from error
            except BaseException:
                # Whoever interrupts leaves an answer behind that nobody reads.
                with contextlib.suppress(Exception):
                    await self._link.close()
                raise
            await asyncio.sleep(pause * (0.5 + secrets.randbelow(1000) / 1000))
            pause = min(2 * pause, self._patience.longest_pause)

    def _unreachable(self, error: CutError, seconds: float) -> OutOfReachError:
        lost = self.traffic.connections > 0
        return OutOfReachError(
            f"{self.address} {'was lost' if lost else 'cannot be reached'}.",
            why=f"{error} ({seconds:.0f} s of trying).",
            remedy="Is it on, and does the network get there? Then try again: what has arrived is kept.",
        )


def _hang_up(link: Link, pid: int) -> None:
    """For a session that nobody uses any more. Any thread may collect it, the loop's too: so no waiting."""
    if link.is_open and pid == os.getpid():
        _Loop.soon(link.hang_up)

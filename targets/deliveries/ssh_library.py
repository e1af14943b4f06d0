"""asyncssh, less what takes time and is of no use here. Only this module and ``ssh_link`` know it."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shipway.registry.errors import ConfigError

if TYPE_CHECKING:
    import asyncssh

CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com")
"""Preferred where the host has them: what processors have instructions for."""


def load() -> Any:
    """The package. Raises ConfigError where it is not installed."""
    try:
        with _searching_less():
            import asyncssh
    except ImportError as error:
        raise ConfigError(
            "ssh:// needs the package asyncssh, which is not installed.",
            why=str(error),
            remedy="Install it: pip install 'shipway[ssh]'.",
        ) from error
    return asyncssh


def spare(connection: asyncssh.SSHClientConnection) -> None:
    """Send no packet that says nothing before each one that does: CBC needs that, our ciphers do not.

    They are half of all packets. Should asyncssh come to send them in another way, they are only sent again.
    """
    if connection.get_extra_info("send_cipher") not in CIPHERS:
        return
    send, ignore = connection.send_packet, load().constants.MSG_IGNORE

    def send_packet(kind: int, *parts: bytes, **more: Any) -> None:
        if kind != ignore:
            send(kind, *parts, **more)

    connection.send_packet = send_packet  # type: ignore[method-assign, assignment]


@contextlib.contextmanager
def _searching_less() -> Iterator[None]:
    """Keep asyncssh, while it is imported, from starting compilers and linkers in search of two libraries.

    It looks for them as it should where the loader knows them, or where nobody can tell.
    """
    if "asyncssh" in sys.modules or "LD_LIBRARY_PATH" in os.environ:
        yield
        return
    import ctypes.util

    search = ctypes.util.find_library
    try:
        cache = Path("/etc/ld.so.cache").read_bytes()
    except OSError:
        yield
        return
    ctypes.util.find_library = lambda name: search(name) if f"lib{name}.so".encode() in cache else None
    try:
        yield
    finally:
        ctypes.util.find_library = search

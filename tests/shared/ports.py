"""Ports for servers that can't be told to find one by themselves."""

from __future__ import annotations

import socket


def free_port() -> int:
    """A port of 127.0.0.1 on which nobody listens, and that nobody else is given while the tests run.

    It stays bound to the end of this process: Linux lets a server have it that sets SO_REUSEADDR, as all
    do, and gives it neither to who asks for any port nor to a connection.
    """
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(("127.0.0.1", 0))
    port = int(held.getsockname()[1])
    held.detach()
    return port

"""What ``ssh://user@host:port/folder`` means."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from shipway.registry.errors import ConfigError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*|[0-9A-Fa-f:.]+")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")


@dataclass(frozen=True, slots=True)
class Address:
    """One folder on one host. Without ``user`` or ``port`` the SSH configuration's, else the usual ones."""

    user: str | None
    host: str
    port: int | None
    folder: str

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read ``ssh://[user@]host[:port]/folder``; ``/~/folder`` is below the home. Raises ConfigError."""
        try:
            parts = urlsplit(text)
            user, host, port = parts.username, parts.hostname or "", parts.port
        except ValueError:
            user, host, port, parts = None, "", None, urlsplit("")
        folder = parts.path.rstrip("/")
        plain = folder.startswith("/") and folder.isprintable() and ".." not in folder.split("/")
        known = parts.scheme == "ssh" and not (parts.query or parts.fragment or parts.password)
        if not (known and plain and _NAME.fullmatch(host) and (user is None or _USER.fullmatch(user))):
            raise ConfigError(
                f"{text!r} is no folder on a host.",
                why="It has a host, perhaps a user and a port, and a path without '..'; never a password.",
                remedy="Write ssh://user@host/folder or ssh://user@host:port/folder in deploy.yaml.",
            )
        return cls(user, host, port, folder.removeprefix("/") if folder.startswith("/~") else folder)

    @property
    def login(self) -> str:
        """How OpenSSH's commands call it: ``deploy@line-1``."""
        return f"{self.user}@{self.host}" if self.user else self.host

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = f":{self.port}" if self.port else ""
        user = f"{self.user}@" if self.user else ""
        return f"ssh://{user}{host}{port}/{self.folder.removeprefix('/')}"


def for_host(template: str, host: str) -> Address:
    """The address of one of ``hosts``: its name or address, perhaps with a port, stands in for ``{host}``."""
    name = f"[{host}]" if host.count(":") > 1 else host
    return Address.parse(template.replace("{host}", name))


@dataclass(frozen=True, slots=True)
class SshOptions:
    """How hosts are reached. ``known_hosts``: the file with their keys; None: OpenSSH's usual ones.

    ``keys``: files with private keys; none: the agent's and the usual files.
    """

    known_hosts: Path | None = None
    keys: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait, in seconds, and how often to try again after a connection was cut.

    A connection over which nothing comes for ``silence`` counts as cut. Tries count from the last progress.
    """

    attempts: int = 5
    pause: float = 0.5  # before the first new try; it doubles
    longest_pause: float = 8.0
    connect: float = 10.0
    login: float = 30.0  # and as long again until the helper speaks
    silence: float = 15.0
    answer: float = 1800.0  # for one request: the longest reads a whole release, or runs a command of 600 s


@dataclass
class Traffic:
    """Bytes given to the SSH channel so far, and how often a connection was made."""

    sent: int = 0
    connections: int = field(default=0)

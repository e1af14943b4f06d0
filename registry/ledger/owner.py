"""Who holds a claim, and whether that process still lives.

On the same machine, boot and pid namespace the kernel knows: a process is its pid and its start time
(proc_pid_stat(5), field 22), so that a pid used again is no longer the owner. A machine that booted since
has killed all its processes. About any other machine only the lease says something: an owner renews it
while it works, and a claim that was not renewed for ``LEASE_S`` is taken over. Clocks may be wrong, so that
a lease is no proof: an owner asks for its claim again right before it changes what is live.
"""

from __future__ import annotations

import getpass
import os
import socket
from datetime import datetime, timezone
from pathlib import Path

from shipway.registry.ledger.events import Owner

LEASE_S = 15 * 60  # seconds without a sign of life after which an owner on another machine counts as dead


def now() -> str:
    """This instant in UTC, ISO 8601 with milliseconds: ``2026-01-31T12:00:00.000Z``."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def seconds_since(at: str) -> float:
    """Seconds from ``at`` (as ``now`` writes it) until now; negative where clocks disagree."""
    return (datetime.now(timezone.utc) - datetime.fromisoformat(at.replace("Z", "+00:00"))).total_seconds()


def actor() -> str:
    """``user@host`` for the ledger."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


def this_process() -> Owner:
    """The calling process as an owner."""
    pid = os.getpid()
    return Owner(
        host=socket.gethostname(),
        machine=_read("/etc/machine-id"),
        boot=_read("/proc/sys/kernel/random/boot_id"),
        namespace=_namespace(),
        pid=pid,
        born=_born(pid) or "",
    )


_abandoned: set[str] = set()  # commands of this process that could not undo what they did


def abandon(command: str) -> None:
    """Note that this process, though alive, works on ``command`` no more."""
    _abandoned.add(command)


def is_abandoned(command: str) -> bool:
    return command in _abandoned


def is_alive(owner: Owner, renewed: str) -> bool:
    """Whether ``owner``, whose last sign of life was at ``renewed``, may still be at work."""
    here = this_process()
    if owner.host == here.host and owner.machine == here.machine:
        if (owner.boot, owner.namespace) == (here.boot, here.namespace):
            return _lives_here(owner)
        if owner.machine and owner.boot and owner.boot != here.boot:
            return False  # the machine was started again since
    return abs(seconds_since(renewed)) < LEASE_S


def _lives_here(owner: Owner) -> bool:
    if not owner.born:  # no /proc: the pid alone has to do
        try:
            os.kill(owner.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
        return True
    return _born(owner.pid) == owner.born


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def _namespace() -> str:
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


def _born(pid: int) -> str | None:
    """The start time of a process that runs here, or None for one that is gone or only waits to be reaped."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (OSError, UnicodeDecodeError):
        return None
    fields = stat.rpartition(")")[2].split()  # the name before ')' may hold anything; state is field 3
    return None if fields[0] in "ZX" else fields[19]

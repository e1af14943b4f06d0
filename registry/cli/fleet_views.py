"""What people see of the hosts of a fleet. No I/O and nothing heavy here."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING

from shipway.registry.cli.layout import Cell, Table
from shipway.registry.cli.output import Block
from shipway.registry.units import format_size

if TYPE_CHECKING:
    from shipway.registry.deploy.execute import Deployment
    from shipway.registry.deploy.plan import Move
    from shipway.registry.verbs.status import TargetStatus

MANY = 20  # hosts; of more of them only those are listed that need a look
_STYLES = {"live": "green", "failed": "red", "unreachable": "yellow"}


def outcome(done: Deployment) -> Iterator[Block]:
    """How a deployment ended on each host, or on those that failed and in numbers for the others."""
    if not done.hosts:
        return
    failed = [host for host in done.hosts if host.outcome != "live"]
    listed = done.hosts if len(done.hosts) <= MANY else failed
    rows = [
        (
            host.host,
            Cell(host.outcome, _STYLES[host.outcome]),
            format_size(host.bytes_sent),
            f"{host.seconds:.1f} s",
            host.detail,
        )
        for host in listed
    ]
    if rows:
        columns = ("host", "outcome", "sent", "took", "why")
        yield Table(columns, rows, f"Hosts of {done.target}", wraps={"why": 20})
    text = f"{done.target}: {len(done.hosts) - len(failed)} of {len(done.hosts)} hosts serve it."
    if failed:
        text += f" The same 'promote' of {done.model}/{done.version} brings the others along later."
    yield text


def plan(move: Move) -> Iterator[Block]:
    """How the hosts are cut into waves."""
    if not move.fleet:
        return
    sizes = ", ".join(str(len(wave)) for wave in move.waves)
    waves = "at once" if len(move.waves) == 1 else f"in {len(move.waves)} waves ({sizes})"
    hosts = sum(map(len, move.waves))
    yield f"{move.target}: {hosts} hosts {waves}; {move.allowed} may fail."
    for name, why in move.lost.items():
        yield Cell(f"{move.target}: {name} is left out. {why}", "yellow")


def state(one: TargetStatus) -> str:
    """``healthy``, and of a fleet on how many hosts."""
    serving = sum(not host.problem for host in one.hosts.values())
    hosts = f" ({serving} of {len(one.hosts)} hosts)" if one.hosts else ""
    return ("healthy" if one.healthy else "NOT HEALTHY") + hosts


def problems(one: TargetStatus) -> Iterator[str]:
    """What is wrong with single hosts, of the first so many."""
    wrong = [host.problem for host in one.hosts.values() if host.problem]
    yield from itertools.islice(wrong, MANY)
    if len(wrong) > MANY:
        yield f"and {len(wrong) - MANY} more hosts (--json has all)"

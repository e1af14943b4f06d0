"""In which order hosts are deployed to, and when to stop. Pure; nothing here knows a host.

A roll-out goes wave by wave. ``waves`` in ``deploy.yaml`` says how many hosts at a time: numbers, or shares
of all of them, rounded up. The last size goes on until no host is left (as ``serial`` does in Ansible:
https://docs.ansible.com/ansible/latest/playbook_guide/playbooks_strategies.html).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Literal, TypeVar

_T = TypeVar("_T")
Decision = Literal["go on", "stop"]


def waves(hosts: Sequence[_T], sizes: Sequence[int | str]) -> list[tuple[_T, ...]]:
    """Cut ``hosts``, in their order, into waves. ``sizes`` are as in deploy.yaml: ``[1, "25%", "100%"]``.

    Every host is in exactly one wave and no wave is empty. Without sizes all go at once.
    """
    found: list[tuple[_T, ...]] = []
    done = 0
    for size in itertools.chain(sizes, itertools.repeat(sizes[-1] if sizes else "100%")):
        if done >= len(hosts):
            break
        found.append(tuple(hosts[done : done + count(size, len(hosts))]))
        done += len(found[-1])
    return found


def count(size: int | str, hosts: int) -> int:
    """How many hosts a wave has: ``1``, or ``"25%"`` of ``hosts``, rounded up."""
    found = size if isinstance(size, int) else -(-hosts * int(size.removesuffix("%")) // 100)
    if found < 1:
        raise ValueError(f"a wave of {size} hosts has no end")
    return found


def allowed_failures(limit: int | str, hosts: int) -> int:
    """How many hosts may fail: a number, or a share rounded down, so that ``"5%"`` of 10 hosts is none."""
    if isinstance(limit, int):
        return limit
    return hosts * int(limit.removesuffix("%")) // 100


def decide(failed: int, allowed: int, tried: int) -> Decision:
    """Whether to go on after so many hosts of all waves so far have failed, of the ``tried`` that were begun.

    Where every host that was tried has failed there is nothing to go on for, however many may fail: so a
    first host that fails stops the roll-out.
    """
    return "go on" if failed <= allowed and failed < tried else "stop"


def batches(hosts: Sequence[_T], most: int) -> Iterator[tuple[_T, ...]]:
    """Cut a wave into groups of at most ``most`` hosts, which are worked on at the same time."""
    for start in range(0, len(hosts), most):
        yield tuple(hosts[start : start + most])

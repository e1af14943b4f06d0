"""Hosts in a file of their own: ``hosts: {file: hosts.yaml, groups: [line-a]}`` in ``deploy.yaml``.

::

    hosts:                               # how single hosts differ from 'to'; may be left out
      line-1: {address: 10.0.4.1, port: 2222, user: deploy}
      line-2: {}
    groups:
      line-a: [line-1, line-2]

Rules:

1. A host in several of the groups counts once, where it is named first. Without ``groups`` all hosts of the
   file are taken, those under ``hosts`` first.
2. Where the file has ``hosts``, groups may name no others: a misspelt name would be deployed to by nobody.
3. What is wrong is told with the file's line, as of ``deploy.yaml`` itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from shipway.registry.config import document
from shipway.registry.config.check import suggestion
from shipway.registry.config.document import Document, Problem
from shipway.registry.config.explain import explain
from shipway.registry.config.model import HostConfig, InventoryConfig, Section
from shipway.registry.config.values import Host

Inventory = Mapping[tuple[str, str], Mapping[str, HostConfig]]
"""What is known of hosts by name, for each environment and target whose hosts are in a file."""

NONE: Inventory = {}


class HostsFile(Section):
    """The whole of an inventory."""

    hosts: dict[Host, HostConfig] = Field(default={}, description="hosts and how they differ")
    groups: dict[str, list[Host]] = Field(default={}, description="names of hosts, by the group's name")


def resolve(data: Any, root: Path, source: str) -> tuple[Any, Inventory, list[Problem]]:
    """``deploy.yaml``'s data with lists in place of inventories, what these say of hosts, and what is wrong.

    ``root`` is where relative paths start, ``source`` what messages call ``deploy.yaml``.
    """
    environments = data.get("environments")
    if not isinstance(environments, dict):
        return data, NONE, []
    known: dict[tuple[str, str], Mapping[str, HostConfig]] = {}
    files: dict[Path, HostsFile | None] = {}
    problems: list[Problem] = []
    found: dict[str, Any] = {}
    for environment, body in environments.items():
        found[environment] = dict(body) if isinstance(body, dict) else body
        for target, placement in body.items() if isinstance(body, dict) else ():
            if not isinstance(placement, dict) or not isinstance(placement.get("hosts"), dict):
                continue
            path = ("environments", environment, target, "hosts")
            hosts, names, wrong = _resolve(placement["hosts"], path, root, source, files)
            problems += wrong
            # A name that no host can have keeps the rest from being told as wrong because of it.
            found[environment][target] = {**placement, "hosts": names or ["unknown"]}
            known[environment, target] = hosts
    return {**data, "environments": found}, known, problems


def _resolve(
    raw: dict[str, Any],
    path: document.Path,
    root: Path,
    source: str,
    files: dict[Path, HostsFile | None],
) -> tuple[Mapping[str, HostConfig], list[str], list[Problem]]:
    """The options and the names of the hosts that one ``hosts: {...}`` means, and what is wrong."""
    try:
        wanted = InventoryConfig.model_validate(raw)
    except ValidationError as error:
        return {}, [], explain(error, InventoryConfig, path)
    file = root / Path(wanted.file).expanduser()
    problems: list[Problem] = []
    if file not in files:
        files[file], problems = _read(file, str(Path(source).parent / wanted.file), (*path, "file"))
    listed = files[file]
    if listed is None:
        return {}, [], problems
    for position, group in enumerate(wanted.groups):
        if group not in listed.groups:
            message = f"no group {group!r} in {wanted.file}; {suggestion(group, listed.groups)}"
            problems.append(Problem((*path, "groups", position), message))
    names = [name for group in wanted.groups or listed.groups for name in listed.groups.get(group, ())]
    names = list(dict.fromkeys(names if wanted.groups else [*listed.hosts, *names]))
    if not names and not problems:
        problems.append(Problem(path, f"{wanted.file} names no host"))
    return listed.hosts, names, problems


def _read(file: Path, source: str, path: document.Path) -> tuple[HostsFile | None, list[Problem]]:
    """An inventory, or what is wrong with it; ``path`` is where ``deploy.yaml`` names it."""
    try:
        found = document.read(file.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        return None, [Problem(path, f"{source} can't be read: {getattr(error, 'strerror', None) or error}")]
    listed, problems = _parse(found)
    problems = [*found.problems, *problems]
    placed = [Problem(one.path, one.message, one.line or found.line(one.path), source) for one in problems]
    return (None if placed else listed), placed


def _parse(found: Document) -> tuple[HostsFile | None, list[Problem]]:
    if not isinstance(found.data, dict):
        return None, [] if found.problems else [Problem((), "must be a mapping with 'hosts' or 'groups'")]
    try:
        listed = HostsFile.model_validate(found.data)
    except ValidationError as error:
        return None, explain(error, HostsFile, ())
    return listed, [
        Problem(("groups", group, at), f"no host {name!r} under 'hosts'; {suggestion(name, listed.hosts)}")
        for group, names in listed.groups.items()
        for at, name in enumerate(names)
        if listed.hosts and name not in listed.hosts
    ]

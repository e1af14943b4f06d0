"""What must hold between places of ``deploy.yaml``. Pure; each finding is a Problem with its path."""

from __future__ import annotations

import difflib
import posixpath
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from types import MappingProxyType
from typing import Any

from shipway.registry.config.document import Problem
from shipway.registry.config.model import ENVIRONMENT_KEYS, HostConfig

NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_RESERVED = {*ENVIRONMENT_KEYS, "targets"}
NAME_RULE = (
    "a name is lower-case letters, digits, '-' or '_', starts with a letter or a digit, and has 63 at most"
)


def suggestion(word: str, known: Collection[str]) -> str:
    """``did you mean 'precision'?`` or the list of what there is."""
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if near:
        return f"did you mean {near[0]!r}?"
    return f"known: {', '.join(sorted(known))}" if known else "there is none yet"


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _places(placement: dict[str, Any], known: Mapping[str, HostConfig]) -> list[str]:
    """What two placements must not share: the normalised destination, on each of its hosts."""
    to, hosts = placement.get("to"), placement.get("hosts")
    if not isinstance(to, str) or not to:
        return []
    scheme, separator, rest = to.rpartition("://")
    place = scheme + separator + posixpath.normpath(rest)
    if not isinstance(hosts, list):
        return [place]
    return [place.replace("{host}", _reached(str(host), known.get(str(host)))) for host in hosts]


def _reached(host: str, options: HostConfig | None) -> str:
    """Where a host of that name really is, by its inventory."""
    address = options.address or host if options else host
    return f"{address}:{options.port}" if options and options.port else address


def problems(
    data: dict[str, Any], known: Mapping[tuple[str, str], Mapping[str, HostConfig]] = MappingProxyType({})
) -> Iterator[Problem]:
    """Names that break the rule, lead nowhere, go in circles or collide, in the raw data.

    ``known`` is what inventories say of hosts, by environment and target.
    """
    targets = _mapping(data.get("targets"))
    environments = _mapping(data.get("environments"))
    yield from _names("targets", targets)
    yield from _names("environments", environments)
    yield from _placements(targets, environments, known)
    yield from _order(environments)


def _names(section: str, names: Collection[str]) -> Iterator[Problem]:
    for name in names:
        if name in _RESERVED:
            yield Problem((section, name), "this word has a meaning of its own; choose another name")
        elif not NAME.fullmatch(name):
            yield Problem((section, name), NAME_RULE)


def _placements(
    targets: dict[str, Any],
    environments: dict[str, Any],
    known: Mapping[tuple[str, str], Mapping[str, HostConfig]],
) -> Iterator[Problem]:
    """Placements of no target, and those that share an alias or a destination."""
    aliases: dict[str, str] = {}
    places: dict[str, str] = {}
    for environment, body in environments.items():
        for target in _mapping(body):
            if target in ENVIRONMENT_KEYS:
                continue
            path = ("environments", environment, target)
            if target not in targets:
                yield Problem(path, f"no such target under 'targets'; {suggestion(target, targets)}")
            pair, alias = f"{environment}.{target}", f"{environment}-{target}"
            if alias in aliases:
                yield Problem(path, f"has the same alias {alias!r} as {aliases[alias]}; rename one of them")
            aliases.setdefault(alias, pair)
            own = _places(_mapping(body[target]), known.get((environment, target), {}))
            # Without an inventory two hosts are one only where they have one name, which the model refuses.
            twice = [place for place, times in Counter(own).items() if times > 1] if known else []
            if twice:
                yield Problem((*path, "hosts"), f"two of its hosts are one and the same ({twice[0]})")
            shared = next((place for place in own if place in places), None)
            if shared is not None:
                what = f"is where {places[shared]} goes already" + (f" ({shared})" if len(own) > 1 else "")
                yield Problem((*path, "to"), f"{what}; give each a place of its own")
            places.update(dict.fromkeys(own, pair))


def _order(environments: dict[str, Any]) -> Iterator[Problem]:
    after = {name: _mapping(body).get("after") for name, body in environments.items()}
    for name, before in after.items():
        if not isinstance(before, str):
            continue  # none, or no text: the model says so
        path = ("environments", name, "after")
        if before not in after:
            hint = suggestion(str(before), [other for other in after if other != name])
            yield Problem(path, f"no environment {before!r}; {hint}")
            continue
        chain = [name]
        while isinstance(before, str) and before not in chain:
            chain.append(before)
            before = after.get(before)
        if before == name == min(chain):  # once for the whole circle
            yield Problem(path, f"goes in a circle: {' after '.join([*chain, name])}")

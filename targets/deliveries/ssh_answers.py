"""What a host's helper may answer, and what its refusals mean.

A host that answers anything else fails alone, by DeliveryError: neither the command nor the other hosts of a
fleet may end with a bug because something on one host writes into the connection.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from shipway.registry import units
from shipway.registry.errors import DeliveryError
from shipway.registry.nouns import Json
from shipway.targets.deliveries.base import changed

_SHA256 = re.compile(r"[0-9a-f]{64}")
_Is = Callable[[Json], bool]


def _one(*kinds: type) -> _Is:
    return lambda value: isinstance(value, kinds)


def _texts(value: Json) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _digests(value: Json) -> bool:
    texts = list(value.values()) if isinstance(value, dict) else None
    return _texts(texts) and all(_SHA256.fullmatch(text) for text in texts or ())


_ENDED: Mapping[str, _Is] = {"code": _one(int), "late": _one(bool), "stdout": _one(str), "stderr": _one(str)}
_KEYS: Mapping[str, Mapping[str, _Is]] = {
    "pointer": {"pointer": _one(dict, type(None))},
    "has": {"has": _one(bool)},
    "holds": {"sha256": _texts},
    "releases": {"releases": _texts},
    "audit": {"found": _digests, "manifest": _one(bool, type(None))},
    "reuse": {"copied": _one(bool)},
    "patch": {"patched": _one(bool)},
    "seal": {},
    "point": {"size": _one(int)},
    "run": _ENDED,
    "preflight": _ENDED,
}
"""What an answer to a request must have."""
_IF_THERE: Mapping[str, _Is] = {"wrong": _texts, "asked": _one(bool)}
_REFUSALS: Mapping[str, Mapping[str, _Is]] = {
    "request": {"text": _one(str)},
    "live": {"release": _one(str)},
    "os": {"text": _one(str), "path": _one(str), "errno": _one(int)},
    "space": {"need": _one(int), "free": _one(int)},
    "busy": {"pid": _one(str)},
    "release": {"release": _one(str)},
    "current": {},
    "changed": {},
    "digest": {},
    "room": {},
}


def sound(verb: str, answer: Json, address: str) -> Json:
    """The answer, if it is one to that request. Raises DeliveryError."""
    error = answer.get("error")
    wanted = (
        _KEYS.get(verb, {}) if error is None else _REFUSALS.get(error) if isinstance(error, str) else None
    )
    if wanted is None or not all(key in answer and fits(answer[key]) for key, fits in wanted.items()):
        raise nonsense(address, answer)
    if not all(fits(answer[key]) for key, fits in _IF_THERE.items() if key in answer):
        raise nonsense(address, answer)
    return answer


def agreed(answer: Json, address: str) -> Json:
    """A sound answer, unless it is a refusal. Raises what that means."""
    match answer.get("error"):
        case None:
            return answer
        case "request":
            raise ValueError(f"{address}: {answer['text']}")
        case "live":
            raise ValueError(f"{answer['release']} is live at {address}: a plan must not prune it")
        case "os":
            raise DeliveryError(
                f"The destination {address} can't be used.",
                why=f"{answer['text']}: {answer['path']}",
                remedy="Free space or mend the permissions there, or set another 'to' in deploy.yaml.",
            )
        case "space":
            need, free = units.format_size(answer["need"]), units.format_size(answer["free"])
            raise DeliveryError(
                f"There is no room at {address}: {need} needed, {free} free.",
                why="Nothing was sent. Old releases stay until the new one is live.",
                remedy="Free space there, or keep fewer old releases ('keep' in deploy.yaml).",
            )
        case "busy":
            # No ConflictError: who asks for a change has claimed the serial, and takes back what it did.
            raise DeliveryError(
                f"Somebody else is at work at {address}.",
                why=f"A process on that host is in the way ({answer['pid'] or 'it gives no name'}).",
                remedy="Try again when it is done. One whose connection was cut ends within two minutes.",
            )
        case "release":
            raise DeliveryError(
                f"There is no release {answer['release']} at {address}.",
                remedy="Promote the version again: that puts it there.",
            )
        case "changed":
            raise changed(f"{address}/current")
        case "current":
            raise DeliveryError(
                f"{address}/current is a folder, not a link.",
                remedy="Move it away: that name is for the link to the live release.",
            )
        case _:
            raise nonsense(address, answer)


def nonsense(address: str, answer: Json) -> DeliveryError:
    return DeliveryError(
        f"{address} answers in a way that makes no sense.",
        why=repr(answer)[:500],
        remedy="Something on that host writes into the connection: look at its login files.",
    )

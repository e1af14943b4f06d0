"""A row of the corpus' table: what became of one model, and what may be called ok."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

OK = "ok"
WORDS = {
    "does not load": "saved, does not load",
    "does not run": "saved, does not run",
}
"""How a verdict is said in the table, where it is said otherwise than it is called."""


class UnmeasuredError(ValueError):
    """A row says ok, and no measured number stands behind it."""


@dataclass(frozen=True)
class Verdict:
    """What one toolchain made of a model. ``outputs`` are measures, as ``register --json`` has them."""

    word: str
    why: str = ""
    outputs: tuple[Mapping[str, Any], ...] = ()

    def __post_init__(self) -> None:
        if self.ok:
            require_measured(self.outputs)

    @property
    def ok(self) -> bool:
        return self.word == OK

    @property
    def worst(self) -> Mapping[str, Any] | None:
        """The output that is furthest from what it may be off, by the rule for fp32."""
        return max(self.outputs, key=_excess, default=None)

    @property
    def flat(self) -> list[str]:
        """Outputs that hardly vary, so that their agreement proves little."""
        return [output["name"] for output in self.outputs if output["flat"]]

    @property
    def cell(self) -> str:
        if self.word == "numbers wrong":
            off = self.worst
            why = (
                f" by {off['max_abs']:.1e} of {off['scale']:.1e}" if off and _finite(off) else f": {self.why}"
            )
            return self.word + why
        if self.word == "crashed":
            return f"crashed ({self.why.partition(chr(10))[0].rpartition(' ')[2]})"
        return WORDS.get(self.word, self.word)

    @classmethod
    def of_score(cls, score: Mapping[str, Any]) -> Verdict:
        """From what ``score.py`` wrote."""
        return cls(score["verdict"], score["why"], tuple(score.get("outputs", ())))


def require_measured(outputs: Sequence[Mapping[str, Any]]) -> None:
    """Raise UnmeasuredError unless every output has finite numbers and one at least is not flat."""
    if not outputs:
        raise UnmeasuredError("no output was measured")
    for output in outputs:
        if not _finite(output):
            raise UnmeasuredError(f"{output['name']} has no finite numbers")
    if all(output["flat"] for output in outputs):
        raise UnmeasuredError("every output is so flat that a constant would pass")


def _finite(output: Mapping[str, Any]) -> bool:
    return all(math.isfinite(output[key]) for key in ("max_abs", "scale"))


def _excess(output: Mapping[str, Any]) -> float:
    return float(output["max_abs"]) / (1e-5 + 1e-5 * float(output["scale"]))


@dataclass(frozen=True)
class Row:
    """One model saved by one Paddle. ``shipway`` is the verdict on what was registered, by the same judge as
    the others; ``links`` what ``register`` itself measured. ``public`` by toolchain. ``bare``: see
    ``of_bare``, empty where it was not tried."""

    model: str
    kind: str
    saved_by: str
    plain: Verdict
    shipway: Verdict
    toolchain: str = ""
    repairs: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    links: tuple[Mapping[str, Any], ...] = ()
    seconds: float = 0.0
    bare: str = ""
    public: Mapping[str, Verdict] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.shipway.ok:
            return
        if not self.links:
            raise UnmeasuredError(f"{self.model} was registered without a link")
        for link in self.links:
            if not link["passed"]:
                raise UnmeasuredError(f"{self.model} was registered with a link that failed")
            require_measured(link["outputs"])

    @property
    def missed_by_shipway(self) -> list[str]:
        """Public toolchains that convert what shipway does not."""
        if self.shipway.ok:
            return []
        return [name for name, verdict in {"plain": self.plain, **self.public}.items() if verdict.ok]

    def to_json(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "kind": self.kind,
            "saved_by": self.saved_by,
            "plain": _told(self.plain),
            "public": {name: _told(verdict) for name, verdict in self.public.items()},
            "shipway": _told(self.shipway),
            "toolchain": self.toolchain,
            "repairs": list(self.repairs),
            "notes": list(self.notes),
            "links": [dict(link) for link in self.links],
            "seconds": self.seconds,
            "without_samples": self.bare,
        }


def of_bare(given: Mapping[str, Any], bare: Mapping[str, Any]) -> str:
    """What ``register`` without samples came to, ``given`` being what it said with them.

    It is ok only where every link passed, one of its outputs varies, and the conversion is the one that was
    judged on the samples: the same toolchain and repairs.
    """
    if "error" in bare:
        return f"exit {bare['error']['exit']}"
    if not bare["links"] or not all(link["passed"] for link in bare["links"]):
        raise UnmeasuredError("it was registered without a link that passed")
    try:
        for link in bare["links"]:
            require_measured(link["outputs"])
    except UnmeasuredError as error:
        return str(error)
    ways = [(told.get("toolchain"), told.get("repairs")) for told in (given, bare)]
    return "ok" if ways[0] == ways[1] else "ok, converted otherwise"


def _told(verdict: Verdict) -> dict[str, Any]:
    worst = verdict.worst if verdict.ok or verdict.word == "numbers wrong" else None
    told: dict[str, Any] = {"verdict": verdict.word, "why": verdict.why}
    if worst is not None:
        told |= {key: worst[key] if math.isfinite(worst[key]) else None for key in ("max_abs", "scale")}
        told |= {"output": worst["name"], "flat": verdict.flat}
    return told

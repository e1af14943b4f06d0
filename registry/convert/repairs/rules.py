"""What a repair is, and what is told of one that was applied."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from shipway.registry.nouns import Json

Program = dict[str, Any]  # a parsed model.json of Paddle 3; its form is told in pir.py


@dataclass(frozen=True, slots=True)
class Applied:
    """A repair that changed something: ``count`` places. ``reference`` says which defect it mends."""

    rule: str
    count: int
    reference: str

    def to_json(self) -> Json:
        return {"rule": self.rule, "count": self.count, "reference": self.reference}


@dataclass(frozen=True, slots=True)
class Rule:
    """A change to a program: ``places`` counts what it would change, ``rewrite`` changes it in place."""

    name: str
    reference: str
    places: Callable[[Program], int]
    rewrite: Callable[[Program], None]

    def apply(self, program: Program) -> Program:
        """A mended copy; ``program`` itself is left as it is."""
        mended = copy.deepcopy(program)
        self.rewrite(mended)
        return mended

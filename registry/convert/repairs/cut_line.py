"""One line of the table of what is cut out (``cuts.py``)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from shipway.registry.convert.repairs.pir import Op, Type
from shipway.registry.convert.repairs.stitch import Emit

Types = Mapping[int, Type | None]

UNMAPPED = "paddle2onnx 2.0.1 has no mapping for it and aborts"


def _always(_op: Op, _types: Types) -> bool:
    return True


@dataclass(frozen=True, slots=True)
class Cut:
    """An operator to cut out where ``when`` holds. ``reference`` says what converters do with it."""

    kind: str
    name: str
    emit: Emit
    reference: str
    when: Callable[[Op, Types], bool] = _always

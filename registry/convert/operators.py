"""Which of a Paddle program's operators a converter does not map: what its own message often leaves out."""

from __future__ import annotations

import importlib.util
import json
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from shipway.registry.convert.paddle_files import fields
from shipway.registry.convert.source import Source
from shipway.registry.nouns import Json

_PLAIN = frozenset({"data", "feed", "fetch", "full_int_array", "shadow_output"})
"""Operators that a converter reads without a mapping of their own."""


_OLD_NAMES = {
    "add": "elementwise_add",
    "divide": "elementwise_div",
    "floor_divide": "elementwise_floordiv",
    "maximum": "elementwise_max",
    "minimum": "elementwise_min",
    "multiply": "elementwise_mul",
    "remainder": "elementwise_mod",
    "subtract": "elementwise_sub",
}
"""What Paddle 3 calls otherwise than the converter's mappings (phi/ops/yaml/op_compat.yaml)."""


def unmapped(source: Source) -> list[str]:
    """The operators of a Paddle model that the installed paddle2onnx does not map, with the layers that use
    them where known: ``svd (in /Odd/)``. Empty where nothing is known."""
    known = _mapped()
    if not known:
        return []
    try:
        used = _pir_operators(source.model) if source.format == "pir" else _old_operators(source.model)
    except (ValueError, KeyError, TypeError, IndexError):
        return []  # a hint for a message: better none than a second error
    missing = {name: layers for name, layers in used.items() if not _is_known(name, known)}
    return [
        f"{name} (in {', '.join(sorted(layers)[:3])})" if layers else name
        for name, layers in sorted(missing.items())
    ]


def _is_known(name: str, known: frozenset[str]) -> bool:
    """Mappings go by the names of Paddle 2: ``unsqueeze2``, ``matmul_v2``, ``elementwise_add``."""
    if name in known | _PLAIN or _OLD_NAMES.get(name) in known:
        return True
    return any(other.startswith(name) or name.startswith(f"{other}_") for other in known)


def _mapped() -> frozenset[str]:
    """Read from the extension itself: it names a class ``<operator>PirGenerator`` for each mapping (and
    ``<operator>Generator`` for programs of Paddle 2), whose names are in its type information."""
    spec = importlib.util.find_spec("paddle2onnx")
    if spec is None or spec.origin is None:
        return frozenset()
    found: set[str] = set()
    for extension in Path(spec.origin).parent.glob("*.so"):
        pattern = rb"N11paddle2onnx\d+?([a-z_][a-z0-9_]*?)(?:Pir)?GeneratorE"
        found |= {name.decode() for name in re.findall(pattern, extension.read_bytes())}
    return frozenset(found)


def _pir_operators(model: Path) -> dict[str, set[str]]:
    used: dict[str, set[str]] = defaultdict(set)
    for op in _walk(json.loads(model.read_bytes())["program"]):
        dialect, _, name = op["#"].partition(".")
        if dialect != "1":  # 0 is the dialect of parameters and constants, 2 and up of control flow
            continue
        layers = {a["AT"]["D"] for a in op.get("A", []) if a.get("N") == "struct_name"}
        used[name.rstrip("_")] |= {layer for layer in layers if isinstance(layer, str)}
    return used


def _walk(holder: Json) -> Iterator[Json]:
    for region in holder.get("regions", ()):
        for block in region["blocks"]:
            for op in block["ops"]:
                yield op
                yield from _walk(op)


def _old_operators(model: Path) -> dict[str, set[str]]:
    """By the field numbers of ProgramDesc, BlockDesc and OpDesc in Paddle's framework.proto."""
    used: dict[str, set[str]] = {}
    for number, block in fields(model.read_bytes()):
        if number == 1 and isinstance(block, bytes):
            for inner, op in fields(block):
                if inner == 4 and isinstance(op, bytes):
                    kinds = [value for key, value in fields(op) if key == 3 and isinstance(value, bytes)]
                    used.update({kind.decode(): set() for kind in kinds})
    return used

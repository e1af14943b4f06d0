"""A Paddle program whose inner values can be looked at, and which ONNX tensor is which of them.

paddle2onnx 2 names what it makes after the operator: ``p2o.pd_op.conv2d.3.0`` is the first output of the
fourth ``conv2d`` of the program (measured on the corpus: all tensors of a model that Paddle knows as one
tensor, lists of tensors apart).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from shipway.registry.convert.repairs import pir, pir_make
from shipway.registry.convert.repairs.pir import Op
from shipway.registry.convert.repairs.rules import Program

_DIALECTS = {"0": "builtin", "1": "pd_op", "2": "cf"}
_GIVEN = (pir.DATA, "1.feed")


@dataclass(frozen=True, slots=True)
class Value:
    """One tensor of a program: its number there, what makes it, in which layer (empty where not known)."""

    number: int
    operator: str
    layer: str


def values(program: Program) -> dict[str, Value]:
    """The tensors of the main block that depend on the inputs, by the names that a converter gives them.

    Raises ``pir.UnknownFormError`` where the document is no program.
    """
    types = pir.raw_types(program)
    live: set[int] = set()
    seen: Counter[str] = Counter()
    found: dict[str, Value] = {}
    for op in pir.main_block(program)["ops"]:
        kind, made = op["#"], pir.outputs(op)
        dialect, _, operator = kind.partition(".")
        count, seen[kind] = seen[kind], seen[kind] + 1
        if kind in _GIVEN or pir.used([op]) & live:
            live.update(made)
            for position, number in enumerate(made):
                if kind != pir.FETCH and pir.tensor_type(types[number]):
                    name = f"p2o.{_DIALECTS.get(dialect, dialect)}.{operator}.{count}.{position}"
                    found[name] = Value(number, operator, str(pir.attributes(op).get("struct_name", "")))
    return found


def shared(converted: Program, reference: Program) -> dict[str, Value]:
    """The tensors of a mended program that the reference has too: one number, made by one operator."""
    kinds = {number: op["#"] for op in pir.main_block(reference)["ops"] for number in pir.outputs(op)}
    own = {number: op["#"] for op in pir.main_block(converted)["ops"] for number in pir.outputs(op)}
    return {
        name: value
        for name, value in values(converted).items()
        if kinds.get(value.number) == own[value.number]
    }


def fetching(program: Program, wanted: Mapping[str, int]) -> tuple[Program, list[str]]:
    """A copy that gives these values, by name and number, instead of its own outputs; and their order.

    A value is copied as soon as it is there: operators that work in place can't alter the copy.
    """
    types = pir.raw_types(program)
    names = {number: name for name, number in wanted.items()}
    fresh = max((abs(number) for number in types), default=0)
    ops: list[Op] = []
    fetches: dict[str, Op] = {}
    for op in pir.main_block(program)["ops"]:
        if op["#"] == pir.FETCH:
            continue
        ops.append(op)
        for number in _made_for(op, names):
            name, column, fresh = names[number], len(fetches), fresh + 2
            copy, fetches[name] = pir_make.fetch_ops(number, types[number], name, column, (fresh - 1, fresh))
            ops.append(copy)
    return pir.with_ops(program, [*ops, *fetches.values()]), list(fetches)


def _made_for(op: Op, names: Collection[int]) -> Iterator[int]:
    return (number for number in pir.outputs(op) if number in names)

"""What a loop appends to grows: a Paddle 2 program says how long it is after one turn, not that it varies."""

from __future__ import annotations

from shipway.registry.convert.repairs import pir
from shipway.registry.convert.repairs.pir import Op
from shipway.registry.convert.repairs.rules import Program, Rule


def _grown(program: Program) -> dict[int, int]:
    """Values that a loop's body appends to and hands back, with the axis that grows, said to be fixed."""
    ops = list(pir.walk(pir.main_block(program)["ops"]))
    makers = {number: op for op in ops for number in pir.outputs(op)}
    types = pir.raw_types(program)
    found: dict[int, int] = {}
    for op in ops:
        if op["#"] != "1.while":
            continue
        (block,) = pir.blocks_of(op)
        _, *handed = pir.results(block)
        carried, given = pir.inputs(op)[1:], pir.outputs(op)
        for position, (argument, raw) in enumerate(pir.arguments(block)):
            axis = _appended(handed[position], argument, makers)
            type = pir.tensor_type(raw)
            if axis is not None and type is not None and type.shape[axis] > 0:
                family = {carried[position], argument, given[position], handed[position]}
                found |= dict.fromkeys(family, axis % len(type.shape))
                found |= dict.fromkeys(_sources(handed[position], makers), axis % len(type.shape))
    for op in ops:  # in the order in which they run
        if op["#"] in (*pir.ALIKE, "1.cast") and (source := pir.inputs(op)[0]) in found:
            found |= dict.fromkeys(pir.outputs(op), found[source])
    return {number: axis for number, axis in found.items() if number in types}


def _sources(number: int, makers: dict[int, Op]) -> list[int]:
    """What a value is a copy of, step by step."""
    chain = []
    while (op := makers.get(number)) is not None and op["#"] in ("1.assign", "1.assign_out_"):
        number = pir.inputs(op)[0]
        chain.append(number)
    return chain


def _appended(number: int, argument: int, makers: dict[int, Op]) -> int | None:
    """The axis along which the value is the argument with something appended; None where it is not."""
    *_, source = (number, *_sources(number, makers))
    op = makers.get(source)
    if op is None or op["#"] != "1.concat":
        return None
    parts, axis = (makers.get(value) for value in pir.inputs(op))
    if parts is None or axis is None or argument not in pir.inputs(parts):
        return None
    value = pir.attributes(axis).get("value")
    return int(value) if isinstance(value, (int, float)) else None


def _vary(program: Program) -> None:
    grown = _grown(program)
    for op in pir.walk(pir.main_block(program)["ops"]):
        named = [(entry["%"], entry["TT"]) for entry in pir.made(op)]
        named += [pair for block in pir.blocks_of(op) for pair in pir.arguments(block)]
        for number, raw in named:
            if number in grown:
                raw["D"][1][grown[number]] = -1


GROWING = Rule(
    name="growing-loop",
    reference="a program of Paddle 2 says the length after one turn of what a loop appends to: does not run",
    places=lambda program: len(_grown(program)),
    rewrite=_vary,
)

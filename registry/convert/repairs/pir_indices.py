"""Indices, slices and computed weights, said in another way that means the same, or typed rightly."""

from __future__ import annotations

from shipway.registry.convert.repairs import pir, pir_make
from shipway.registry.convert.repairs.pir import Op
from shipway.registry.convert.repairs.rules import Program, Rule


def _same_shapes(program: Program) -> dict[int, list[int]]:
    """Lists of tensors broadcast against each other that have one shape already: list's number -> values."""
    ops = list(pir.walk(pir.main_block(program)["ops"]))
    types = pir.raw_types(program)
    lists = {number: pir.inputs(op) for op in ops if op["#"] == pir.COMBINE for number in pir.outputs(op)}
    found = {}
    for op in ops:
        if op["#"] == "1.broadcast_tensors" and pir.inputs(op)[0] in lists:
            values = lists[pir.inputs(op)[0]]
            shapes = {pir.known_type(types[number]).shape for number in values}
            if len(shapes) == 1 and all(size >= 0 for size in next(iter(shapes))):
                found[pir.outputs(op)[0]] = values
    return found


def _leave_broadcast_out(program: Program) -> None:
    same = _same_shapes(program)
    numbers: dict[int, int] = {}

    def replaced(op: Op) -> list[Op]:
        source = pir.inputs(op)[0] if op["#"] == pir.SPLIT else 0
        if source in same:
            numbers.update(zip(pir.outputs(op), same[source], strict=True))
            return []
        return [] if op["#"] == "1.broadcast_tensors" and pir.outputs(op)[0] in same else [op]

    pir.replace_ops(program, replaced)
    block = pir.main_block(program)
    block["ops"] = pir.renumber(block["ops"], numbers)


BROADCAST_SAME = Rule(
    name="broadcast-same",
    reference="paddle2onnx 2.0.1 does not map broadcast_tensors, which indexing by several lists writes",
    places=lambda program: len(_same_shapes(program)),
    rewrite=_leave_broadcast_out,
)


def _wrongly_typed(program: Program) -> dict[int, str]:
    """What ``unique`` and ``kthvalue`` give that is said to be float32 and is not: value -> dtype."""
    types = pir.raw_types(program)
    found: dict[int, str] = {}
    for op in pir.walk(pir.main_block(program)["ops"]):
        if op["#"] in ("1.unique", "1.kthvalue"):
            taken = pir.known_type(types[pir.inputs(op)[0]])
            values, *places = pir.outputs(op)
            found |= {values: taken.dtype, **dict.fromkeys(places, "int64")}
        elif op["#"] in pir.ALIKE and (source := pir.inputs(op)[0]) in found:
            found |= dict.fromkeys(pir.outputs(op), found[source])
    given = {number: pir.tensor_type(types[number]) for number in found}
    return {n: dtype for n, dtype in found.items() if (said := given[n]) is not None and said.dtype != dtype}


def _type_rightly(program: Program) -> None:
    right = _wrongly_typed(program)
    for op in pir.walk(pir.main_block(program)["ops"]):
        for entry in pir.made(op):
            if entry["%"] in right:
                entry["TT"]["D"][0] = {"#": pir.RAW_DTYPES[right[entry["%"]]]}


INDEX_TYPES = Rule(
    name="index-types",
    reference="Paddle 3 says float32 of integers that unique and kthvalue give: the result does not load",
    places=lambda program: len(_wrongly_typed(program)),
    rewrite=_type_rightly,
)


def _set_parameters(program: Program) -> int:
    return sum(op["#"] == _SET_PARAMETER for op in pir.walk(pir.main_block(program)["ops"]))


def _drop_set_parameters(program: Program) -> None:
    pir.replace_ops(program, lambda op: [] if op["#"] == _SET_PARAMETER else [op])


_SET_PARAMETER = "0.set_parameter"

SET_PARAMETER = Rule(
    name="set-parameter",
    reference="paddle2onnx 2.0.1 writes an empty file where a weight is computed and stored (weight_norm)",
    places=_set_parameters,
    rewrite=_drop_set_parameters,
)


def _backward_ends(program: Program) -> list[tuple[Op, list[int]]]:
    """Slices with steps below zero that end before the first element, said as -1, and right ends."""
    ops = list(pir.walk(pir.main_block(program)["ops"]))
    lists = {
        number: pir.attributes(op)["value"]
        for op in ops
        if op["#"] == "1.full_int_array"
        for number in pir.outputs(op)
    }
    found = []
    for op in ops:
        if op["#"] == "1.strided_slice":
            ends, steps = (lists.get(number) for number in pir.inputs(op)[2:4])
            if ends and steps and any(end == -1 and step < 0 for end, step in zip(ends, steps, strict=True)):
                pairs = zip(ends, steps, strict=True)
                found.append((op, [_BEFORE if end == -1 and step < 0 else end for end, step in pairs]))
    return found


def _end_before(program: Program) -> None:
    fresh = pir.fresh_numbers(pir.raw_types(program))
    right = {id(op): ends for op, ends in _backward_ends(program)}

    def replaced(op: Op) -> list[Op]:
        return pir_make.with_int_array(op, 2, right[id(op)], next(fresh)) if id(op) in right else [op]

    pir.replace_ops(program, replaced)


_BEFORE = -(2**31)  # before every element, for ONNX's Slice

BACKWARD_SLICE = Rule(
    name="backward-slice",
    reference="-1 as the end of a slice with a step below zero is before the first element for Paddle "
    "(strided_slice.h), the last one for ONNX: another shape",
    places=lambda program: len(_backward_ends(program)),
    rewrite=_end_before,
)

INDEXING = (BROADCAST_SAME, INDEX_TYPES, SET_PARAMETER, BACKWARD_SLICE)

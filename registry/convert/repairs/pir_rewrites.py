"""Operators written in a way that converters stumble over, said in another way that means the same."""

from __future__ import annotations

from collections.abc import Iterator

from shipway.registry.convert.repairs import pir, pir_make
from shipway.registry.convert.repairs.pir import Op
from shipway.registry.convert.repairs.rules import Program, Rule


def _means_of_all(program: Program) -> list[tuple[Op, int]]:
    """Means whose list of axes is empty, which is all of them, with the rank of what they take."""
    ops = list(pir.walk(pir.main_block(program)["ops"]))
    empty = {
        number
        for op in ops
        if op["#"] == "1.full_int_array" and not pir.attributes(op)["value"]
        for number in pir.outputs(op)
    }
    types = pir.raw_types(program)
    found = []
    for op in ops:
        if op["#"] == "1.mean" and pir.inputs(op)[1] in empty:
            taken = pir.tensor_type(types[pir.inputs(op)[0]])
            if taken is not None and taken.shape:
                found.append((op, len(taken.shape)))
    return found


def _name_axes(program: Program) -> None:
    fresh = pir.fresh_numbers(pir.raw_types(program))
    axes = {id(op): range(rank) for op, rank in _means_of_all(program)}

    def replaced(op: Op) -> list[Op]:
        return pir_make.with_int_array(op, 1, axes[id(op)], next(fresh)) if id(op) in axes else [op]

    pir.replace_ops(program, replaced)


_NEGLIGIBLE = 1e-5  # paddle2onnx takes a bias below this for none


def _small_biases(program: Program) -> list[Op]:
    """Scales that add a tiny number: the epsilon of a normalisation written by hand."""
    found = []
    types = pir.raw_types(program)
    for op in pir.walk(pir.main_block(program)["ops"]):
        if op["#"] != "1.scale":
            continue
        taken = pir.tensor_type(types[pir.inputs(op)[0]])
        floating = taken is not None and taken.dtype in ("float32", "float64")
        if floating and 0 < abs(pir.attributes(op)["bias"]) <= _NEGLIGIBLE:
            found.append(op)
    return found


def _add_apart(program: Program) -> None:
    types = pir.raw_types(program)
    fresh = pir.fresh_numbers(types)
    small = {id(op) for op in _small_biases(program)}
    pir.replace_ops(program, lambda op: _split_scale(op, types, fresh) if id(op) in small else [op])


def _split_scale(op: Op, types: dict[int, Op], fresh: Iterator[int]) -> list[Op]:
    """``scale * x + bias`` as a scale without bias and a sum; ``scale * (x + bias)`` the other way round."""
    attributes = pir.attributes(op)
    (made,) = pir.outputs(op)
    raw = types[made]
    constant, between = next(fresh), next(fresh)
    number = pir_make.full_op(constant, attributes["bias"], pir.known_type(raw).dtype)
    bias = next(entry["AT"] for entry in op["A"] if entry["N"] == "bias")
    bias["D"] = 0.0
    if attributes.get("bias_after_scale", True):
        scaled = pir.renumber([op], {made: between})[0]
        return [number, scaled, pir_make.add_op(between, constant, made, raw)]
    x = pir.inputs(op)[0]
    op["I"][0]["%"] = between
    return [number, pir_make.add_op(x, constant, between, raw), op]


SMALL_BIAS = Rule(
    name="small-bias",
    reference="paddle2onnx 2.0.1 and 1.2.4 drop a bias of 1e-5 or less, such as a norm's epsilon",
    places=lambda program: len(_small_biases(program)),
    rewrite=_add_apart,
)


MEAN_OF_ALL = Rule(
    name="mean-of-all",
    reference="paddle2onnx 2.0.1 aborts on a mean over all axes: Can not get input 'axis(dim)' value",
    places=lambda program: len(_means_of_all(program)),
    rewrite=_name_axes,
)


def _dilated_same(program: Program) -> list[Op]:
    """Lists of dilations other than 1 in convolutions that pad to the same size."""
    found = []
    for op in pir.walk(pir.main_block(program)["ops"]):
        if op["#"] not in ("1.conv2d", "1.depthwise_conv2d"):
            continue
        attributes = pir.attributes(op)
        if attributes["padding_algorithm"] == "SAME" and any(each != 1 for each in attributes["dilations"]):
            found.append(next(entry["AT"] for entry in op["A"] if entry["N"] == "dilations"))
    return found


def _undilate(program: Program) -> None:
    for attribute in _dilated_same(program):
        for item in attribute["D"]:
            item["D"] = 1


DILATED_SAME = Rule(
    name="dilated-same-padding",
    reference="Paddle sets dilation to 1 where padding is SAME (UpdatePaddingAndDilation, conv_util.h); "
    "paddle2onnx 2.0.1 aborts on the pair",
    places=lambda program: len(_dilated_same(program)),
    rewrite=_undilate,
)


def _taken_apart(ops: list[Op]) -> dict[int, dict[int, int]]:
    """Lists of tensors taken apart one by one: list's number -> position -> number of what was taken."""
    found: dict[int, dict[int, int]] = {}
    twice = set()
    for op in ops:
        if op["#"] == "0.slice":
            (whole,), (made,) = pir.inputs(op), pir.outputs(op)
            position = pir.attributes(op)["index"]
            twice |= {whole} if position in found.setdefault(whole, {}) else set()
            found[whole][position] = made
    return {whole: taken for whole, taken in found.items() if whole not in twice}


def _split_at_once(program: Program) -> None:
    types = pir.raw_types(program)
    fresh = pir.fresh_numbers(types)
    for ops in pir.lists_of(pir.main_block(program)):
        apart = _taken_apart(ops)
        changed: list[Op] = []
        done: set[int] = set()
        for op in ops:
            whole = pir.inputs(op)[0] if op["#"] == "0.slice" else 0
            if whole not in apart:
                changed.append(op)
            elif whole not in done:
                done.add(whole)
                items = types[whole]["D"]
                numbers = [apart[whole].get(position) or next(fresh) for position in range(len(items))]
                changed.append(pir_make.split_op(whole, numbers, items))
        ops[:] = changed


SPLIT_AT_ONCE = Rule(
    name="split-at-once",
    reference="paddle2onnx 2.0.1 crashes on builtin.slice, which the translation of Paddle 2's unbind gives",
    places=lambda program: sum(len(_taken_apart(ops)) for ops in pir.lists_of(pir.main_block(program))),
    rewrite=_split_at_once,
)


REWRITES = (MEAN_OF_ALL, SMALL_BIAS, DILATED_SAME, SPLIT_AT_ONCE)

"""Rules about indices, layouts and loops: what they change, and what they leave alone."""

from __future__ import annotations

from typing import Any

import pytest

from shipway.registry.convert import repairs
from shipway.registry.convert.repairs import pir


def mended(builder: Any) -> tuple[list[pir.Op], list[tuple[str, int]]]:
    """The operators of the mended program, and the rules that were applied."""
    program, applied = repairs.mend_program(builder.program())
    return pir.main_block(program)["ops"], [(each.rule, each.count) for each in applied]


def two_lists(builder: Any, first: tuple[int, ...], second: tuple[int, ...]) -> tuple[int, int, int, int]:
    """Two indices broadcast against each other and used: their numbers, and those after the broadcast."""
    a, b = builder.data("a", first, "int64"), builder.data("b", second, "int64")
    together = builder.op("1.broadcast_tensors", builder.op("0.combine", a, b))
    for op in builder.ops[-2:]:
        op["O"][0]["TT"] = {
            "#": "0.t_vec",
            "D": [builder.type(first, "int64"), builder.type(second, "int64")],
        }
    c = builder.op("0.split", together, shape=first, dtype="int64")
    d = c + 1
    builder.ops[-1]["O"].append({"%": d, "TT": builder.type(first, "int64")})
    builder._next += 1
    builder.fetch(builder.op("1.add", c, d, shape=first, dtype="int64"), "y")
    return a, b, c, d


def test_lists_of_one_shape_need_no_broadcast(builder: Any) -> None:
    a, b, _, _ = two_lists(builder, (3,), (3,))
    ops, applied = mended(builder)
    assert applied == [("broadcast-same", 1)]
    assert not {"1.broadcast_tensors", "0.split"} & {op["#"] for op in ops}
    assert pir.inputs(next(op for op in ops if op["#"] == "1.add")) == [a, b]


def test_lists_of_other_shapes_are_left_alone(builder: Any) -> None:
    two_lists(builder, (3,), (1,))
    assert mended(builder)[1] == []


@pytest.mark.parametrize(("kind", "second"), [("1.unique", "int64"), ("1.kthvalue", "int64")])
def test_integers_said_to_be_floats_are_said_rightly(builder: Any, kind: str, second: str) -> None:
    made = builder.op(kind, builder.data("x", (-1,), "int64"), shape=(-1,))
    builder.ops[-1]["O"].append({"%": made + 1, "TT": builder.type((-1,))})
    builder._next += 1
    for number, name in ((made, "values"), (made + 1, "places")):
        builder.fetch(number, name)
        builder.ops[-1]["O"] = [{"%": number + 50, "TT": builder.type((-1,))}]
    ops, applied = mended(builder)
    assert applied == [("index-types", 4)]
    found = [pir.known_type(entry["TT"]).dtype for op in ops[1:] for entry in pir.made(op)]
    assert found == ["int64", second, "int64", "int64"]


def test_a_weight_that_is_computed_is_not_stored(builder: Any) -> None:
    weight = builder.op("1.multiply", builder.data("x"), builder.data("w"))
    builder.ops.append({"#": "0.set_parameter", "A": [], "I": [{"%": weight}], "O": []})
    builder.fetch(weight, "y")
    ops, applied = mended(builder)
    assert applied == [("set-parameter", 1)]
    assert "0.set_parameter" not in {op["#"] for op in ops}


@pytest.mark.parametrize(
    ("ends", "steps", "expected"),
    [((-1,), (-1,), [-(2**31)]), ((-1, 7), (-2, 3), [-(2**31), 7]), ((-1,), (1,), None), ((0,), (-1,), None)],
)
def test_before_the_first_element_is_no_negative_index(
    builder: Any, ends: tuple[int, ...], steps: tuple[int, ...], expected: list[int] | None
) -> None:
    x = builder.data("x", (4, 4))
    starts = builder.axes(*([3] * len(ends)))
    builder.fetch(builder.op("1.strided_slice", x, starts, builder.axes(*ends), builder.axes(*steps)), "y")
    ops, applied = mended(builder)
    slice_op = next(op for op in ops if op["#"] == "1.strided_slice")
    lists = {
        n: pir.attributes(op)["value"] for op in ops if op["#"] == "1.full_int_array" for n in pir.outputs(op)
    }
    assert lists[pir.inputs(slice_op)[2]] == (expected or list(ends))
    assert applied == ([("backward-slice", 1)] if expected else [])


def pooling(builder: Any, described: Any, layout: str) -> int:
    x = builder.data("x", (-1, 8, 6, 3))
    made: int = builder.op(
        "1.pool2d", x, shape=(-1, 4, 3, 3), attributes=[described("data_format", layout, "0.a_str")]
    )
    builder.fetch(made, "y")
    return made


def test_channels_that_come_last_come_first_inside(builder: Any, described: Any) -> None:
    made = pooling(builder, described, "NHWC")
    ops, applied = mended(builder)
    assert applied == [("channels-last", 1)]
    kinds = [op["#"] for op in ops]
    assert kinds == ["1.data", "1.transpose", "1.pool2d", "1.transpose", "1.fetch"]
    before, pool, after = ops[1:4]
    assert pir.attributes(before)["perm"] == [0, 3, 1, 2]
    assert pir.known_type(pir.made(before)[0]["TT"]).shape == (-1, 3, 8, 6)
    assert pir.attributes(pool)["data_format"] == "NCHW"
    assert pir.known_type(pir.made(pool)[0]["TT"]).shape == (-1, 3, 4, 3)
    assert pir.outputs(after) == [made]
    assert pir.known_type(pir.made(after)[0]["TT"]).shape == (-1, 4, 3, 3)


def test_channels_that_come_first_stay(builder: Any, described: Any) -> None:
    pooling(builder, described, "NCHW")
    assert mended(builder)[1] == []


@pytest.mark.parametrize("appends", [True, False])
def test_what_a_loop_appends_to_varies(builder: Any, appends: bool) -> None:
    ids, going = builder.data("ids", (-1, 2)), builder.data("going", (1,), "bool")
    inner = builder.inside([(-1, builder.type((-1, 2)))])
    one = inner.full(1.0)
    if appends:
        longer = inner.op("1.concat", inner.op("0.combine", -1, -1), one, shape=(-1, 2))
    else:
        longer = inner.op("1.add", -1, -1, shape=(-1, 2))
    handed = inner.op("1.assign", longer, shape=(-1, 2))
    inner.give(going, handed)
    loop = builder.op("1.while", going, ids, shape=(-1, 2), blocks=[inner.block()])
    builder.fetch(loop, "y")
    ops, applied = mended(builder)
    assert [name for name, _ in applied] == (["growing-loop"] if appends else [])
    expected = (-1, -1) if appends else (-1, 2)
    assert pir.known_type(pir.made(ops[0])[0]["TT"]).shape == expected
    while_op = next(op for op in ops if op["#"] == "1.while")
    assert pir.known_type(pir.made(while_op)[0]["TT"]).shape == expected
    (block,) = pir.blocks_of(while_op)
    assert pir.known_type(pir.arguments(block)[0][1]).shape == expected

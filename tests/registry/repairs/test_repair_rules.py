"""Rules that rewrite a program: what they change, what they leave, and that they change a copy."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from shipway.registry.convert import repairs
from shipway.registry.convert.repairs import pir
from shipway.registry.errors import ConversionError

DOUBLES = [
    ("1.nearest_interp", "scale", [2.0, 2.0], "interpolation-scales"),
    ("1.bicubic_interp", "scale", [1.5], "interpolation-scales"),
    ("1.softplus", "beta", 1.0, "softplus-attributes"),
    ("1.pad3d", "pad_value", 0.5, "pad-value"),
    ("1.leaky_relu", "negative_slope", 0.1, "leaky-slope"),
    ("1.group_norm", "epsilon", 1e-5, "norm-epsilon"),
    ("1.logit", "eps", 1e-6, "logit-epsilon"),
]


def _kinds(op: dict[str, Any], name: str) -> list[str]:
    attribute = next(entry["AT"] for entry in op["A"] if entry["N"] == name)
    items = attribute["D"] if attribute["#"] == "0.a_array" else [attribute]
    return [item["#"] for item in items]


@pytest.mark.parametrize(("kind", "name", "value", "rule"), DOUBLES)
def test_a_double_becomes_a_float_of_the_same_value(
    kind: str, name: str, value: Any, rule: str, builder: Any, described: Any
) -> None:
    builder.op(kind, builder.data("x"), attributes=[described(name, value, "0.a_f64")])
    program = builder.program()
    before = copy.deepcopy(program)
    mended, applied = repairs.mend_program(program)
    assert program == before, "the given program changed"
    count = len(value) if isinstance(value, list) else 1
    assert [(each.rule, each.count) for each in applied] == [(rule, count)]
    op = pir.main_block(mended)["ops"][-1]
    assert set(_kinds(op, name)) == {"0.a_f32"}
    assert pir.attributes(op)[name] == value
    again, second = repairs.mend_program(mended)
    assert second == []
    assert again is mended


def test_a_double_inside_a_branch_is_found(builder: Any, described: Any) -> None:
    x = builder.data("x")
    inner = builder.inside()
    inner.give(inner.op("1.leaky_relu", x, attributes=[described("negative_slope", 0.2, "0.a_f64")]))
    builder.op("1.if", x, blocks=[inner.block()])
    _, applied = repairs.mend_program(builder.program())
    assert [each.rule for each in applied] == ["leaky-slope"]


def test_doubles_that_belong_there_stay(builder: Any) -> None:
    builder.full(2.0)
    program = builder.program()
    mended, applied = repairs.mend_program(program)
    assert applied == []
    assert mended is program


def test_a_mean_of_all_names_its_axes(builder: Any) -> None:
    x = builder.data("x", (-1, 3, 8))
    builder.op("1.mean", x, builder.axes(), shape=())
    builder.op("1.mean", x, builder.axes(1), shape=(-1, 8))
    mended, applied = repairs.mend_program(builder.program())
    assert [(each.rule, each.count) for each in applied] == [("mean-of-all", 1)]
    ops = pir.main_block(mended)["ops"]
    values = {number: pir.attributes(op).get("value") for op in ops for number in pir.outputs(op)}
    means = [values[pir.inputs(op)[1]] for op in ops if op["#"] == "1.mean"]
    assert means == [[0, 1, 2], [1]]
    numbers = [number for op in ops for number in pir.outputs(op)]
    assert len(numbers) == len(set(numbers))


@pytest.mark.parametrize(("bias", "touched"), [(1e-6, True), (-1e-5, True), (0.0, False), (1e-3, False)])
def test_a_small_bias_is_added_apart(bias: float, touched: bool, builder: Any, described: Any) -> None:
    attributes = [described("bias", bias, "0.a_f32"), described("bias_after_scale", True, "0.a_bool")]
    scaled = builder.op("1.scale", builder.data("x"), builder.full(3.0), attributes=attributes)
    builder.fetch(scaled, "y")
    mended, applied = repairs.mend_program(builder.program())
    assert [each.rule for each in applied] == (["small-bias"] if touched else [])
    if touched:
        ops = {op["#"]: op for op in pir.main_block(mended)["ops"]}
        assert pir.attributes(ops["1.scale"])["bias"] == 0.0
        assert pir.outputs(ops["1.add"]) == [scaled]
        assert pir.inputs(ops["1.add"])[0] == pir.outputs(ops["1.scale"])[0]
        assert pir.inputs(ops["1.fetch"]) == [scaled]


def test_a_small_bias_before_the_scale_is_added_before_it(builder: Any, described: Any) -> None:
    attributes = [described("bias", 1e-6, "0.a_f32"), described("bias_after_scale", False, "0.a_bool")]
    x = builder.data("x")
    scaled = builder.op("1.scale", x, builder.full(3.0), attributes=attributes)
    mended, _ = repairs.mend_program(builder.program())
    ops = {op["#"]: op for op in pir.main_block(mended)["ops"]}
    assert pir.inputs(ops["1.add"])[0] == x
    assert pir.inputs(ops["1.scale"])[0] == pir.outputs(ops["1.add"])[0]
    assert pir.outputs(ops["1.scale"]) == [scaled]


@pytest.mark.parametrize(("padding", "expected"), [("SAME", [1, 1]), ("EXPLICIT", [2, 2])])
def test_dilation_falls_with_same_padding(
    padding: str, expected: list[int], builder: Any, described: Any
) -> None:
    attributes = [
        described("padding_algorithm", padding, "0.a_str"),
        described("dilations", [2, 2], "0.a_i32"),
    ]
    builder.op("1.conv2d", builder.data("x"), builder.data("w"), attributes=attributes)
    mended, _ = repairs.mend_program(builder.program())
    assert pir.attributes(pir.main_block(mended)["ops"][-1])["dilations"] == expected


def test_a_list_taken_apart_piece_by_piece_is_split_at_once(builder: Any, described: Any) -> None:
    whole = builder.op("1.unbind", builder.data("x", (3, 4)))
    builder.ops[-1]["O"][0]["TT"] = {"#": "0.t_vec", "D": [builder.type((4,))] * 3}
    last = builder.op("0.slice", whole, shape=(4,), attributes=[described("index", 2, "0.a_i32")])
    first = builder.op("0.slice", whole, shape=(4,), attributes=[described("index", 0, "0.a_i32")])
    builder.fetch(builder.op("1.add", first, last, shape=(4,)), "y")
    mended, applied = repairs.mend_program(builder.program())
    assert [(each.rule, each.count) for each in applied] == [("split-at-once", 1)]
    ops = pir.main_block(mended)["ops"]
    assert [op["#"] for op in ops] == ["1.data", "1.unbind", "0.split", "1.add", "1.fetch"]
    made = pir.outputs(ops[2])
    assert (made[0], made[2]) == (first, last)
    assert len(set(made)) == 3


@pytest.mark.parametrize("text", ["{}", "[]", '{"program": 3}', "not json"])
def test_what_is_no_program_is_left_to_the_converter(text: str, tmp_path: Any) -> None:
    model = tmp_path / "model.json"
    model.write_text(text)
    mended = repairs.mend(model, None, tmp_path)
    assert [piece.model for piece in mended.pieces] == [model]
    assert mended.applied == ()


def test_a_repair_that_stumbles_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, builder: Any
) -> None:
    def broken(program: Any) -> int:
        raise KeyError("a slip")

    rule = repairs.Rule("broken", "a rule with a slip in it", broken, lambda program: None)
    monkeypatch.setattr(repairs, "RULES", (*repairs.RULES, rule))
    builder.fetch(builder.data("x"), "y")
    model = tmp_path / "model.json"
    model.write_text(json.dumps(builder.program()))
    with pytest.raises(ConversionError, match="stumbled over the program") as caught:
        repairs.mend(model, None, tmp_path)
    assert "KeyError: 'a slip' (test_repair_rules.py, line" in caught.value.why


def test_every_rule_has_a_name_of_its_own_and_says_why() -> None:
    names = [rule.name for rule in repairs.RULES]
    assert len(names) == len(set(names))
    assert all(len(rule.reference) > 20 for rule in repairs.RULES)

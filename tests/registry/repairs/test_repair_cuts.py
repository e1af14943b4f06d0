"""Programs cut at operators and put together again, converted in between by the smallest of converters."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from shipway.registry.convert.repairs import cut, cuts, pir
from shipway.registry.convert.repairs.stitch import stitch

PLAIN = {
    "1.add": "Add",
    "1.multiply": "Mul",
    "1.tanh": "Tanh",
    "1.assign": "Identity",
    "1.less_than": "Less",
    "1.greater_than": "Greater",
}
DTYPES = {"float32": onnx.TensorProto.FLOAT, "int64": onnx.TensorProto.INT64, "bool": onnx.TensorProto.BOOL}
WEIGHT = np.array([0.5, -1.0, 2.0, 0.25], np.float32)


def convert(program: dict[str, Any]) -> onnx.ModelProto:
    """ONNX of a program without control flow; every part uses the same names inside, as converters do."""
    nodes, inputs, outputs, weights = [], [], [], []
    types = {number: pir.known_type(raw) for number, raw in pir.raw_types(program).items()}
    names: dict[int, str] = {}
    for op in pir.main_block(program)["ops"]:
        (made,) = pir.outputs(op)
        names[made] = f"value.{len(names)}"
        taken = [names[number] for number in pir.inputs(op)]
        attributes = pir.attributes(op)
        if op["#"] == pir.PARAMETER:
            weights.append(numpy_helper.from_array(WEIGHT, names[made]))
        elif op["#"] == pir.DATA:
            names[made] = attributes["name"]
            kind = types[made]
            shape = [None if size < 0 else size for size in kind.shape]
            inputs.append(helper.make_tensor_value_info(names[made], DTYPES[kind.dtype], shape))
        elif op["#"] == pir.FETCH:
            nodes.append(helper.make_node("Identity", taken, [attributes["name"]]))
            kind = types[pir.inputs(op)[0]]
            shape = [None if size < 0 else size for size in kind.shape]
            outputs.append(helper.make_tensor_value_info(attributes["name"], DTYPES[kind.dtype], shape))
        elif op["#"] == "1.full":
            value = np.array(attributes["value"], np.float32)
            nodes.append(
                helper.make_node("Constant", [], [names[made]], value=numpy_helper.from_array(value))
            )
        else:
            nodes.append(helper.make_node(PLAIN[op["#"]], taken, [names[made]]))
    graph = helper.make_graph(nodes, "part", inputs, outputs, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def wanted(op: pir.Op, _types: Any) -> bool:
    return op["#"] in ("1.if", "1.while")


def run(program: dict[str, Any], **feeds: np.ndarray) -> list[np.ndarray]:
    """Cut, convert the parts, stitch, run."""
    parts = cut.divide(program, wanted)
    model = stitch(parts, {part.name: convert(part.program) for part in parts}, cuts.EMITS)
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    assert {value.name for value in session.get_inputs()} == set(feeds)
    found: list[np.ndarray] = session.run(None, feeds)
    return found


def test_a_program_without_cuts_is_one_part(builder: Any) -> None:
    builder.fetch(builder.op("1.tanh", builder.data("x")), "y")
    (part,) = cut.divide(builder.program(), wanted)
    assert part.joints == ()
    x = np.array([[0.1, 0.2, 0.3, 0.4]], np.float32)
    np.testing.assert_allclose(run(builder.program(), x=x)[0], np.tanh(x), rtol=1e-6)


def conditional(builder: Any) -> dict[str, Any]:
    """y = tanh(x) * w if flag > 0 else (inner: x + 3 if flag > -5 else x) ; z = y + y."""
    weight = builder.parameter("w", (4,))
    x = builder.data("x")
    flag = builder.data("flag", ())
    zero = builder.full(0.0)
    bent = builder.op("1.tanh", x)
    condition = builder.op("1.greater_than", flag, zero, shape=(), dtype="bool")
    yes = builder.inside()
    yes.give(yes.op("1.multiply", bent, weight))
    no = builder.inside()
    no._next += 100
    deep = no.op("1.greater_than", flag, no.full(-5.0), shape=(), dtype="bool")
    first = no.inside()
    first.give(first.op("1.add", x, first.full(3.0)))
    second = no.inside()
    second._next += 100
    second.give(x)
    no.give(no.op("1.if", deep, blocks=[first.block(), second.block()]))
    y = builder.op("1.if", condition, blocks=[yes.block(), no.block()])
    builder.fetch(y, "y")
    builder.fetch(builder.op("1.add", y, y), "z")
    program: dict[str, Any] = builder.program()
    return program


@pytest.mark.parametrize("flag", [1.0, -1.0, -9.0])
def test_branches_inside_branches(flag: float, builder: Any) -> None:
    x = np.array([[0.5, -0.25, 1.5, 0.0], [1, 2, 3, 4]], np.float32)
    y, z = run(conditional(builder), x=x, flag=np.array(flag, np.float32))
    expected = np.tanh(x) * WEIGHT if flag > 0 else x + 3 if flag > -5 else x
    np.testing.assert_allclose(y, expected, rtol=1e-6)
    np.testing.assert_allclose(z, 2 * expected, rtol=1e-6)


def test_weights_that_no_part_uses_are_dropped(builder: Any) -> None:
    parts = cut.divide(conditional(builder), wanted)
    model = stitch(parts, {part.name: convert(part.program) for part in parts}, cuts.EMITS)
    assert list(model.graph.initializer) == []  # the weight is the first branch's alone
    (branch,) = (node for node in model.graph.node if node.op_type == "If")
    weights = {attribute.name: len(attribute.g.initializer) for attribute in branch.attribute}
    assert weights == {"then_branch": 1, "else_branch": 0}


@pytest.mark.parametrize("limit", [3.0, 40.0])
def test_a_loop_runs_as_often_as_the_data_says(limit: float, builder: Any) -> None:
    weight = builder.parameter("w", (4,))
    x = builder.data("x", (4,))
    limits = builder.data("limit", (4,))
    total = builder.data("total", ())
    bound = builder.full(limit)
    goes = builder.op("1.less_than", total, bound, shape=(), dtype="bool")
    inside = builder.inside([(-1, builder.type((4,))), (-2, builder.type(()))])
    grown = inside.op("1.add", -1, weight, shape=(4,))
    grown = inside.op("1.multiply", grown, limits, shape=(4,))
    more = inside.op("1.add", -2, inside.full(2.0), shape=())
    inside.give(inside.op("1.less_than", more, bound, shape=(), dtype="bool"), grown, more)
    y = builder.op("1.while", goes, x, total, shape=(4,), blocks=[inside.block()])
    loop = builder.ops[-1]
    loop["O"].append({"%": 9000, "TT": builder.type(())})  # the second value; nobody uses it
    builder.fetch(y, "y")
    scale = np.array([1.0, 0.5, 1.0, 2.0], np.float32)
    (got,) = run(builder.program(), x=np.ones(4, np.float32), limit=scale, total=np.array(1.0, np.float32))
    expected, count = np.ones(4, np.float32), 1.0
    while count < limit:
        expected, count = (expected + WEIGHT) * scale, count + 2.0
    np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_a_value_from_nowhere_is_refused(builder: Any) -> None:
    inside = builder.inside()
    inside.give(777)
    x = builder.data("x", (), "bool")
    builder.fetch(builder.op("1.if", x, blocks=[inside.block(), inside.block()]), "y")
    with pytest.raises(pir.UnknownFormError, match="777"):
        cut.divide(builder.program(), wanted)


def test_parts_of_different_opsets_are_refused(builder: Any) -> None:
    parts = cut.divide(conditional(builder), wanted)
    models = {part.name: convert(part.program) for part in parts}
    models[parts[1].name].opset_import[0].version = 16
    with pytest.raises(ValueError, match="16, 17"):
        stitch(parts, models, cuts.EMITS)


def test_a_branch_is_cut_only_for_what_it_holds(builder: Any) -> None:
    x = builder.data("x")
    flag = builder.data("flag", (), "bool")
    plain = builder.inside()
    plain.give(plain.op("1.tanh", x))
    strange = builder.inside()
    strange._next += 100
    strange.give(strange.op("1.celu", x))
    builder.op("1.if", flag, blocks=[plain.block(), plain.block()])
    builder.op("1.if", flag, blocks=[plain.block(), strange.block()])
    found = cut.to_cut(builder.program(), lambda op, types: cuts.find(op, types) is not None)
    assert [op["#"] for op in found] == ["1.if", "1.celu"]
    assert found[0] is builder.ops[-1]

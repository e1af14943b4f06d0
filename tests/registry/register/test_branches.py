"""Branches and loops that no golden input goes through are named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from shipway.registry.verify import branches


def graph_of(node: onnx.NodeProto, *more: onnx.NodeProto) -> onnx.GraphProto:
    """A branch that gives what its last node gives."""
    out = helper.make_tensor_value_info([node, *more][-1].output[0], TensorProto.FLOAT, None)
    return helper.make_graph([node, *more], "branch", [], [out])


def choice(condition: str, yes: onnx.GraphProto, no: onnx.GraphProto, out: str) -> onnx.NodeProto:
    return helper.make_node("If", [condition], [out], then_branch=yes, else_branch=no)


@pytest.fixture
def model() -> onnx.ModelProto:
    """x where x > 0; else -x, or exp(-x) where x > -1: an If inside an If."""
    inner = choice(
        "near",
        graph_of(helper.make_node("Neg", ["x"], ["minus"]), helper.make_node("Exp", ["minus"], ["bent"])),
        graph_of(helper.make_node("Neg", ["x"], ["turned"])),
        "below",
    )
    nodes = [
        helper.make_node(
            "Constant", [], ["zero"], value=helper.make_tensor("", TensorProto.FLOAT, [], [0.0])
        ),
        helper.make_node(
            "Constant", [], ["one"], value=helper.make_tensor("", TensorProto.FLOAT, [], [-1.0])
        ),
        helper.make_node("Greater", ["x", "zero"], ["positive"]),
        helper.make_node("Greater", ["x", "one"], ["near"]),
        choice("positive", graph_of(helper.make_node("Identity", ["x"], ["same"])), graph_of(inner), "y"),
    ]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, []) for name in "xy")
    graph = helper.make_graph(nodes, "choices", [x], [y])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def missed(model: onnx.ModelProto, tmp_path: Path, *values: float) -> tuple[str, ...]:
    cases: list[dict[str, np.ndarray]] = [{"x": np.array(value, np.float32)} for value in values]
    return branches.never_taken(model, cases, tmp_path, tmp_path)


def test_a_branch_that_no_case_takes_is_named_with_what_it_holds(
    model: onnx.ModelProto, tmp_path: Path
) -> None:
    (line,) = missed(model, tmp_path, 1.0, -2.0)
    assert line.startswith(
        "no golden input takes the 'then' branch of If 2 (below): what it holds (Exp, Neg)"
    )
    assert "--samples" in line
    assert not (tmp_path / "marked.onnx").exists()


def test_what_lies_in_a_branch_that_is_not_taken_is_not_taken(model: onnx.ModelProto, tmp_path: Path) -> None:
    lines = missed(model, tmp_path, 1.0)
    assert sorted(line.partition(":")[0] for line in lines) == [
        "no golden input takes the 'else' branch of If 1 (y)",
        "no golden input takes the 'else' branch of If 2 (below)",
        "no golden input takes the 'then' branch of If 2 (below)",
    ]


def test_cases_that_go_everywhere_leave_nothing_to_say(model: onnx.ModelProto, tmp_path: Path) -> None:
    assert missed(model, tmp_path, 1.0, -0.5, -2.0) == ()


def test_a_graph_without_branches_is_not_even_run(tmp_path: Path) -> None:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [3]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "plain", [x], [y])
    assert branches.never_taken(helper.make_model(graph), [], tmp_path / "nowhere", tmp_path) == ()


def test_a_loop_that_turns_not_once(tmp_path: Path) -> None:
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["on"], ["still"]),
            helper.make_node("Exp", ["state"], ["next"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state", TensorProto.FLOAT, []),
        ],
        [
            helper.make_tensor_value_info("still", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, []),
        ],
    )
    loop = helper.make_node("Loop", ["turns", "", "x"], ["y"], body=body)
    turns = helper.make_tensor_value_info("turns", TensorProto.INT64, [])
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, []) for name in "xy")
    graph = helper.make_graph([loop], "loops", [turns, x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    cases: list[dict[str, np.ndarray]] = [{"x": np.array(1.0, np.float32), "turns": np.array(0)}]
    (line,) = branches.never_taken(model, cases, tmp_path, tmp_path)
    assert line.startswith("no golden input enters Loop 1 (y): what it holds (Exp)")
    cases.append({"x": np.array(1.0, np.float32), "turns": np.array(2)})
    assert branches.never_taken(model, cases, tmp_path, tmp_path) == ()

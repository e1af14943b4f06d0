"""What a runtime takes, by the table and by measuring the runtime that is installed here."""

from __future__ import annotations

import onnxruntime
import pytest
from onnx import TensorProto, helper
from pydantic import BaseModel, ValidationError

from shipway.registry.errors import UnsupportedModelError
from shipway.targets.base import OnnxInfo, RuntimeLimits
from shipway.targets.limits import (
    Size,
    check_limits,
    check_size,
    foreign_operators,
    numpy_beside,
    onnx_runtime,
)


def info(**changes: object) -> OnnxInfo:
    plain = {"opset": 17, "ir": 8, "operators": ("Add",), "inputs": (), "outputs": (), "size": 1000}
    return OnnxInfo(**{**plain, **changes})  # type: ignore[arg-type]


LIMITS = RuntimeLimits(opset=19, ir=9, unsupported=frozenset({"Fancy"}), size=2000, why="Some runtime 1.0")


@pytest.mark.parametrize(
    ("version", "opset", "ir"),
    [("1.16.0", 19, 9), ("1.19.2", 21, 10), ("1.22.1", 22, 10), ("1.23.2", 23, 11), ("1.30.0", 26, 13)],
)
def test_a_release_counts_as_the_newest_listed_below_it(version: str, opset: int, ir: int) -> None:
    limits = onnx_runtime(version)
    assert (limits.opset, limits.ir) == (opset, ir)
    assert version in limits.why


@pytest.mark.parametrize(
    ("version", "missing"),
    [("1.16.0", ["DeformConv"]), ("1.24.4", ["DeformConv"]), ("1.25.0", []), ("1.30.0", [])],
)
def test_operators_that_came_with_a_release(version: str, missing: list[str]) -> None:
    assert foreign_operators(["Conv", "DeformConv"], onnx_runtime(version)) == missing


def test_the_runtime_here_has_a_kernel_for_deformable_convolution() -> None:
    shapes = {"x": [1, 2, 8, 8], "w": [2, 2, 3, 3], "offset": [1, 18, 6, 6], "y": [1, 2, 6, 6]}
    *given, made = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()
    )
    graph = helper.make_graph(
        [helper.make_node("DeformConv", ["x", "w", "offset"], ["y"])], "g", given, [made]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    missing = foreign_operators(["DeformConv"], onnx_runtime(onnxruntime.__version__))
    try:
        onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        assert not missing
    except onnxruntime.capi.onnxruntime_pybind11_state.NotImplemented:
        assert missing


@pytest.mark.parametrize(
    ("version", "numpy"),
    [("1.9.0", "numpy<2"), ("1.18.1", "numpy<2"), ("1.19.0", "numpy"), ("1.23.2", "numpy")],
)
def test_wheels_before_1_19_want_numpy_1(version: str, numpy: str) -> None:
    assert numpy_beside(version) == numpy


def test_a_release_older_than_the_table_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="older"):
        onnx_runtime("1.9.0")


def test_the_runtime_here_loads_what_the_table_says() -> None:
    limits = onnx_runtime(onnxruntime.__version__)
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", value[:1], value[1:])
    opset = helper.make_opsetid("", limits.opset)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=limits.ir)
    assert onnxruntime.InferenceSession(model.SerializeToString()).get_inputs()[0].name == "x"


def test_a_model_within_the_limits_passes() -> None:
    check_limits("kind", info(operators=("Add", "com.microsoft::FusedConv", "ai.onnx.ml::Scaler")), LIMITS)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"opset": 20}, "can't run opset 20"),
        ({"opset": 6}, "can't run opset 6"),
        ({"ir": 10}, "can't load IR version 10"),
        ({"operators": ("Add", "Fancy")}, "can't run Fancy"),
        ({"operators": ("paddle::Fancy",)}, "can't run paddle::Fancy"),
        ({"size": 2001}, "too large"),
    ],
)
def test_a_model_beyond_a_limit_is_refused_saying_why(changes: dict[str, object], said: str) -> None:
    with pytest.raises(UnsupportedModelError, match=said) as caught:
        check_limits("kind", info(**changes), LIMITS)
    assert caught.value.why
    assert caught.value.remedy


def test_without_a_size_limit_any_size_passes() -> None:
    check_size("kind", "The model", 10**12, RuntimeLimits(19, 9))


class Holder(BaseModel):
    size: Size


def test_sizes_are_written_with_their_unit() -> None:
    assert Holder.model_validate({"size": "20MB"}).size == 20_000_000
    assert Holder.model_validate({"size": 512}).size == 512
    with pytest.raises(ValidationError, match="must be a size"):
        Holder.model_validate({"size": "20 bananas"})

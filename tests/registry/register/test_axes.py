"""What the axes of a model that vary come to be called."""

from __future__ import annotations

import onnx
import pytest
from onnx import helper
from onnx_scene import model_of, value

from shipway.registry.convert import graph
from shipway.registry.convert.axes import name_axes, name_output_axes
from shipway.registry.nouns import TensorSpec


def relu(*shape: int | str, out: tuple[int | str, ...] | None = None) -> onnx.ModelProto:
    node = helper.make_node("Relu", ["x"], ["y"])
    return model_of([node], [value("x", *shape)], [value("y", *(out or shape))])


D = "DynamicDimension."


@pytest.mark.parametrize(
    ("shape", "named"),
    [
        ((D + "0", 3, 48, D + "1"), ("N", 3, 48, "W")),
        ((D + "0", 3, D + "1", D + "2"), ("N", 3, "H", "W")),
        ((D + "0", D + "1", D + "2", 3), ("N", "H", "W", 3)),
        (("p2o." + D + "0", "p2o." + D + "1"), ("N", "T")),
        ((D + "0", D + "1", 64), ("N", "T", 64)),
        ((1, 3, 48, 320), (1, 3, 48, 320)),
        ((D + "0",), ("N",)),
        ((D + "0", 8, D + "1", D + "2", D + "3"), ("N", 8, "d2", "d3", "d4")),
    ],
)
def test_axes_get_names(shape: tuple[int | str, ...], named: tuple[int | str, ...]) -> None:
    model = relu(*shape)
    name_axes(model)
    info = graph.info(model, 0)
    assert info.inputs[0].shape == named
    assert info.outputs[0].shape == named  # the same symbols


def test_two_inputs_share_only_the_batch() -> None:
    nodes = [helper.make_node("Identity", ["a"], ["y"]), helper.make_node("Identity", ["b"], ["z"])]
    model = model_of(
        nodes,
        [value("a", "s0", "s1"), value("b", "s2", "s3")],
        [value("y", "s0", "s1"), value("z", "s2", "q")],
    )
    name_axes(model)
    info = graph.info(model, 0)
    assert [spec.shape for spec in info.inputs] == [("N", "T"), ("N", "T_b")]
    assert [spec.shape for spec in info.outputs] == [("N", "T"), ("N", "d1")]


def test_axes_are_fixed_and_named_as_asked() -> None:
    model = relu("s0", 3, 48, "s1")
    name_axes(model, [TensorSpec("x", "float32", ("batch", 3, 48, 320))])
    info = graph.info(model, 0)
    assert info.inputs[0].shape == ("batch", 3, 48, 320)
    assert info.outputs[0].shape == ("batch", 3, 48, 320)


def test_output_axes_follow_what_runs_showed() -> None:
    model = relu("s0", 3, "s1", "s2", out=("o0", 3, "o1", "o2"))
    name_axes(model)
    assert graph.info(model, 0).outputs[0].shape == ("d0", 3, "d2", "d3")
    seen = [
        ({"N": 1, "H": 64, "W": 96}, [(1, 3, 64, 12)]),
        ({"N": 2, "H": 128, "W": 192}, [(2, 3, 128, 24)]),
    ]
    name_output_axes(model, seen)
    assert graph.info(model, 0).outputs[0].shape == ("N", 3, "H", "d3")


def test_one_run_shows_nothing() -> None:
    model = relu("s0", 3, "s1", "s2", out=("o0", 3, "o1", "o2"))
    name_axes(model)
    name_output_axes(model, [({"N": 1, "H": 64, "W": 96}, [(1, 3, 64, 96)])])
    assert graph.info(model, 0).outputs[0].shape == ("d0", 3, "d2", "d3")

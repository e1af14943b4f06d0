"""Repairs that no model of the corpus needs: by numpy's definitions, and all of them through Paddle."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import helper

from shipway.registry.convert import repairs
from shipway.registry.convert.repairs import cuts, emit_algebra, emit_index, emit_math, pir
from shipway.registry.convert.repairs.cut import Joint
from shipway.registry.convert.repairs.emit import DTYPES, Emitter
from shipway.registry.convert.repairs.pir import Type
from shipway.registry.process import Worker

RANDOM = np.random.default_rng(13)


def floats(*shape: int) -> np.ndarray:
    return RANDOM.standard_normal(shape).astype(np.float32)


def run(
    emit: Callable[[Emitter], None], inputs: Mapping[str, np.ndarray], attributes: Mapping[str, Any]
) -> np.ndarray:
    """What the nodes of one joint compute; all dimensions are dynamic. An input called '' is left out."""
    joint = Joint(
        kind="tried",
        attributes=attributes,
        takes=tuple(inputs),
        taken=tuple(Type(str(value.dtype), value.shape) for value in inputs.values()),
        gives=("given",),
        given=(None,),
    )
    emitter = Emitter(joint, 17, "tried/", {})
    emit(emitter)
    here = {name: value for name, value in inputs.items() if name}
    taken = [
        helper.make_tensor_value_info(name, DTYPES[str(value.dtype)], [None] * value.ndim)
        for name, value in here.items()
    ]
    given = helper.make_tensor_value_info("given", DTYPES["float32"], None)
    graph = helper.make_graph(emitter.nodes, "tried", taken, [given])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found: np.ndarray = session.run(None, here)[0]
    return found


X, Y, W, BIAS, BOX = floats(3, 4), floats(3, 5), floats(2, 4, 5), floats(1, 2), floats(4, 6, 5)
FORM = np.einsum("bi,oij,bj->bo", X, W, Y)
NONE = np.zeros(0, np.float32)


@pytest.mark.parametrize(
    ("emit", "inputs", "attributes", "expected"),
    [
        (emit_algebra.emit_bilinear, {"x": X, "y": Y, "w": W, "b": BIAS}, {}, FORM + BIAS),
        (emit_algebra.emit_bilinear, {"x": X, "y": Y, "w": W, "": NONE}, {}, FORM),
        (emit_algebra.emit_multi_dot, {"a": X, "b": X.T, "c": X}, {}, X @ X.T @ X),
        (emit_math.emit_dist, {"x": X, "y": X[::-1]}, {"p": 2.0}, np.linalg.norm(X - X[::-1])),
        (emit_math.emit_dist, {"x": BOX, "y": BOX[:1]}, {"p": 2.0}, np.sqrt(((BOX - BOX[:1]) ** 2).sum())),
        (emit_index.emit_expand_as, {"x": X[:, :1], "y": X}, {}, np.tile(X[:, :1], (1, 4))),
        (emit_index.emit_flip, {"x": BOX}, {"axis": [1]}, BOX[:, ::-1]),
        (emit_index.emit_flip, {"x": BOX}, {"axis": [0, -1]}, BOX[::-1, :, ::-1]),
        (
            emit_index.emit_crop,
            {"x": BOX, "shape": np.array([2, 3, 4], np.int32), "begin": np.array([1, 2, 0], np.int32)},
            {},
            BOX[1:3, 2:5, :4],
        ),
        (
            emit_index.emit_masked_fill,
            {"x": X, "mask": X > 0, "value": np.float32(7)},
            {},
            np.where(X > 0, np.float32(7), X),
        ),
    ],
)
def test_by_definition(
    emit: Callable[[Emitter], None],
    inputs: Mapping[str, np.ndarray],
    attributes: Mapping[str, Any],
    expected: np.ndarray,
) -> None:
    given = {name: np.ascontiguousarray(value) for name, value in inputs.items()}
    given = {name: value.reshape(inputs[name].shape) for name, value in given.items()}
    found = run(emit, given, attributes)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "shape", "name", "value", "type", "repair"),
    [
        ("1.dist", (), "p", 2.0, "0.a_f32", "distance"),
        ("1.dist", (), "p", 1.0, "0.a_f32", ""),
        ("1.flip", (-1, 4), "axis", [0], "0.a_i32", "flip-dynamic"),
        ("1.flip", (-1, 4), "axis", [1], "0.a_i32", ""),
    ],
)
def test_only_what_the_converter_fails_on_is_cut_out(
    builder: Any,
    described: Any,
    kind: str,
    shape: tuple[int, ...],
    name: str,
    value: Any,
    type: str,
    repair: str,
) -> None:
    inputs = [builder.data("x")] + ([builder.data("y")] if kind == "1.dist" else [])
    builder.op(kind, *inputs, shape=shape, attributes=[described(name, value, type)])
    types = {number: pir.tensor_type(raw) for number, raw in pir.raw_types(builder.program()).items()}
    line = cuts.find(builder.ops[-1], types)
    assert (line.name if line else "") == repair


NET = """
import sys
import paddle
import paddle.nn.functional as F
from paddle.static import InputSpec

class Rest(paddle.nn.Layer):
    def __init__(self):
        super().__init__()
        self.form = paddle.nn.Bilinear(8, 8, 5)
        self.first = paddle.nn.Linear(8, 6)
        self.second = paddle.nn.Linear(6, 4)

    def forward(self, x, y, image):
        return (
            self.form(x, y),
            paddle.crop(image, [2, 3, 4, 4], [0, 0, 1, 2]),
            paddle.dist(x, y, 2),
            x[:, :1].expand_as(y),
            paddle.flip(image, [2]),
            paddle.masked_fill(x, y > 0, 0.5),
            paddle.linalg.multi_dot([x, self.first.weight, self.second.weight]),
            paddle.amin(x, 1),
            paddle.diag_embed(x),
            paddle.dot(x, y),
            paddle.fmin(x, y),
            F.softplus(x, beta=2),
        )

paddle.seed(7)
specs = [InputSpec([None, 8], "float32", name) for name in "xy"]
specs.append(InputSpec([None, 3, None, None], "float32", "image"))
paddle.jit.save(Rest(), sys.argv[1], input_spec=specs)
"""

EXPECTED = {
    "amin",
    "bilinear-form",
    "crop",
    "diag-embed",
    "distance",
    "dot",
    "expand-as",
    "flip-dynamic",
    "fmin",
    "masked-fill",
    "multi-dot",
    "softplus",
}


@pytest.mark.paddle
def test_all_of_them_in_one_model_of_paddles(tmp_path: Path) -> None:
    script = tmp_path / "save.py"  # a file: paddle.jit reads the source of what it traces
    script.write_text(NET)
    command = [sys.executable, "-W", "ignore", str(script), str(tmp_path / "inference")]
    subprocess.run(command, check=True, capture_output=True, cwd=tmp_path, timeout=120)
    model, params = tmp_path / "inference.json", tmp_path / "inference.pdiparams"
    inputs = {"x": floats(2, 8), "y": floats(2, 8), "image": floats(2, 3, 9, 7)}
    np.savez(tmp_path / "inputs.npz", **inputs)
    work = tmp_path / "work"
    work.mkdir()
    mended = repairs.mend(model, params, work)
    assert {each.rule for each in mended.applied} >= EXPECTED
    with Worker("shipway.registry.convert.paddle_worker", cwd=tmp_path) as worker:
        for piece in mended.pieces:
            request = {"model": str(piece.model), "params": str(piece.params), "out": str(piece.out)}
            worker.ask({"do": "convert", **request, "opset": 17, "upgrade": False}, timeout=120)
        request = {"model": str(mended.reference), "params": str(params), "out": str(work)}
        worker.ask({"do": "run", **request, "cases": [str(tmp_path / "inputs.npz")]}, timeout=120)
    repairs.finish(mended, work / "model.onnx")
    session = onnxruntime.InferenceSession(str(work / "model.onnx"), providers=["CPUExecutionProvider"])
    found = session.run(None, inputs)
    with np.load(work / "0.npz") as expected:
        assert len(found) == len(expected.files) == 12
        for value, key in zip(found, sorted(expected.files), strict=True):
            assert value.shape == expected[key].shape
            np.testing.assert_allclose(value, expected[key], rtol=1e-5, atol=1e-5)

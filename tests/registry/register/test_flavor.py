"""The files beside ``model.onnx`` hold what MLflow itself would have written."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import records
import yaml

from shipway.registry import catalog, catalog_worker, flavor
from shipway.registry.nouns import TensorSpec

DRAFT = records.version(
    name="net",
    version=0,
    operators=("Add",),
    inputs=(TensorSpec("x", "float32", ("N", 2)), TensorSpec("ids", "int64", ("N",))),
    outputs=(TensorSpec("y", "float32", ("N", 2)),),
)
EXAMPLE = {"x": np.array([[0.5, -1.25]], np.float32), "ids": np.array([7], np.int64)}
BY_MLFLOW = """
import sys, pathlib, numpy as np, onnx, mlflow.onnx, mlflow.types as t
from onnx import helper, TensorProto as P
from mlflow.models import Model, ModelSignature
io = lambda n, k, s: helper.make_tensor_value_info(n, k, s)
cast = helper.make_node("Cast", ["ids"], ["f"], to=P.FLOAT)
axes = helper.make_node("Constant", [], ["a"], value=helper.make_tensor("a", P.INT64, [1], [1]))
nodes = [cast, axes, helper.make_node("Unsqueeze", ["f", "a"], ["g"]), helper.make_node("Add", ["x", "g"], ["y"])]
graph = helper.make_graph(nodes, "g", [io("x", P.FLOAT, ["N", 2]), io("ids", P.INT64, ["N"])], [io("y", P.FLOAT, ["N", 2])])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
tensor = lambda n, d, s: t.TensorSpec(np.dtype(d), s, n)
mlflow.onnx.save_model(
    model, sys.argv[1], mlflow_model=Model(run_id="r" * 32, model_id="m-1"),
    signature=ModelSignature(
        inputs=t.Schema([tensor("x", "float32", (-1, 2)), tensor("ids", "int64", (-1,))]),
        outputs=t.Schema([tensor("y", "float32", (-1, 2))])),
    input_example={"x": np.array([[0.5, -1.25]], np.float32), "ids": np.array([7], np.int64)},
    pip_requirements=["onnx>=" + onnx.__version__, "onnxruntime", "numpy"],
    onnx_execution_providers=["CPUExecutionProvider"], save_as_external_data=False)
ours = pathlib.Path(sys.argv[2])
(ours / "model.onnx").write_bytes((pathlib.Path(sys.argv[1]) / "model.onnx").read_bytes())
loaded = mlflow.pyfunc.load_model(str(ours))
print(loaded.predict(loaded.input_example)["y"].tolist(), loaded.metadata.signature.inputs.input_names())
print(loaded.metadata.signature == Model.load(sys.argv[1]).signature, mlflow.__version__, onnx.__version__)
"""  # noqa: E501 - a program of its own


def test_each_key_is_as_mlflow_writes_it_and_mlflow_runs_the_model(tmp_path: Path) -> None:
    import importlib.metadata as installed

    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    ours.mkdir()
    logged = flavor.LoggedModel(
        "r" * 32, "m-1", installed.version("mlflow"), installed.version("onnx"), "2026-01-31 12:00:00.000000"
    )
    flavor.write(ours, DRAFT, logged, EXAMPLE)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", BY_MLFLOW, theirs, ours], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "[[7.5, 5.75]] ['x', 'ids']"
    assert done.stdout.splitlines()[1].startswith("True ")
    mine, model = (yaml.safe_load((folder / "MLmodel").read_text()) for folder in (ours, theirs))
    for own in ("model_uuid", "utc_time_created", "model_size_bytes"):
        assert type(mine.pop(own)) is type(model.pop(own))
    for schemas in (mine["signature"], model["signature"]):
        for side in ("inputs", "outputs"):
            schemas[side] = yaml.safe_load(schemas[side])
    assert mine == model
    names = {path.name for path in theirs.iterdir()}
    assert {path.name for path in ours.iterdir()} == names
    assert (ours / "requirements.txt").read_text() == (theirs / "requirements.txt").read_text()
    for name in (flavor.EXAMPLE, "serving_input_example.json"):
        assert yaml.safe_load((ours / name).read_text()) == yaml.safe_load((theirs / name).read_text())


def _make_tables(path: Path) -> None:
    with catalog.explained(f"sqlite:///{path}"):
        catalog_worker._make_tables(path)


def test_tables_are_kept_and_damaged_ones_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHIPWAY_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "mlflow.db"
    _make_tables(path)
    (kept,) = (tmp_path / "cache/mlflow").iterdir()
    whole = kept.read_bytes()
    assert whole == path.read_bytes()
    # What MLflow makes was seen; that it is asked to make it again is what counts, and takes it seconds.
    made: list[str] = []
    monkeypatch.setattr(
        "mlflow.store.model_registry.sqlalchemy_store.SqlAlchemyStore",
        lambda uri: (made.append(uri), Path(uri.removeprefix("sqlite:///")).write_bytes(whole)),
    )
    for damage in (whole[:5000], b"", whole[:20_000] + bytes(40_000) + whole[60_000:]):
        kept.write_bytes(damage)
        path = tmp_path / f"{len(damage)}.db"
        _make_tables(path)
        assert made.pop() == f"sqlite:///{path}"
        assert kept.read_bytes() == path.read_bytes() == whole
    _make_tables(tmp_path / "again.db")  # of a kept one that is whole
    assert made == []

"""Small models to register. The folder joins the path, so that tests share ``onnx_scene``."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from shipway.registry.config.load import load_text
from shipway.registry.config.project import Project

sys.path.insert(0, str(Path(__file__).parent))

Build = Callable[..., onnx.ModelProto]


def build_mlp(*, seed: int = 0, prefix: str = "", features: int = 8, opset: int = 17) -> onnx.ModelProto:
    """``x`` [batch, features] -> Gemm, Relu, MatMul, Softmax -> ``y`` [batch, 4].

    Names inside start with ``prefix``.
    """
    random = np.random.default_rng(seed)
    weights = {
        "w1": random.standard_normal((features, 64)).astype(np.float32) / 4,
        "b1": random.standard_normal(64).astype(np.float32),
        "w2": random.standard_normal((64, 4)).astype(np.float32) / 4,
    }
    nodes = [
        helper.make_node("Gemm", ["x", f"{prefix}w1", f"{prefix}b1"], [f"{prefix}h"], name=f"{prefix}first"),
        helper.make_node("Relu", [f"{prefix}h"], [f"{prefix}r"]),
        helper.make_node("MatMul", [f"{prefix}r", f"{prefix}w2"], [f"{prefix}s"]),
        helper.make_node("Softmax", [f"{prefix}s"], ["y"], axis=-1),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", features])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])],
        [numpy_helper.from_array(value, f"{prefix}{name}") for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


@pytest.fixture(scope="session")
def mlp() -> Build:
    return build_mlp


@pytest.fixture(scope="session")
def rendered() -> ModuleType:
    """``rendered.py``: lines of text as images."""
    spec = importlib.util.spec_from_file_location("rendered", Path(__file__).with_name("rendered.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def model_file(tmp_path: Path) -> Path:
    """A registrable ``.onnx`` file alone in its folder."""
    path = tmp_path / "given" / "net.onnx"
    path.parent.mkdir()
    onnx.save(build_mlp(), path)
    return path


@pytest.fixture(scope="session")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project's folder whose MLflow database exists already: making its tables takes seconds."""
    root = tmp_path_factory.mktemp("fresh")
    (root / ".shipway").mkdir()
    code = (
        "import sys; from shipway.registry import catalog_worker; "
        "catalog_worker.open_registry('sqlite:///' + sys.argv[1])"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code, root / ".shipway/mlflow.db"], check=True)
    return root


@pytest.fixture
def project(fresh: Path, tmp_path: Path) -> Project:
    root = tmp_path / "project"
    shutil.copytree(fresh, root)
    return load_text("project: demo\n", root)


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary folders are made: what is left in it was left behind."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder

"""``engines.py`` of the kinds that run on TensorRT: with a stand-in for an ONNX Runtime that has it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxruntime
import pytest

from shipway.targets.loader import load_kind
from shipway.targets.steps import Release

each_kind = pytest.mark.parametrize("kind", ["server-tensorrt", "jetson-ort"])

STAND_IN = """
import importlib.machinery, importlib.util, os, sys
there = os.environ["REAL"] + "/onnxruntime"
start = there + "/__init__.py"
spec = importlib.util.spec_from_file_location("onnxruntime", start, submodule_search_locations=[there])
real = importlib.util.module_from_spec(spec)
sys.modules["onnxruntime"] = real
spec.loader.exec_module(real)
TRT = "TensorrtExecutionProvider"

class Session(real.InferenceSession):
    def __init__(self, graph, options, providers, **others):
        (self.name, self.options), *_ = providers
        if "FAULT" in os.environ and self.name == TRT:
            raise RuntimeError(os.environ["FAULT"])
        super().__init__(graph, options, providers=["CPUExecutionProvider"])

    def get_providers(self):
        return list(dict.fromkeys([self.name, "CPUExecutionProvider"]))

    def run(self, names, inputs):
        rows = len(next(iter(inputs.values())))
        open(self.options["trt_engine_cache_path"] + "/engine-%d" % rows, "w").close()
        return super().run(names, inputs)

real.get_available_providers = lambda: [TRT, "CPUExecutionProvider"]
real.InferenceSession = Session
"""


@pytest.fixture
def engines(tmp_path: Path) -> Callable[..., Any]:
    """Runs a bundle's ``engines.py``, with the stand-in or without it; its answer."""
    package = tmp_path / "python" / "onnxruntime"
    (package / "capi").mkdir(parents=True)
    (package / "capi" / "libonnxruntime_providers_tensorrt.so").touch()
    (package / "__init__.py").write_text(STAND_IN)
    real = str(Path(onnxruntime.__file__).parents[1])

    def run(bundle: Path, *, stand_in: bool = True, **environment: str) -> Any:
        argv = [sys.executable, "-B", "engines.py"]
        told = {**os.environ, "SHIPWAY_ENGINES": str(tmp_path / "engines"), **environment}
        if stand_in:
            told.update(PYTHONPATH=str(package.parent), REAL=real)
        done = subprocess.run(argv, cwd=bundle, env=told, capture_output=True, text=True, check=False)
        answer = json.loads(done.stdout)
        assert done.returncode == (5 if "problem" in answer else 0), done.stderr
        return answer

    return run


@each_kind
def test_engines_are_built_where_tensorrt_is_and_nowhere_else(
    kind: str, tiny: Any, tmp_path: Path, engines: Callable[..., Any]
) -> None:
    tiny.export(kind, tmp_path / "out", providers=["tensorrt", "cpu"], allow_missing=False)
    without = engines(tmp_path / "out", stand_in=False)
    assert without == {"built": False, "why": "this ONNX Runtime has no TensorRT"}
    assert not (tmp_path / "engines").exists()
    built = engines(tmp_path / "out")
    assert (built["built"], built["provider"]) == (True, "TensorrtExecutionProvider")
    assert list((tmp_path / "engines").glob("*/engine-2"))  # by the model's digest; run with two rows


@each_kind
def test_engines_that_can_t_be_built_fail_unless_tensorrt_may_be_missing(
    kind: str, tiny: Any, tmp_path: Path, engines: Callable[..., Any]
) -> None:
    for name, allowed in (("strict", False), ("allowing", True)):
        tiny.export(kind, tmp_path / name, providers=["tensorrt", "cpu"], allow_missing=allowed)
    assert "no memory left" in engines(tmp_path / "strict", FAULT="no memory left")["problem"]
    allowing = engines(tmp_path / "allowing", FAULT="no memory left")
    assert allowing == {"built": False, "why": "no memory left"}


@each_kind
def test_a_promotion_builds_engines_where_tensorrt_is_wanted(kind: str, tiny: Any) -> None:
    found = load_kind(kind)
    for providers in (["tensorrt", "cpu"], ["cuda", "cpu"], ["cpu"]):
        target = found(found.options.model_validate({"providers": providers}))
        steps = target.activation(Release(tiny.build(kind, providers=providers)))
        wanted = ["run python3 engines.py (have TensorRT build its engines)"]
        assert [str(step) for step in steps] == (wanted if "tensorrt" in providers else [])

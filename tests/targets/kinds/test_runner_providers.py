"""``runner.py`` and providers that are listed but can't be used: with a stand-in for ONNX Runtime's GPUs.

The stand-in is the real runtime on the CPU, told what each provider does: ``raise`` or ``drop``, as a build
for GPUs does where their libraries are missing. Releases before 1.23 take no ``enable_fallback``: there it
prints and goes on without, as they do.
"""

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

TRT, CUDA, CPU = "TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"

STAND_IN = """
import importlib.util, json, os, sys
there = os.environ["REAL"] + "/onnxruntime"
spec = importlib.util.spec_from_file_location(
    "onnxruntime", there + "/__init__.py", submodule_search_locations=[there]
)
real = importlib.util.module_from_spec(spec)
sys.modules["onnxruntime"] = real
spec.loader.exec_module(real)
does = json.loads(os.environ["DOES"])

class Session(real.InferenceSession):
    def __init__(self, graph, options, providers, **others):
        names = [name for name, _ in providers]
        print("opens " + ",".join(names), file=sys.stderr)
        fails = [name for name in names if does.get(name) == "raise"]
        if fails:
            told = "%s can't start:\\nits libraries are missing" % fails[0]
            if "OLD" not in os.environ and others.get("enable_fallback", 1) == 0:
                raise RuntimeError(told)
            print("*************** EP Error ***************")
            print("EP Error %s when using %s" % (told, names))
            print("Falling back to ['CPUExecutionProvider'] and retrying.")
            print("****************************************")
            names = ["CPUExecutionProvider"]
        self.names = [name for name in names if does.get(name) != "drop"]
        super().__init__(graph, options, providers=["CPUExecutionProvider"])

    def get_providers(self):
        return self.names + [name for name in ["CPUExecutionProvider"] if name not in self.names]

def preload_dlls():
    print("preloaded")

real.get_available_providers = lambda: [
    "TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"
]
real.InferenceSession = Session
if "OLD" in os.environ:
    if hasattr(real, "preload_dlls"):
        del real.preload_dlls
else:
    real.preload_dlls = preload_dlls
"""


@pytest.fixture
def check(tiny: Any, tmp_path: Path) -> Callable[..., tuple[Any, str]]:
    """Builds a bundle, runs its check beside the stand-in; the check's line and what went to stderr."""
    package = tmp_path / "python" / "onnxruntime"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(STAND_IN)

    def run(does: dict[str, str], *, old: bool = False, **options: Any) -> tuple[Any, str]:
        out = tmp_path / f"out-{len(list(tmp_path.iterdir()))}"
        tiny.export("server-tensorrt", out, **options)
        told = {
            **os.environ,
            "PYTHONPATH": str(package.parent),
            "REAL": str(Path(onnxruntime.__file__).parents[1]),
            "DOES": json.dumps(does),
            "SHIPWAY_ENGINES": str(tmp_path / "engines"),
            **({"OLD": "1"} if old else {}),
        }
        done = subprocess.run(
            [sys.executable, "-B", "check.py"],
            cwd=out,
            env=told,
            capture_output=True,
            text=True,
            check=False,
        )
        (line,) = done.stdout.splitlines()  # nothing but the report, whatever the runtime prints
        verdict = json.loads(line)
        assert done.returncode == (0 if verdict["passed"] else 5), done.stderr
        return verdict, done.stderr

    return run


def test_one_session_where_all_is_there(check: Callable[..., Any]) -> None:
    verdict, stderr = check({}, allow_missing=False)
    assert (verdict["passed"], verdict["provider"]) == (True, TRT)
    assert (verdict["missing"], verdict["reasons"]) == ([], {})
    assert stderr.count("opens ") == 1
    assert "preloaded" in stderr  # CUDA's libraries from pip


@pytest.mark.parametrize("old", [False, True], ids=["new", "old"])
def test_cuda_is_used_where_only_tensorrt_fails(check: Callable[..., Any], old: bool) -> None:
    verdict, _ = check({TRT: "raise"}, old=old)
    assert (verdict["passed"], verdict["provider"], verdict["missing"]) == (True, CUDA, [TRT])
    assert verdict["reasons"] == {TRT: f"{TRT} can't start: its libraries are missing"}


@pytest.mark.parametrize("old", [False, True], ids=["new", "old"])
def test_tensorrt_is_used_where_only_cuda_fails(check: Callable[..., Any], old: bool) -> None:
    verdict, _ = check({CUDA: "raise"}, old=old)
    assert (verdict["passed"], verdict["provider"], verdict["missing"]) == (True, TRT, [CUDA])


@pytest.mark.parametrize("old", [False, True], ids=["new", "old"])
@pytest.mark.parametrize(
    "does", [{TRT: "raise", CUDA: "raise"}, {TRT: "raise", CUDA: "drop"}, {TRT: "drop", CUDA: "drop"}]
)
def test_the_cpu_steps_in_only_where_it_may(
    check: Callable[..., Any], does: dict[str, str], old: bool
) -> None:
    verdict, _ = check(does, old=old)
    assert (verdict["passed"], verdict["provider"], verdict["missing"]) == (True, CPU, [TRT, CUDA])
    for name, deed in does.items():
        said = "libraries are missing" if deed == "raise" else "cannot open shared object file"
        assert said in verdict["reasons"][name]
    verdict, _ = check(does, old=old, allow_missing=False)
    assert verdict["passed"] is False
    for word in (TRT, CUDA, f"{CPU} would have been used", "'providers: [cpu]'", "'allow_missing: true'"):
        assert word in verdict["problem"]


def test_the_way_out_names_what_is_left(check: Callable[..., Any]) -> None:
    verdict, _ = check({TRT: "raise"}, allow_missing=False)
    assert f"{CUDA} would have been used" in verdict["problem"]
    assert "'providers: [cuda, cpu]'" in verdict["problem"]


def test_without_the_cpu_in_the_list_nothing_steps_in(check: Callable[..., Any]) -> None:
    verdict, _ = check({TRT: "raise", CUDA: "raise"}, providers=["tensorrt", "cuda"])
    assert verdict["passed"] is False
    assert "no other is wanted" in verdict["problem"]


def test_the_cpu_alone_asks_for_no_gpu(check: Callable[..., Any]) -> None:
    verdict, stderr = check({TRT: "raise", CUDA: "raise"}, providers=["cpu"], allow_missing=False)
    assert (verdict["passed"], verdict["provider"], verdict["missing"]) == (True, CPU, [])
    assert "preloaded" not in stderr

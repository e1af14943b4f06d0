"""``jetson-ort`` on each JetPack's Python and ONNX Runtime, with what requirements.txt names beside them.

The releases are those of the boards, the builds are not: they are for this machine, without a GPU.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from jetpack_scene import python_of
from server_scene import call, infer_body, serving

from shipway.targets.jetpack import JETPACKS
from shipway.targets.loader import kinds

pytestmark = pytest.mark.real


def run(python: Path, program: str, folder: Path) -> Any:
    """The JSON that a program of the bundle prints, run by ``python`` on its own."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    argv = [python, "-B", "-s", program]
    done = subprocess.run(argv, cwd=folder, env=clean, capture_output=True, text=True, check=False)
    assert done.stdout, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("jetpack", JETPACKS)
def test_the_pair_that_requirements_name_runs_the_bundle(jetpack: str, tiny: Any, tmp_path: Path) -> None:
    tiny.export("jetson-ort", tmp_path / "out", jetpack=jetpack)
    python, board = python_of(jetpack), JETPACKS[jetpack]
    verdict = run(python, "check.py", tmp_path / "out")
    assert verdict["passed"] is True, verdict
    asked = run(python, "preflight.py", tmp_path / "out")
    assert asked["board"]["python"] == board.python
    assert asked["board"]["runtime"] == f"onnxruntime {board.onnxruntime}"
    assert run(python, "engines.py", tmp_path / "out")["why"] == "this ONNX Runtime has no TensorRT"
    with serving(tmp_path / "out", python=python) as server:
        status, answer, _ = call(f"{server.address}/v2/models/tiny/infer", infer_body())
    assert (status, json.loads(answer)["outputs"][0]["shape"]) == (200, [2, 3])


@pytest.mark.parametrize("kind", kinds())
def test_python_3_8_compiles_all_python_in_a_bundle(kind: str, tiny: Any, tmp_path: Path) -> None:
    tiny.export(kind, tmp_path / "out")
    argv = [python_of("5.1"), "-m", "compileall", "-q", tmp_path / "out"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert len(list((tmp_path / "out").rglob("*.cpython-38.pyc"))) >= (kind != "browser-wasm")

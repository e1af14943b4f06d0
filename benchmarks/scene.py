"""What the rows share: a project, its commands, models of a given size."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from measure import Contest, FailedError, run

HERE = Path(__file__).resolve().parent
BIN = Path(sys.executable).parent
SHIPWAY = BIN / "shipway"

CONFIG = """\
project: bench
registry: sqlite:///.shipway/mlflow.db
store: .shipway/store
targets:
  server: {kind: server-tensorrt}
  jetson: {kind: jetson-ort}
  mobile: {kind: mobile-ort}
  browser: {kind: browser-wasm}
environments:
  prod:
    server: {to: ./deployed/server}
    jetson: {to: ./deployed/jetson}
    mobile: {to: ./deployed/mobile}
    browser: {to: ./deployed/browser}
"""


@dataclass(frozen=True)
class Group:
    """Rows that share what they need. ``make`` gets a folder of its own; ``names`` are those of its rows."""

    make: Callable[[Path], Iterator[Contest]]
    names: tuple[str, ...]


def project(folder: Path, more: str = "") -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "deploy.yaml").write_text(CONFIG + more)
    return folder


def shipway(folder: Path, *arguments: str | Path) -> float:
    """Seconds that a command took."""
    return run([SHIPWAY, *arguments], folder).wall


def answer(folder: Path, *arguments: str | Path) -> Any:
    """What a command answers, for checks. Raises FailedError where it fails."""
    command = [SHIPWAY, *arguments, "--json"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        said = (done.stdout + done.stderr).strip()[-2000:]
        raise FailedError(f"shipway {' '.join(map(str, arguments))} ended with {done.returncode}: {said}")
    return json.loads(done.stdout)


def require(holds: bool, what: str) -> None:
    """Raise FailedError unless it ``holds``."""
    if not holds:
        raise FailedError(what)


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def big_model(path: Path, megabytes: int) -> Path:
    """An ONNX model of about that size: one matrix, seeded, times a vector."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rows = megabytes * 1_000_000 // 4 // 1024
    weights = np.random.default_rng(7).standard_normal((1024, rows), dtype=np.float32) / 32
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w"], ["h"]),
            helper.make_node("ReduceMean", ["h"], ["y"], axes=[1]),
        ],
        "big",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1024])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1])],
        [numpy_helper.from_array(weights, "w")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path

"""What the rows share: a project, its commands, models of a given size."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from measure import Contest, FailedError, run

HERE = Path(__file__).resolve().parent
BIN = Path(sys.executable).parent
SHIPWAY = BIN / "shipway"

TARGETS = ("server", "jetson", "mobile", "browser")
CONFIG = """\
project: bench
registry: sqlite:///.shipway/mlflow.db
store: .shipway/store
targets:
  server: {kind: server-tensorrt, allow_missing: true}  # the machine may have no GPU
  jetson: {kind: jetson-ort, allow_missing: true}
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


def settle(folder: Path) -> None:
    """Wait for what commands left at work in ``folder``: MLflow's aliases follow in a process of their own.

    Raises FailedError where it takes more than a minute.
    """
    end = time.monotonic() + 60
    while found := [process for process in Path("/proc").iterdir() if _works_in(process, folder)]:
        if time.monotonic() > end:
            raise FailedError(f"still at work in {folder}: {', '.join(process.name for process in found)}")
        time.sleep(0.02)


def _works_in(process: Path, folder: Path) -> bool:
    with contextlib.suppress(OSError):  # it ended, or is somebody else's
        return process.name.isdigit() and (process / "cwd").readlink() == folder.resolve()
    return False


def aliases(folder: Path) -> dict[str, str]:
    """What MLflow itself keeps, read past shipway: ``NAME/VERSION`` by alias."""
    with contextlib.closing(sqlite3.connect(folder / ".shipway/mlflow.db")) as database:
        rows = database.execute("select alias, name, version from registered_model_aliases")
        return {alias: f"{name}/{version}" for alias, name, version in rows}


def live(folder: Path, environment: str, version: str) -> None:
    """Raise FailedError unless all of ``environment`` serves ``NAME/VERSION`` in good health, by MLflow too.

    Waits until all has settled.
    """
    settle(folder)
    found = answer(folder, "status", "--env", environment)["environments"][environment]
    for target, release in found.items():
        served = f"{release['model']}/{release['version']}"
        require(served == version and release["healthy"], f"{target} is not healthy at {version}: {release}")
        require(release["mirrored"], f"{target}: MLflow's alias lags")
    named = {alias: what for alias, what in aliases(folder).items() if alias.startswith(f"{environment}-")}
    expected = {f"{environment}-{target}": version for target in found}
    require(bool(found) and named == expected, f"MLflow's aliases are {named}, not {expected}")


def released(folder: Path, target: str) -> Path:
    """The release that ``prod``'s pointer names."""
    place = folder / "deployed" / target
    return place / json.loads((place / "current.json").read_text())["path"]


def numbers(folder: Path) -> None:
    """Raise FailedError unless what ``prod`` serves answers its golden inputs right, by its own checks."""
    for target in TARGETS:
        answer(folder, "verify", released(folder, target))


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

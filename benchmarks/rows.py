"""The rows of the benchmark: what is run, against what, and how the result is checked afterwards."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from measure import Row, run
from onnx import TensorProto, helper, numpy_helper

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "demo"))
import models  # noqa: E402
import serve  # noqa: E402

BIN = Path(sys.executable).parent
SHIPWAY = BIN / "shipway"
FLOOR = [sys.executable, HERE / "typer_app.py", "hello"]

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


def project(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "deploy.yaml").write_text(CONFIG)
    return folder


def shipway(folder: Path, *arguments: str) -> float:
    return run([SHIPWAY, *arguments], folder).wall


def answer(folder: Path, *arguments: str) -> Any:
    import subprocess

    done = subprocess.run([SHIPWAY, *arguments, "--json"], cwd=folder, check=True, capture_output=True)
    return json.loads(done.stdout)


def big_model(path: Path, megabytes: int) -> Path:
    """An ONNX model of about that size: one matrix, seeded, times a vector."""
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


def rows(work: Path) -> Iterator[Row]:
    yield from quick_commands(work)
    yield from registration(work)
    yield from promotion(work)
    yield from scaling(work)
    yield from serving(work)


def quick_commands(work: Path) -> Iterator[Row]:
    """Start-up: what a person waits for before anything happens."""
    source = models.fetch()
    recognition = source / models.NAMES["rec"]
    models.tuned(recognition, work / "rec-tuned")
    home = project(work / "quick")
    shipway(home, "register", str(recognition), "--name", "rec")
    shipway(home, "register", str(work / "rec-tuned"), "--name", "rec")
    for version in "12":
        shipway(home, "promote", f"rec/{version}", "--to", "prod")

    def floor() -> float:
        return run(FLOOR, home).wall

    for command in (["--help"], ["status"], ["history"]):
        yield Row(f"shipway {command[0]}", "typer app", 1.5, lambda c=command: shipway(home, *c), floor)  # type: ignore[misc]
    yield Row(
        "shipway status, MLflow",
        "mlflow --version",
        0.08,
        lambda: shipway(home, "status"),
        lambda: run([BIN / "mlflow", "--version"], home).wall,
    )

    def rollback() -> float:
        shipway(home, "promote", "rec/2", "--to", "prod")
        return shipway(home, "rollback", "--env", "prod")

    def rolled_back() -> None:
        for target, live in answer(home, "status")["environments"]["prod"].items():
            assert live["version"] == 1, target
            assert live["healthy"], target
        answer(home, "mirror")

    yield Row("rollback, four folders", "typer app", 2.5, rollback, floor, rolled_back)


def registration(work: Path) -> Iterator[Row]:
    recognition = models.fetch() / models.NAMES["rec"]
    home, other = work / "register", work / "documented"

    def documented() -> float:
        shutil.rmtree(other, ignore_errors=True)
        other.mkdir()
        script = [sys.executable, HERE / "documented_way.py", recognition, "rec"]
        return run(script, other, {"MLFLOW_TRACKING_URI": f"sqlite:///{other}/mlflow.db"}).wall

    def first() -> float:
        project(home)
        return shipway(home, "register", str(recognition), "--name", "rec")

    def again() -> float:
        return shipway(home, "register", str(recognition), "--name", "rec")

    def registered() -> None:
        shown = answer(home, "register", str(recognition), "--name", "rec")
        assert (shown["version"], shown["created"]) == (1, False)
        assert all(link["passed"] for link in shown["links"])
        answer(home, "verify", "rec/1")

    yield Row("register PP-OCRv4 rec", "documented script", 0.35, first, documented, registered)
    yield Row("register it again", "documented script", 0.05, again, documented, registered)


def promotion(work: Path) -> Iterator[Row]:
    home = project(work / "promote")
    model = big_model(work / "100.onnx", 100)
    shipway(home, "register", str(model), "--name", "big")
    fresh = work / "fresh"
    copy = work / "copy"

    def renew(keep_store: bool) -> None:
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.copytree(home, fresh, symlinks=True)
        if keep_store:
            shutil.rmtree(fresh / ".shipway/store/ledger", ignore_errors=True)
            shutil.rmtree(fresh / "deployed", ignore_errors=True)

    def promote() -> float:
        renew(keep_store=False)
        return shipway(fresh, "promote", "big/1", "--to", "prod")

    def copied() -> float:
        shutil.rmtree(copy, ignore_errors=True)
        script = 'cp -r "$1" "$2" && find "$2" -type f -exec sha256sum {} + >/dev/null && sync -f "$2"'
        return run(["sh", "-c", script, "sh", fresh / "deployed", copy], work).wall

    def whole() -> None:
        for target in ("server", "jetson", "mobile", "browser"):
            (release,) = (fresh / "deployed" / target / "releases").iterdir()
            answer(fresh, "verify", str(release), "--no-run")

    yield Row("promote 100 MB, nothing cached", "cp -r and sha256sum", 2.0, promote, copied, whole)

    def again() -> float:
        shutil.rmtree(fresh / ".shipway/store/ledger")
        shutil.rmtree(fresh / "deployed")
        return shipway(fresh, "promote", "big/1", "--to", "prod")

    yield Row("promote 100 MB, in the store", "cp -r and sha256sum", 0.3, again, copied, whole)


def scaling(work: Path) -> Iterator[Row]:
    """What must not grow: reading the ledger with its length, memory with the model's size."""
    homes = {length: project(work / f"ledger-{length}") for length in (10, 10_000)}
    for length, home in homes.items():
        fill_ledger(home, length)

    def status(length: int) -> Callable[[], float]:
        return lambda: shipway(homes[length], "status")

    yield Row("status, 10,000 entries", "10 entries", 1.2, status(10_000), status(10))

    home = project(work / "memory")
    for size in (100, 1000):
        shipway(home, "register", str(big_model(work / f"{size}.onnx", size)), "--name", f"m{size}")
        (work / f"{size}.onnx").unlink()

    def peak(size: int) -> Callable[[], float]:
        def measured() -> float:
            shutil.rmtree(home / "deployed", ignore_errors=True)
            shutil.rmtree(home / ".shipway/store/ledger", ignore_errors=True)
            shutil.rmtree(home / ".shipway/store/builds", ignore_errors=True)
            return run([SHIPWAY, "promote", f"m{size}/1", "--to", "prod"], home).peak / 1e6

        return measured

    yield Row("peak memory, promote 1 GB", "100 MB", 1.3, peak(1000), peak(100), unit="MB", rounds=3)


def serving(work: Path) -> Iterator[Row]:
    """The bundle's server on one thread, two clients at work, against the runtime itself."""
    folder = serve.bundle(work / "serve", threads=1)
    runs = serve.loop(folder)
    with serve.served(folder) as port:
        answers = serve.clients(port)
        yield Row(
            "an answer of PP-OCRv4 rec's server",
            "ONNX Runtime in a loop",
            1.25,
            lambda: 1e3 / answers(),
            lambda: 1e3 / runs(),
            unit="ms",
        )


def fill_ledger(home: Path, length: int) -> None:
    """A ledger as ``length`` promotions would have left it, written through shipway's own code."""
    from shipway.registry.ledger import owner
    from shipway.registry.ledger.events import LIVE, Place, Started
    from shipway.registry.ledger.ledger import Ledger
    from shipway.registry.nouns import Digest
    from shipway.registry.store.folder import FolderObjects

    ledger = Ledger(FolderObjects(home / ".shipway/store"))
    place = Place("prod", "server")
    for serial in range(1, length + 1):
        started = Started(
            place=place,
            serial=serial,
            kind="promote",
            model="rec",
            version=serial,
            bundle=Digest.of(str(serial).encode()),
            release=f"rec-{serial}",
            actor="bench",
            at=owner.now(),
            reason="",
            accept=None,
            restores=None,
            before=None,
            command=str(serial),
            peers=(("server", serial),),
            owner=owner.this_process(),
        )
        ledger.claim(started)
        ledger.end(started, LIVE)

"""``register`` where it must fail: what is told, and that nothing is left."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from onnx_scene import model_of, value
from register_scene import inventory, rows

from shipway.registry.config.load import load_text
from shipway.registry.config.project import Project
from shipway.registry.errors import (
    ConversionError,
    DeliveryError,
    ShipwayError,
    UsageError,
    VerificationError,
)
from shipway.registry.verbs.register import register

Build = Callable[..., onnx.ModelProto]

pytestmark = pytest.mark.usefixtures("scratch")


@pytest.mark.parametrize(
    ("content", "family"),
    [(b"", ConversionError), (b"just a text\n" * 9, ConversionError), (None, ConversionError)],
)
def test_files_that_are_no_model(
    project: Project,
    tmp_path: Path,
    scratch: Path,
    mlp: Build,
    content: bytes | None,
    family: type[ShipwayError],
) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(mlp().SerializeToString()[:-100] if content is None else content)
    before = inventory(project.root)
    with pytest.raises(family) as caught:
        register(project, path, "net")
    assert caught.value.remedy
    assert inventory(project.root) == before
    assert rows(project) == 0
    assert not list(scratch.iterdir())


@pytest.mark.parametrize("name", ["../net", "my net", "a'b", "", "x" * 200, "-net", "a/b", "net\n"])
def test_names_that_are_refused(project: Project, model_file: Path, name: str) -> None:
    with pytest.raises(UsageError, match="can't be the name"):
        register(project, model_file, name)


def test_a_model_that_does_not_load(project: Project, tmp_path: Path, mlp: Build) -> None:
    model = mlp()
    model.graph.node[1].op_type = "NoSuchOperator"
    onnx.save(model, tmp_path / "net.onnx")
    with pytest.raises(ConversionError, match="can't load") as caught:
        register(project, tmp_path / "net.onnx", "net")
    assert "NoSuchOperator" in caught.value.why
    assert rows(project) == 0


def test_a_model_whose_outputs_are_not_numbers(project: Project, tmp_path: Path, mlp: Build) -> None:
    model = mlp()
    weight = model.graph.initializer[0]
    values = numpy_helper.to_array(weight).copy()
    values[0, 0] = np.nan
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    onnx.save(model, tmp_path / "net.onnx")
    before = inventory(project.root)
    with pytest.raises(VerificationError) as caught:
        register(project, tmp_path / "net.onnx", "net")
    assert "given -> onnx" in caught.value.why
    assert "NaN" in caught.value.why
    assert inventory(project.root) == before
    assert rows(project) == 0


def test_inputs_that_do_not_fit(project: Project, model_file: Path) -> None:
    for inputs in (["y:float32:1x8"], ["x:float32:1x9"], ["nonsense"]):
        with pytest.raises(UsageError):
            register(project, model_file, "net", inputs=inputs)
    assert rows(project) == 0


def test_a_store_that_can_not_be_written(
    fresh: Path, tmp_path: Path, scratch: Path, model_file: Path
) -> None:
    shutil.copytree(fresh, tmp_path / "p")
    (tmp_path / "file").write_text("in the way")
    blocked = load_text(f"project: demo\nstore: {tmp_path}/file/store\n", tmp_path / "p")
    with pytest.raises(DeliveryError):
        register(blocked, model_file, "net")
    assert rows(blocked) == 0
    assert rows(blocked, "logged_models") == 0
    assert not list(scratch.iterdir())


def test_an_unreachable_registry_leaves_the_store_alone(
    tmp_path: Path, model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "0")
    lost = load_text("project: demo\nregistry: http://127.0.0.1:9\n", tmp_path)
    with pytest.raises(DeliveryError, match=r"127\.0\.0\.1:9"):
        register(lost, model_file, "net")
    assert not [path for path in (tmp_path / ".shipway").rglob("*") if path.is_file()]


@pytest.mark.parametrize("kill", [signal.SIGINT, signal.SIGKILL])
def test_killed_while_it_works_nothing_is_registered(project: Project, model_file: Path, kill: int) -> None:
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # nohup ignores it
        "import sys, time; from pathlib import Path; from shipway.registry.config.load import load_text\n"
        "from shipway.registry import interrupts; interrupts.install()\n"  # as the command line does
        "from shipway.registry.convert import optimise\n"
        "from shipway.registry.verbs.register import register\n"
        "optimise.slim = lambda model: (print('at work', flush=True), time.sleep(600))\n"
        "register(load_text('project: demo', Path(sys.argv[1])), Path(sys.argv[2]), 'net')"
    )
    temporary = project.root.parent / "tmp"
    temporary.mkdir()
    command = [sys.executable, "-W", "ignore", "-c", code, str(project.root), str(model_file)]
    environment = {**os.environ, "TMPDIR": str(temporary)}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"at work\n"
        assert list(temporary.glob("*/way-0"))
        child.send_signal(kill)
    assert child.returncode != 0
    assert rows(project) == 0
    assert project.store.names() == []
    if kill == signal.SIGINT:
        assert not list(temporary.iterdir())
    done = register(project, model_file, "net")  # and nothing stands in the way of the next one
    assert done.created
    assert done.version.version == 1


@pytest.mark.parametrize("limit", [100_000, 700_000])
def test_a_full_disk(project: Project, scratch: Path, tmp_path: Path, mlp: Build, limit: int) -> None:
    """No file may grow beyond ``limit`` bytes: the work folder fills up, or MLflow's database does."""
    onnx.save(mlp(features=500), tmp_path / "net.onnx")
    code = (
        "import resource, sys; from pathlib import Path\n"
        "from shipway.registry.config.load import load_text\n"
        "from shipway.registry.errors import DeliveryError\n"
        "from shipway.registry.verbs.register import register\n"
        "project = load_text('project: demo', Path(sys.argv[1]))\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]),) * 2)\n"
        "try: register(project, Path(sys.argv[2]), 'net')\n"
        "except DeliveryError as error: print(error.remedy)\n"
    )
    before = inventory(project.root)
    command = [sys.executable, "-c", code, project.root, tmp_path / "net.onnx", str(limit)]
    run = subprocess.run(
        command, env={**os.environ, "TMPDIR": str(scratch)}, capture_output=True, text=True, check=False
    )
    assert run.stdout.strip(), run.stderr
    after = inventory(project.root)  # of what is named by its content nobody knows who relies on it
    assert {place: file for place, file in after.items() if "/blobs/" not in place} == before
    assert rows(project) == 0
    assert not list(scratch.iterdir())


def test_artifacts_that_can_not_be_written(project: Project, model_file: Path) -> None:
    """MLflow fails half-way: what it has logged is taken back; in the store are files and no record."""
    project.artifacts.write_text("in the way")
    with pytest.raises(DeliveryError):
        register(project, model_file, "net")
    assert rows(project) == 0
    assert {key.split("/")[0] for key in project.store.objects.list("")} <= {"blobs"}
    project.artifacts.unlink()
    assert register(project, model_file, "net").version.version == 1


def collapsing() -> onnx.ModelProto:
    """A softmax over 200 classes that differ in small parts of large weights, which int8 rounds away."""
    random = np.random.default_rng(0)
    large, small = 100 * random.standard_normal((16, 200)), random.standard_normal((16, 200)) / 2
    weights = np.concatenate([large, small - large]).astype(np.float32)
    nodes = [
        helper.make_node("Concat", ["x", "x"], ["twice"], axis=1),
        helper.make_node("MatMul", ["twice", "weights"], ["h"]),
        helper.make_node("Mul", ["h", "part"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["y"], axis=-1),
    ]
    given = {"weights": weights, "part": np.float32(0.2)}
    initializers = [numpy_helper.from_array(np.asarray(array), name) for name, array in given.items()]
    return model_of(nodes, [value("x", "N", 16)], [value("y", "N", 200)], initializers)


def test_an_int8_that_collapses_within_its_tolerance(project: Project, tmp_path: Path) -> None:
    onnx.save(collapsing(), tmp_path / "net.onnx")
    wanting = "project: demo\ntargets: {web: {kind: browser-wasm, precision: int8}}\n"
    with pytest.raises(VerificationError, match="'web' asks for") as caught:
        register(load_text(wanting, project.root), tmp_path / "net.onnx", "net")
    assert "flat" in caught.value.why
    assert "WRONG" not in caught.value.why
    assert "--samples" in caught.value.remedy
    assert rows(project) == 0


def test_samples_on_which_nothing_can_be_seen(project: Project, tmp_path: Path) -> None:
    nodes = [helper.make_node("Relu", ["x"], ["y"])]
    onnx.save(model_of(nodes, [value("x", "N", 4)], [value("y", "N", 4)]), tmp_path / "net.onnx")
    np.save(tmp_path / "dark.npy", np.full((1, 4), -1, np.float32))
    with pytest.raises(VerificationError, match="Nothing is proved of net") as caught:
        register(project, tmp_path / "net.onnx", "net", samples=tmp_path / "dark.npy")
    assert "--samples" in caught.value.remedy
    assert rows(project) == 0
    np.save(tmp_path / "seen.npy", np.array([[-1, 0, 1, 2]], np.float32))
    assert register(project, tmp_path / "net.onnx", "net", samples=tmp_path / "seen.npy").created

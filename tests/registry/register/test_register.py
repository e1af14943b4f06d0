"""``register`` on ONNX models, through to MLflow: what comes out, and what MLflow and the store know."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from register_scene import rows

from shipway.registry import catalog, files
from shipway.registry.config.load import load_text
from shipway.registry.config.project import Project
from shipway.registry.errors import (
    DeliveryError,
    IntegrityError,
    NotFoundError,
)
from shipway.registry.nouns import Digest
from shipway.registry.verbs.register import Registered, register
from shipway.registry.verify import measure, slice

Build = Callable[..., onnx.ModelProto]

pytestmark = pytest.mark.usefixtures("scratch")


@pytest.fixture(scope="module")
def registered(
    fresh: Path, tmp_path_factory: pytest.TempPathFactory, mlp: Build
) -> tuple[Project, Path, Registered]:
    """One registration, looked at from many sides. Not to be written to."""
    root = tmp_path_factory.mktemp("registered")
    shutil.copytree(fresh, root / "project")
    given = root / "given"
    given.mkdir()
    onnx.save(mlp(), given / "net.onnx")
    (given / "inference.yml").write_text("labels: [a, b]\n")
    project = load_text("project: demo\n", root / "project")
    return project, given / "net.onnx", register(project, given / "net.onnx", "net")


@pytest.fixture
def used(registered: tuple[Project, Path, Registered], tmp_path: Path) -> Project:
    """A copy of the project that holds net/1, to be written to."""
    root = tmp_path / "project"
    shutil.copytree(registered[0].root, root)
    return load_text("project: demo\n", root)


def test_a_version_comes_out_whole(registered: tuple[Project, Path, Registered]) -> None:
    project, _, result = registered
    version = result.version
    assert (version.name, version.version, result.created) == ("net", 1, True)
    assert [(link.source, link.target, link.passed) for link in version.links] == [
        ("given", "onnx", True),
        ("given", "optimised", True),
    ]
    assert all(
        output.max_abs < 1e-6 and output.scale > 0.3 for link in version.links for output in link.outputs
    )
    assert version.inputs[0].shape == ("N", 8)
    assert version.outputs[0].shape == ("N", 4)
    assert version.toolchain == "onnx"
    assert version.variant("fp32") is not None
    assert [asset.path for asset in version.assets] == ["assets/inference.yml"]
    assert [file.path for file in version.golden] == [
        "golden/golden.json",
        "golden/0-0.bin",
        "golden/0-1.bin",
    ]
    assert set(result.seconds) >= {"read", "convert", "verify", "log", "total"}
    for file in catalog.locations(version).values():
        assert files.digest_of(project.store.open(file)) == file.digest
    assert project.store.version("net", 1) == version


def test_nothing_but_its_own_folders_was_written(registered: tuple[Project, Path, Registered]) -> None:
    project, given, _ = registered
    assert {path.name for path in given.parent.iterdir()} == {"net.onnx", "inference.yml"}
    assert {path.name for path in project.root.iterdir()} == {".shipway"}
    assert {path.name for path in (project.root / ".shipway").iterdir()} == {
        "mlflow.db",
        "store",
        "artifacts",
    }
    assert not list(project.root.rglob("*.data"))  # MLflow's own copy of the weights


def test_plain_mlflow_loads_it_and_gives_the_golden_outputs(
    registered: tuple[Project, Path, Registered], tmp_path: Path
) -> None:
    project, _, _ = registered
    code = """
import sys, mlflow, numpy as np
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.onnx.load_model("models:/net/1")
open("model.onnx", "wb").write(model.SerializeToString())
flavor = mlflow.pyfunc.load_model("models:/net/1")
print(sorted(flavor.metadata.flavors), flavor.metadata.signature.inputs.input_names())
out = flavor.predict(flavor.input_example)
np.save("out.npy", out["y"])
"""
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, project.registry_uri],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert "['onnx', 'python_function'] ['x']" in run.stdout
    placed = tmp_path / "golden"
    placed.mkdir()
    for file in project.store.version("net", 1).golden:  # type: ignore[union-attr]
        shutil.copy(project.store.open(file), tmp_path / file.path)
    case = slice.read(placed)[0]
    inputs = {tensor.name: tensor.values for tensor in case.inputs}
    outputs = measure.run(measure.session(tmp_path / "model.onnx"), [inputs])[0]
    assert np.abs(outputs[0] - case.outputs[0].values).max() < 1e-6
    assert np.abs(np.load(tmp_path / "out.npy") - case.outputs[0].values).max() < 1e-6


def test_mlflow_knows_the_numbers(registered: tuple[Project, Path, Registered]) -> None:
    project, _, result = registered
    with sqlite3.connect(project.registry_uri.removeprefix("sqlite:///")) as database:
        metrics = dict(database.execute("select key, value from metrics").fetchall())
        tags = dict(database.execute("select key, value from model_version_tags").fetchall())
        status = database.execute("select status from runs").fetchall()
    database.close()
    assert metrics["given-to-onnx/y/max_abs"] == result.version.links[0].outputs[0].max_abs
    assert tags["shipway.digest"] == str(result.version.digest)
    assert status == [("FINISHED",)]


def test_again_is_the_same_version_at_once(registered: tuple[Project, Path, Registered]) -> None:
    project, given, result = registered
    code = """
import sys
from pathlib import Path
from shipway.registry.config.load import load_text
from shipway.registry.verbs.register import register
done = register(load_text("project: demo\\n", Path(sys.argv[1])), Path(sys.argv[2]), "net")
heavy = {"mlflow", "onnx", "onnxruntime", "paddle", "numpy"}
heavy = sorted({name.split(".")[0] for name in sys.modules} & heavy)
print(done.created, done.version.version, heavy)
"""
    run = subprocess.run(
        [sys.executable, "-c", code, project.root, given], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "False 1 []"
    assert rows(project) == 1
    assert result.created


def test_the_same_weights_from_elsewhere_are_the_same_version(
    registered: tuple[Project, Path, Registered], tmp_path: Path, mlp: Build
) -> None:
    project, given, result = registered
    assets = [given.parent / "inference.yml"]
    onnx.save(mlp(prefix="exported_again_"), tmp_path / "other.onnx")
    again = register(project, tmp_path / "other.onnx", "net", assets=assets)
    assert (again.version, again.created) == (result.version, False)
    assert rows(project) == 1
    once_more = register(project, tmp_path / "other.onnx", "net", assets=assets)
    assert set(once_more.seconds) == {"read", "total"}  # from now on this source is known as well


def test_other_weights_assets_or_shapes_are_other_versions(
    used: Project, tmp_path: Path, registered: tuple[Project, Path, Registered], mlp: Build
) -> None:
    onnx.save(mlp(seed=1), tmp_path / "tuned.onnx")
    labels = tmp_path / "labels.txt"
    labels.write_text("a\nb\n")
    made = [
        register(used, tmp_path / "tuned.onnx", "net"),
        register(used, registered[1], "net", assets=[labels]),
        register(used, registered[1], "net", inputs=["x:float32:1x8"]),
        register(used, registered[1], "other"),
    ]
    assert [str(one.version.ref) for one in made] == ["net/2", "net/3", "net/4", "other/1"]
    assert all(one.created for one in made)
    assert made[2].version.inputs[0].shape == (1, 8)
    assert made[2].version.outputs[0].shape == (1, 4)
    [listed] = catalog_calls(used, ["list_versions", None])
    expected = [("net", 1), ("net", 2), ("net", 3), ("net", 4), ("other", 1)]
    assert [(entry["name"], entry["version"]) for entry in listed] == expected


CATALOG = """
import dataclasses, json, sys
from pathlib import Path
from shipway.registry import catalog
from shipway.registry.errors import ShipwayError
from shipway.registry.store.folder import FolderObjects
from shipway.registry.store.store import Store
uri, calls, blocked = json.loads(sys.argv[1])
for name in blocked:
    sys.modules[name] = None
answers = []
for do, *arguments in calls:
    try:
        if do == "fetch_version":
            arguments[-1] = Store(FolderObjects(Path(arguments[-1])))
        found = getattr(catalog, do)(uri, *arguments)
        if do == "list_versions":
            found = [dataclasses.asdict(entry) for entry in found]
        answers.append(found.to_json() if do == "fetch_version" else found)
    except ShipwayError as error:
        answers.append({"error": type(error).__name__, "text": str(error)})
print(json.dumps(answers))
"""


def catalog_calls(project: Project, *calls: list[object], uri: str = "") -> list[Any]:
    """Call functions of the catalog where nothing is importable that the light install lacks."""
    blocked = ["numpy", "pandas", "onnx", "onnxruntime", "sklearn", "matplotlib", "flask"]
    request = json.dumps([uri or project.registry_uri, calls, blocked])
    run = subprocess.run(
        [sys.executable, "-c", CATALOG, request],
        cwd=project.root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert len(run.stdout.splitlines()) == 1, run.stdout
    answers: list[Any] = json.loads(run.stdout)
    return answers


def test_the_store_is_filled_from_mlflow_alone(
    registered: tuple[Project, Path, Registered], tmp_path: Path
) -> None:
    project, _, result = registered
    root = tmp_path / "store"
    [fetched] = catalog_calls(project, ["fetch_version", "net", 1, str(root)])
    assert fetched == result.version.to_json()
    elsewhere = load_text(f"project: demo\nstore: {root}\n", project.root)
    assert elsewhere.store.version("net", 1) == result.version
    assert all(elsewhere.store.has(file.digest) for file in catalog.locations(result.version).values())


def test_a_lost_store_is_filled_again_by_registering(
    registered: tuple[Project, Path, Registered], tmp_path: Path
) -> None:
    project, given, result = registered
    elsewhere = load_text(f"project: demo\nstore: {tmp_path / 'other'}\n", project.root)
    again = register(elsewhere, given, "net")
    assert (again.version, again.created) == (result.version, False)
    assert rows(project) == 1
    assert rows(project, "logged_models") == 1  # nothing was logged in vain


def test_altered_artifacts_are_refused(project: Project, model_file: Path, tmp_path: Path) -> None:
    register(project, model_file, "net")
    model = next(project.artifacts.rglob("model.onnx"))
    raw = bytearray(model.read_bytes())
    raw[len(raw) // 2] ^= 1
    model.write_bytes(raw)
    [answer] = catalog_calls(project, ["fetch_version", "net", 1, str(tmp_path / "store")])
    assert answer["error"] == IntegrityError.__name__
    assert not (tmp_path / "store").exists()


def test_aliases(used: Project, registered: tuple[Project, Path, Registered]) -> None:
    register(used, registered[1], "two")
    answers = catalog_calls(
        used,
        ["set_aliases", {"prod-server": ["net", 1], "prod-web": ["net", 1]}],
        ["resolve_alias", "net", "prod-server"],
        ["resolve_alias", "net", "prod-web"],
        ["set_aliases", {"prod-server": ["two", 1]}],
        ["resolve_alias", "two", "prod-server"],
        ["resolve_alias", "net", "prod-server"],
        ["set_aliases", {"prod-server": None}],
        ["resolve_alias", "two", "prod-server"],
        ["resolve_alias", "net", "prod-web"],
        ["resolve_alias", "nosuch", "prod-web"],
        ["list_versions", "net"],
    )
    [*rest, listed] = [answer["error"] if isinstance(answer, dict) else answer for answer in answers]
    lost = NotFoundError.__name__
    assert rest == [None, 1, 1, None, 1, lost, None, lost, 1, lost]
    assert listed[0]["aliases"] == ["prod-web"]
    assert listed[0]["digest"]["hex"] == registered[2].version.digest.hex


def test_reading_what_is_not_there_creates_nothing(tmp_path: Path) -> None:
    tmp_path = tmp_path / "empty"
    tmp_path.mkdir()
    empty = load_text("project: demo\n", tmp_path)
    assert catalog.list_versions(empty.registry_uri) == []
    with pytest.raises(NotFoundError):
        catalog.resolve_alias(empty.registry_uri, "net", "prod-web")
    with pytest.raises(NotFoundError):
        catalog.fetch_version(empty.registry_uri, "net", 1, empty.store)
    assert not catalog.has_version(empty.registry_uri, "net", 1, Digest.of(b""))
    assert list(tmp_path.iterdir()) == []


def test_an_unreachable_registry_says_so(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "0")  # or it waits for seconds between its tries
    [answer] = catalog_calls(project, ["list_versions", None], uri="http://127.0.0.1:9/")
    assert answer["error"] == DeliveryError.__name__
    assert "http://127.0.0.1:9/" in answer["text"]
    assert "'registry' in deploy.yaml" in answer["text"]


def test_a_version_deleted_in_mlflow_is_registered_anew(
    used: Project, registered: tuple[Project, Path, Registered]
) -> None:
    _, given, first = registered
    code = (
        "import sys, mlflow; mlflow.MlflowClient(sys.argv[1], sys.argv[1]).delete_model_version('net', '1')"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code, used.registry_uri], check=True)
    again = register(used, given, "net")
    assert again.created
    assert again.version.version == 2
    assert again.version.digest == first.version.digest


def test_a_name_with_a_dot(project: Project, model_file: Path) -> None:
    """MLflow's registered models may be called so, what it logs may not."""
    done = register(project, model_file, "ocr.v4")
    assert str(done.version.ref) == "ocr.v4/1"

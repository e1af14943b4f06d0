"""MLflow as a server on PostgreSQL with its artifacts in S3: versions, aliases, and the server's death."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import mlflow_parts as parts
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from shipway.registry import catalog, catalog_worker
from shipway.registry.config.load import load_text
from shipway.registry.config.project import Project
from shipway.registry.deploy import mirror
from shipway.registry.errors import ConfigError, DeliveryError
from shipway.registry.nouns import ModelRef, ModelVersion
from shipway.registry.verbs.history import history
from shipway.registry.verbs.promote import promote
from shipway.registry.verbs.register import register
from shipway.registry.verbs.resolve import resolve
from shipway.registry.verbs.rollback import rollback
from shipway.registry.verbs.status import status
from shipway.registry.verbs.versions import show, versions

pytestmark = pytest.mark.real

TEXT = """
project: acme-ocr
registry: {registry}
store: {{to: "s3://{bucket}/{store}", endpoint: "{endpoint}"}}
targets:
  jetson: {{kind: jetson-ort}}
environments:
  {environment}:
    jetson: {{to: "s3://{bucket}/{environment}/jetson"}}
"""
SHIPWAY = str(Path(sys.executable).with_name("shipway"))


def a_model(path: Path, seed: int, features: int = 8) -> Path:
    """``x`` [N, features] -> Gemm -> ``y`` [N, 64]: 256 bytes a feature."""
    weights = np.random.default_rng(seed).standard_normal((features, 64), dtype=np.float32) / features
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["x", "w", "b"], ["y"])],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", features])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 64])],
        [numpy_helper.from_array(weights, "w"), numpy_helper.from_array(np.ones(64, np.float32), "b")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@dataclasses.dataclass
class Scene:
    """An MLflow server, and the bucket that it and the projects of one test share."""

    server: parts.MlflowServer
    s3: Any
    folder: Path

    def project(
        self, name: str = "one", *, registry: str = "", store: str = "store", environment: str = "prod"
    ) -> Project:
        """A project in a folder of its own; those of one ``store`` are clones of each other."""
        root = self.folder / name
        root.mkdir(exist_ok=True)
        text = TEXT.format(
            registry=registry or self.server.url,
            bucket=self.s3.bucket,
            endpoint=self.s3.endpoint,
            store=store,
            environment=environment,
        )
        (root / "deploy.yaml").write_text(text)
        return load_text(text, root)

    def model(self, seed: int, features: int = 8) -> Path:
        return a_model(self.folder / f"{seed}.onnx", seed, features)


def scene(cluster: parts.Postgres, s3: Any, folder: Path, *, proxied: bool = True) -> Scene:
    """A new database and a server over it, not started yet."""
    database = f"mlflow_{time.time_ns()}"
    cluster.psql(f"create database {database}")
    artifacts = f"s3://{s3.bucket}/mlflow"
    server = parts.MlflowServer(cluster.uri(database), artifacts, s3.endpoint, folder / "log", proxied)
    return Scene(server, s3, folder)


@pytest.fixture(params=["proxied", "direct"])
def up(
    request: pytest.FixtureRequest,
    cluster: parts.Postgres,
    real_s3: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Scene]:
    """A running server that handles artifacts itself, or one whose clients write to S3."""
    if request.param == "direct":
        monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", real_s3.endpoint)  # MLflow's own variable
    made = scene(cluster, real_s3, tmp_path, proxied=request.param == "proxied")
    made.server.start()
    yield made
    made.server.kill()


proxied = pytest.mark.parametrize("up", ["proxied"], indirect=True)


@pytest.fixture(autouse=True)
def _wait_for_the_mirror(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(mirror.MODE, "wait")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "0")


def aliases(project: Project, name: str = "net") -> dict[str, int]:
    listed = catalog.list_versions(project.registry_uri, name)
    return {alias: entry.version for entry in listed for alias in entry.aliases}


def test_versions_and_aliases(up: Scene) -> None:
    """The whole job of two versions, then a second person with nothing but the registry's address."""
    project = up.project()
    first = register(project, up.model(1), "net")
    assert (first.version.version, first.created) == (1, True)
    again = register(project, up.model(1), "net")
    assert (again.version.version, again.created) == (1, False)
    assert register(project, up.model(2), "net").version.version == 2
    promote(project, ModelRef.parse("net/1"), "prod")
    assert aliases(project) == {"prod-jetson": 1}
    promote(project, ModelRef.parse("net/2"), "prod")
    assert aliases(project) == {"prod-jetson": 2}
    (back,) = rollback(project, "prod").deployments
    assert (back.serial, back.version, back.outcome) == (3, 1, "live")
    assert aliases(project) == {"prod-jetson": 1}
    assert status(project)["prod"]["jetson"].mirrored
    assert [(one.version, one.live) for one in versions(project)] == [(1, ("prod/jetson",)), (2, ())]

    other = up.project("other", store="elsewhere", environment="lab")
    assert [one.version for one in versions(other)] == [1, 2]
    fetched, _ = show(other, ModelRef.parse("net@prod-jetson"))
    assert fetched == first.version
    assert register(other, up.model(2), "net").created is False
    for file in catalog.locations(fetched).values():
        assert other.store.is_intact(file)


@proxied
def test_a_version_loads_with_mlflow_alone(up: Scene) -> None:
    project = up.project()
    version = register(project, up.model(3), "net").version
    code = """import mlflow.onnx, sys
sys.stdout.buffer.write(mlflow.onnx.load_model("models:/net/1").SerializeToString())"""
    loaded = subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        capture_output=True,
        env={**os.environ, "MLFLOW_TRACKING_URI": up.server.url},
    ).stdout
    weights = [numpy_helper.to_array(tensor) for tensor in onnx.load_from_string(loaded).graph.initializer]
    path = project.store.open(version.variants[0].files[0])
    kept = [numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer]
    assert all(np.array_equal(one, other) for one, other in zip(weights, kept, strict=True))


def test_a_large_model_arrives_once_and_whole(up: Scene) -> None:
    """100 MB: uploads of large models through MLflow fail or come twice for others (mlflow#7564, #11684)."""
    project = up.project()
    version = register(project, up.model(4, features=400_000), "large").version
    model = version.variants[0].files[0]
    assert model.size > 100_000_000
    listed = up.s3.keys("mlflow/")
    assert [size for key, size in listed.items() if key.endswith("model.onnx")] == [model.size]
    other = up.project("other", store="elsewhere")
    assert resolve(other, ModelRef.parse("large/1")) == version
    assert other.store.is_intact(model)


@proxied
def test_deployments_go_on_while_the_server_is_down(up: Scene) -> None:
    project = up.project()
    for seed in (1, 2):
        register(project, up.model(seed), "net")
        promote(project, ModelRef.parse(f"net/{seed}"), "prod")
    up.server.kill()
    assert rollback(project, "prod").deployments[0].version == 1
    found = status(project)["prod"]["jetson"]
    assert (found.healthy, found.version, found.mirrored) == (True, 1, False)
    assert [event.started.version for event in history(project)] == [1, 2, 1]
    assert promote(project, ModelRef.parse("net/2"), "prod").deployments[0].outcome == "live"
    assert [one.version for one in versions(project)] == [1, 2]
    assert "can't be used" in mirror.last_error(project)
    with pytest.raises(DeliveryError, match="can't be used"):
        register(project, up.model(3), "net")
    up.server.start()
    assert aliases(project) == {"prod-jetson": 2}  # as it was: 2, then 1 and 2 again unseen
    promote(project, ModelRef.parse("net/1"), "prod")  # the next command catches up
    assert aliases(project) == {"prod-jetson": 1}
    assert status(project)["prod"]["jetson"].mirrored
    assert mirror.last_error(project) == ""


@proxied
def test_a_server_killed_while_it_takes_files(up: Scene, store_parts: Any) -> None:
    path = up.model(5, features=40_000)
    with store_parts.FaultProxy("127.0.0.1", up.server.port) as proxy, ThreadPoolExecutor(1) as pool:
        # Were it quicker than we are, it still would not get to the end.
        proxy.plan(method="POST", path="model-versions/create", drop=True, times=10**6)
        registering = pool.submit(register, up.project(registry=proxy.url), path, "net")
        end = time.monotonic() + 300
        while not up.s3.keys("mlflow/"):  # the first file has arrived
            assert time.monotonic() < end
            time.sleep(0.01)
        up.server.kill()
        with pytest.raises(DeliveryError):
            registering.result()
    up.server.start()
    project = up.project()
    assert catalog.list_versions(project.registry_uri) == []
    version = register(project, path, "net").version
    assert version.version == 1
    assert resolve(up.project("other", store="elsewhere"), ModelRef.parse("net/1")) == version


@proxied
def test_a_register_cut_off_at_any_request_leaves_all_or_nothing(
    up: Scene, store_parts: Any, record_counts: Any
) -> None:
    """The server dies before its n-th request, or after it and before the answer, for each n there is."""
    project = up.project()
    version = register(project, up.model(6), "net").version
    folder = up.folder / "laid out"
    for place, file in catalog.locations(version).items():
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / place).write_bytes(project.store.open(file).read_bytes())

    def log(name: str, uri: str) -> catalog_worker.Logged:
        draft = dataclasses.replace(version, name=name, version=0)
        (folder / catalog.RECORD).write_bytes(catalog.draft_record(draft))
        return catalog_worker.log_version(uri, up.folder, "acme-ocr", draft, folder, None)

    cut = kept = 0
    with store_parts.FaultProxy("127.0.0.1", up.server.port) as proxy:
        for fault in ("drop", "lose"):
            for number in range(1000):
                name = f"{fault}-{number}"
                proxy.forget()
                strike = proxy.plan(**{fault: True}, skip=number)
                dead = proxy.plan(drop=True, skip=number, times=10**6)
                try:
                    logged = log(name, proxy.url)
                except DeliveryError:
                    cut += 1
                    assert strike.hits == 1
                else:
                    assert dead.hits == 0, "it said that all is well, and could not know"
                    break
                proxy.forget()
                left = catalog.list_versions(up.server.url, name)
                assert len(left) <= 1
                kept += len(left)
                logged = log(name, proxy.url)
                assert (logged.version, logged.created) == (1, not left)
                assert whole(up, name) == dataclasses.replace(version, name=name)
    record_counts("MLflow: requests of register after which the server was gone", cut)
    assert cut > 20
    assert kept > 0  # the answer to the very last request was lost: a version, and whole


def whole(up: Scene, name: str) -> ModelVersion:
    """The only version of a model, fetched into an empty store, where each file is checked."""
    (entry,) = catalog.list_versions(up.server.url, name)
    return catalog.fetch_version(up.server.url, name, entry.version, up.project(name, store=name).store)


@proxied
def test_a_version_is_made_once_though_its_answer_is_lost(up: Scene, store_parts: Any) -> None:
    """MLflow's client sends a request again whose answer did not come: that made two versions of one."""
    with store_parts.FaultProxy("127.0.0.1", up.server.port) as proxy:
        project = up.project(registry=proxy.url)
        lost = proxy.plan(method="POST", path="model-versions/create", lose=True)
        done = register(project, up.model(7), "net")
        assert lost.hits == 1
        assert sum("model-versions/create" in request.path for request in proxy.requests) == 2
    assert (done.version.version, done.created) == (1, True)
    assert [entry.version for entry in catalog.list_versions(up.server.url)] == [1]
    assert whole(up, "net") == done.version


@proxied
def test_those_who_register_one_model_at_once_get_one_version(up: Scene) -> None:
    path = up.model(8)
    roots = [up.project(f"one-{number}").root for number in range(4)]
    answers = []

    def run(root: Path) -> None:
        command = [SHIPWAY, "--json", "register", str(path), "--name", "net"]
        done = subprocess.run(command, cwd=root, capture_output=True, text=True)
        answers.append(json.loads(done.stdout) if done.returncode == 0 else {"failed": done.stderr})

    threads = [threading.Thread(target=run, args=(root,)) for root in roots]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not [answer["failed"] for answer in answers if "failed" in answer]
    (entry,) = catalog.list_versions(up.server.url)
    assert {answer["version"] for answer in answers} == {entry.version}
    assert sum(answer["created"] for answer in answers) <= 1
    assert whole(up, "net").digest == entry.digest


def test_a_database_without_a_server_needs_a_place_for_files(
    cluster: parts.Postgres, real_s3: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", real_s3.endpoint)
    made = scene(cluster, real_s3, tmp_path)
    project = made.project(registry=made.server.database)
    with pytest.raises(ConfigError, match="database without a server") as caught:
        register(project, made.model(9), "net")
    assert cluster.password not in str(caught.value)
    assert catalog.list_versions(project.registry_uri) == []
    command = caught.value.remedy.partition("=... ")[2].partition(". Or")[0].split()
    command[-1] = made.server.artifacts
    environment = {**os.environ, "MLFLOW_TRACKING_URI": made.server.database}
    program = Path(sys.executable).with_name(command[0])
    subprocess.run([program, *command[1:]], check=True, env=environment, capture_output=True)
    version = register(project, made.model(9), "net").version
    other = made.project("other", registry=made.server.database, store="elsewhere")
    assert resolve(other, ModelRef.parse("net/1")) == version

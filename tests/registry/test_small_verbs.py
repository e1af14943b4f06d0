"""doctor, versions, show, diff and inspect."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import records

from shipway.registry import catalog
from shipway.registry.config.load import load_text
from shipway.registry.config.project import Project
from shipway.registry.errors import ConfigError, NotFoundError, UsageError
from shipway.registry.nouns import Digest, File, ModelRef, ModelVersion, Variant
from shipway.registry.verbs.doctor import Finding, doctor
from shipway.registry.verbs.inspect import inspect, lay_out
from shipway.registry.verbs.versions import diff, show, versions

TEXT = "project: acme\nenvironments: {}\n"


def make(root: Path, text: str = TEXT) -> Project:
    return load_text(text, root)


def record(number: int, name: str = "ocr", content: bytes = b"model") -> ModelVersion:
    digest = Digest.of(content)
    return records.version(
        name=name,
        version=number,
        digest=digest,
        source=Digest.of(bytes([number]) + content),
        operators=("Add",),
        variants=(Variant("fp32", (File("model.onnx", digest, len(content)),)),),
    )


def finding(found: list[Finding], name: str) -> Finding:
    return next(item for item in found if item.name == name)


def test_doctor_leaves_nothing_behind_but_the_stores_folders(tmp_path: Path) -> None:
    found = doctor(make(tmp_path))
    assert finding(found, "store").state == "ok"
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    for item in found:
        assert item.state == "ok" or item.remedy, item


def test_doctor_says_what_a_broken_file_means() -> None:
    found = doctor(None, ConfigError("deploy.yaml:2: x: unknown key", remedy="mend it"))
    assert finding(found, "deploy.yaml") == Finding(
        "deploy.yaml", "broken", "deploy.yaml:2: x: unknown key", "everything", "mend it"
    )
    several = ConfigError(
        "deploy.yaml has 2 errors.", why="deploy.yaml:2: x\ndeploy.yaml:5: y", remedy="mend it"
    )
    detail = finding(doctor(None, several), "deploy.yaml").detail
    assert detail == "deploy.yaml has 2 errors. deploy.yaml:2: x deploy.yaml:5: y"


def test_doctor_finds_a_store_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file")
    item = finding(doctor(make(tmp_path, TEXT + "store: ./store\n")), "store")
    assert item.state == "broken"
    assert item.remedy


def test_doctor_finds_a_registry_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("not sqlite")
    item = finding(doctor(make(tmp_path, TEXT + "registry: sqlite:///mlflow.db\n")), "registry")
    assert (item.state, "no sqlite database" in item.detail) == ("broken", True)


def test_doctor_finds_a_server_that_is_down_and_hides_the_password(tmp_path: Path) -> None:
    text = TEXT + "registry: http://me:secret@127.0.0.1:9/\n"
    item = finding(doctor(make(tmp_path, text)), "registry")
    assert item.state == "broken"
    assert "secret" not in item.detail
    assert "me:***@127.0.0.1:9" in item.detail


def test_doctor_finds_destinations_that_cannot_be_written_or_reached(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    text = (
        "project: acme\n"
        "targets: {a: {kind: browser-wasm}, b: {kind: browser-wasm}, c: {kind: browser-wasm}}\n"
        "environments: {prod: {a: {to: ./file/x}, b: {to: ssh://127.0.0.1:9/opt/acme}, c: {to: ./out}}}\n"
    )
    found = doctor(make(tmp_path, text))
    states = {item.name: item.state for item in found if item.name.startswith("prod/")}
    assert states == {"prod/a": "broken", "prod/b": "broken", "prod/c": "ok"}


def test_versions_come_from_the_store_without_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("MLflow was asked")

    monkeypatch.setattr(catalog, "list_versions", refuse)
    project = make(tmp_path)
    for number in (1, 2, 10):
        project.store.put_version(record(number))
    project.store.put_version(record(1, name="det"))
    found = versions(project)
    assert [(item.name, item.version) for item in found] == [("det", 1), ("ocr", 1), ("ocr", 2), ("ocr", 10)]
    assert [item.version for item in versions(project, "ocr")] == [1, 2, 10]
    assert found[0].to_json()["precisions"] == ["fp32"]


def test_versions_that_only_mlflow_knows_are_listed_when_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = [catalog.Entry("ocr", number, 0.0, None) for number in (1, 2)]
    monkeypatch.setattr(catalog, "list_versions", lambda uri, name: entries)
    project = make(tmp_path)
    assert [(item.version, item.record) for item in versions(project)] == [(1, None), (2, None)]
    project.store.put_version(record(1))
    assert [item.version for item in versions(project)] == [1]
    assert [item.version for item in versions(project, ask_mlflow=True)] == [1, 2]


def test_versions_of_an_unknown_model(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no version of 'ocr'"):
        versions(make(tmp_path), "ocr")
    with pytest.raises(UsageError):
        versions(make(tmp_path), "../ocr")


def test_show_and_diff_read_the_store(tmp_path: Path) -> None:
    project = make(tmp_path)
    project.store.put_version(record(1))
    project.store.put_version(replace(record(2, content=b"other"), operators=("Add", "Mul")))
    shown, live = show(project, ModelRef("ocr", version=2))
    assert (shown.version, live) == (2, ())
    found = diff(project, ModelRef("ocr", version=1), ModelRef("ocr", version=2))
    assert found.operators == ((), ("Mul",))
    assert not found.same_model


def test_a_version_that_is_not_there_is_told_with_those_that_are(tmp_path: Path) -> None:
    project = make(tmp_path)
    project.store.put_version(record(1))
    project.store.put_version(record(2))
    with pytest.raises(NotFoundError, match="no ocr/3") as caught:
        show(project, ModelRef("ocr", version=3))
    assert caught.value.why.splitlines()[-1] == "The store has ocr/1, ocr/2."
    with pytest.raises(NotFoundError, match="no orc/1") as caught:
        show(project, ModelRef("orc", version=1))
    assert caught.value.why.splitlines()[-1] == "Among the models: did you mean 'ocr'?"


def test_inspect_says_how_to_get_netron(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match="Netron is not installed") as caught:
        inspect(make(tmp_path), ModelRef("ocr", version=1))
    assert caught.value.remedy == "pip install netron"


def test_inspect_lays_the_graph_out_under_its_own_name(tmp_path: Path) -> None:
    project = make(tmp_path)
    source = tmp_path / "m.onnx"
    source.write_bytes(b"model")
    project.store.add_file(source)
    version = record(1)
    graph = lay_out(project.store, version.ref, version.variant("fp32"), tmp_path / "look")
    assert graph == tmp_path / "look" / "model.onnx"
    assert graph.read_bytes() == b"model"
    with pytest.raises(NotFoundError, match="no such precision"):
        lay_out(project.store, version.ref, version.variant("int8"), tmp_path / "look")

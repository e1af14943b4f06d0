"""The commands that deploy, from the command line to the destination: exit codes, JSON, tables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import records

from shipway.registry.cli import app
from shipway.registry.config.load import load

PROJECT = """\
project: acme
targets:
  jetson: {kind: jetson-ort}
  server: {kind: server-tensorrt}
environments:
  staging:
    jetson: {to: ./deployed/staging/jetson}
  prod:
    after: staging
    jetson: {to: ./deployed/prod/jetson}
    server: {to: ./deployed/prod/server}
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with versions 1 and 2 of ``ocr``, both live in staging one after the other."""
    (tmp_path / "deploy.yaml").write_text(PROJECT)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SHIPWAY_MIRROR", "off")
    store = load(Path("deploy.yaml")).store
    for number in (1, 2):
        records.registered(store, number)
    return tmp_path


class Shipway:
    """Runs commands and reads what they print."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def json(self, *arguments: str, exit: int = 0) -> Any:
        assert app.main([*arguments, "--json"]) == exit
        return json.loads(self._capsys.readouterr().out)

    def text(self, *arguments: str) -> str:
        assert app.main(list(arguments)) == 0
        return self._capsys.readouterr().out


@pytest.fixture
def shipway(capsys: pytest.CaptureFixture[str]) -> Shipway:
    return Shipway(capsys)


def test_promote_twice_and_roll_back(project: Path, shipway: Shipway) -> None:
    for number in (1, 2):
        shipway.json("promote", f"ocr/{number}", "--to", "staging")
        done = shipway.json("promote", f"ocr/{number}", "--to", "prod", "--reason", f"release {number}")
        assert [(d["target"], d["serial"], d["version"], d["outcome"]) for d in done["deployments"]] == [
            ("jetson", number, number, "live"),
            ("server", number, number, "live"),
        ]
    live = shipway.json("status", "--env", "prod")["environments"]["prod"]
    assert {(one["version"], one["rollback_to"], one["healthy"]) for one in live.values()} == {(2, 1, True)}
    done = shipway.json("rollback", "--env", "prod", "--reason", "worse")
    assert {(d["serial"], d["version"]) for d in done["deployments"]} == {(3, 1)}
    pointer = json.loads((project / "deployed/prod/server/current.json").read_text())
    assert (pointer["serial"], pointer["version"]) == (3, 1)
    assert (project / "deployed/prod/server" / pointer["path"] / "bundle.json").is_file()
    events = shipway.json("history", "--env", "prod", "--target", "jetson")["events"]
    assert [(e["serial"], e["kind"], e["version"], e["reason"]) for e in events] == [
        (3, "rollback", 1, "worse"),
        (2, "promote", 2, "release 2"),
        (1, "promote", 1, "release 1"),
    ]
    assert shipway.json("rollback", "--env", "prod", exit=6)["error"]["kind"] == "not-found"
    assert "prod: jetson, server" in shipway.text("versions", "ocr")
    assert "ocr/1" in shipway.text("status")
    assert "worse" in shipway.text("history")


def test_after_holds_a_version_back(project: Path, shipway: Shipway) -> None:
    error = shipway.json("promote", "ocr/1", "--to", "prod", exit=6)["error"]
    assert "staging" in error["what"]
    assert not (project / "deployed").exists()
    assert shipway.json("status")["environments"]["prod"]["jetson"]["version"] is None


def test_plan_and_dry_run_print_the_plan_and_change_nothing(project: Path, shipway: Shipway) -> None:
    planned = shipway.json("plan", "ocr/1", "--to", "staging")
    dry = shipway.json("promote", "ocr/1", "--to", "staging", "--dry-run")
    assert planned == dry
    assert planned["deployments"] == []
    assert [move["target"] for move in planned["plan"]["targets"]] == ["jetson"]
    assert planned["plan"]["bytes_to_send"] > 0
    assert planned["plan"]["steps"][-1]["step"] == "gate"
    text = shipway.text("plan", "ocr/1", "--to", "staging")
    assert "jetson: point at" in text
    assert "Nothing was changed." in text
    assert not (project / "deployed").exists()
    assert shipway.json("history") == {"events": []}


def test_promoting_what_is_live_changes_nothing(project: Path, shipway: Shipway) -> None:
    shipway.json("promote", "ocr/1", "--to", "staging")
    (again,) = shipway.json("promote", "ocr/1", "--to", "staging")["deployments"]
    assert (again["outcome"], again["serial"], again["bytes_sent"]) == ("unchanged", 1, 0)
    assert len(shipway.json("history")["events"]) == 1


def test_an_alias_of_the_ledger_needs_no_mlflow(project: Path, shipway: Shipway) -> None:
    shipway.json("promote", "models:/ocr/2", "--to", "staging")
    assert shipway.json("show", "ocr@staging-jetson")["version"] == 2
    assert shipway.json("show", "ocr@staging-jetson")["live"] == ["staging/jetson"]
    assert not (project / ".shipway" / "mlflow.db").exists()


def test_show_says_where_its_report_is(project: Path, shipway: Shipway) -> None:
    assert shipway.text("show", "ocr/1", "--report", "ocr.html").endswith("\nWrote ocr.html.\n")
    assert (project / "ocr.html").is_file()
    assert "Wrote" not in shipway.text("show", "ocr/1")


def test_init_says_how_to_go_on_in_another_folder(
    tmp_path: Path, shipway: Shipway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    register = "shipway register PATH --name NAME\n"
    assert shipway.text("init") == f"Wrote deploy.yaml.\nNext: {register}"
    assert shipway.text("init", "my ocr") == f"Wrote my ocr/deploy.yaml.\nNext: cd 'my ocr', then {register}"


def test_bundle_and_verify(project: Path, shipway: Shipway) -> None:
    built = shipway.json("bundle", "ocr/1", "--target", "jetson", "--out", "look")
    assert (built["out"], built["kind"]) == ("look", "jetson-ort")
    assert (project / "look/assets/字典.txt").read_text() == "一二三"
    assert shipway.json("verify", "look", "--digests-only")["digest"] == built["bundle"]
    assert "The numbers were not measured." in shipway.text("verify", "ocr/1", "--digests-only")
    (project / "look/model.onnx").write_bytes(b"other")
    assert shipway.json("verify", "./look", "--digests-only", exit=9)["error"]["kind"] == "integrity"
    assert shipway.json("bundle", "ocr/1", "--target", "jetson", "--out", "look", exit=2)


@pytest.mark.parametrize(
    "arguments",
    [
        ("promote", "ocr/1", "--to", "staging", "--target", "server"),
        ("promote", "ocr/1", "--to", "nowhere"),
        ("promote", "ocr", "--to", "staging"),
        ("ship", "model", "--name", "ocr", "--to", "nowhere"),
        ("ship", "model", "--name", "../ocr", "--to", "staging"),
        ("bundle", "ocr/1", "--target", "nothing", "--out", "look"),
    ],
    ids=" ".join,
)
def test_wrong_names_end_with_2_before_anything_happens(
    arguments: tuple[str, ...], project: Path, shipway: Shipway
) -> None:
    assert shipway.json(*arguments, exit=2)["error"]["kind"] == "usage"
    assert not (project / "deployed").exists()
    assert not (project / "look").exists()


def test_a_destination_that_cannot_be_written_ends_with_8(project: Path, shipway: Shipway) -> None:
    (project / "deployed").write_text("a file where a folder should be")
    error = shipway.json("promote", "ocr/1", "--to", "staging", exit=8)["error"]
    assert error["kind"] == "delivery"
    assert error["remedy"]
    assert shipway.json("status")["environments"]["staging"]["jetson"]["version"] is None


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("shipway promote ocr/", {"ocr/1", "ocr/2"}),
        ("shipway promote ocr/1 --to st", {"staging"}),
        ("shipway rollback --env ", {"staging", "prod"}),
        ("shipway history --target je", {"jetson"}),
        ("shipway versions o", {"ocr"}),
        ("shipway --config missing.yaml rollback --env ", set()),
        ("shipway roll", {"rollback"}),
        ("shipway register model --toolchain paddle2", {"paddle2onnx-1.2.4"}),
    ],
)
def test_the_shell_is_offered_what_there_is(
    line: str,
    offered: set[str],
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = line.split(" ")
    monkeypatch.setenv("_SHIPWAY_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", line)
    monkeypatch.setenv("COMP_CWORD", str(len(words) - 1))
    with pytest.raises(SystemExit) as ended:
        app.main([])
    assert ended.value.code == 0
    assert set(capsys.readouterr().out.split()) == offered

"""MLflow's aliases follow the ledger: against an MLflow of our own with faults, and against the real one."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from deploy_scene import CONFIG, bundle, forked, place, project_at, put_live

from shipway.registry import catalog
from shipway.registry.config.project import Project
from shipway.registry.deploy import mirror
from shipway.registry.errors import DeliveryError
from shipway.registry.verbs.rollback import rollback
from shipway.registry.verbs.status import status

Wanted = Mapping[str, tuple[str, int] | None]


class Registry:
    """Aliases as MLflow keeps them; ``before`` and ``after`` run around each change, to inject faults."""

    def __init__(self) -> None:
        self.aliases: dict[str, tuple[str, int]] = {}
        self.calls = 0
        self.before: Callable[[], None] = lambda: None
        self.after: Callable[[], None] = lambda: None

    def set_aliases(self, uri: str, wanted: Wanted) -> None:
        self.calls += 1
        self.before()
        for alias, version in wanted.items():
            if version is None:
                self.aliases.pop(alias, None)
            else:
                self.aliases[alias] = version
        self.after()


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Registry:
    made = Registry()
    monkeypatch.setattr(catalog, "set_aliases", made.set_aliases)
    return made


def lag(project: Project) -> set[str]:
    found = status(project)["prod"]
    return {target for target, one in found.items() if not one.mirrored}


def test_aliases_show_what_is_live(project: Project, registry: Registry) -> None:
    put_live(project, bundle(project, 1))
    put_live(project, bundle(project, 2), targets=["two"])
    assert lag(project) == {"one", "two"}
    assert mirror.mirror_now(project) == {"prod-one": ("ocr", 1), "prod-two": ("ocr", 2)}
    assert registry.aliases == {"prod-one": ("ocr", 1), "prod-two": ("ocr", 2)}
    assert lag(project) == set()
    rollback(project, "prod", targets=["two"])
    assert lag(project) == {"two"}
    mirror.mirror_now(project)
    assert registry.aliases["prod-two"] == ("ocr", 1)
    assert lag(project) == set()


def test_places_that_nothing_was_deployed_to_are_left_alone(project: Project, registry: Registry) -> None:
    registry.aliases["staging-one"] = ("mine", 7)
    put_live(project, bundle(project, 1), targets=["one"])
    mirror.mirror_now(project)
    assert registry.aliases == {"staging-one": ("mine", 7), "prod-one": ("ocr", 1)}


def test_a_place_whose_only_deployment_failed_has_no_alias(project: Project, registry: Registry) -> None:
    with pytest.raises(DeliveryError):
        put_live(project, bundle(project, 1, good=False))
    assert mirror.mirror_now(project) == {"prod-one": None, "prod-two": None}
    assert lag(project) == set()


def test_what_is_deployed_meanwhile_is_mirrored_too(project: Project, registry: Registry) -> None:
    put_live(project, bundle(project, 1))

    def deploy_once() -> None:
        registry.after = lambda: None
        put_live(project, bundle(project, 2))

    registry.after = deploy_once
    mirror.mirror_now(project)
    assert registry.aliases == {"prod-one": ("ocr", 2), "prod-two": ("ocr", 2)}
    assert registry.calls == 2
    assert lag(project) == set()


def test_of_two_at_once_the_slow_one_does_not_win(project: Project, registry: Registry) -> None:
    """The first read the ledger, then slept; the second is done before the first sets what it had read."""
    put_live(project, bundle(project, 1))

    def overtaken() -> None:
        registry.before = lambda: None
        put_live(project, bundle(project, 2))
        mirror.mirror_now(project)
        assert registry.aliases["prod-one"] == ("ocr", 2)

    registry.before = overtaken
    mirror.mirror_now(project)
    assert registry.aliases == {"prod-one": ("ocr", 2), "prod-two": ("ocr", 2)}


def test_a_mirror_that_was_killed_counts_as_lag(project: Project, registry: Registry) -> None:
    """Even one that was overtaken, set what was stale and died before it could look again."""
    put_live(project, bundle(project, 1))

    def overtaken_and_killed() -> None:
        registry.before = lambda: None
        registry.after = lambda: os._exit(9)

    registry.before = overtaken_and_killed
    assert forked(lambda: mirror.mirror_now(project)) == 9
    registry.before = lambda: None
    objects = project.store.objects
    state = {f"prod/{target}": {"serial": 1, "model": "ocr", "version": 1} for target in ("one", "two")}
    objects.put("mirror/state.json", json.dumps(state).encode())  # as if another had finished
    assert lag(project) == {"one", "two"}
    mirror.mirror_now(project)
    assert lag(project) == set()
    assert list(objects.list("mirror/")) == ["mirror/state.json"]


def test_a_registry_that_is_down_is_told_and_left_in_peace_for_a_while(
    project: Project, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(mirror.MODE, "wait")

    def down() -> None:
        raise DeliveryError("The registry can't be used.")

    registry.before = down
    put_live(project, bundle(project, 1))  # the deployment itself is not harmed
    assert registry.calls == 1
    assert mirror.last_error(project) == "The registry can't be used."
    assert lag(project) == {"one", "two"}
    status(project)
    assert registry.calls == 1  # looking does not knock again at once
    registry.before = lambda: None
    put_live(project, bundle(project, 2))  # deploying does
    assert registry.aliases == {"prod-one": ("ocr", 2), "prod-two": ("ocr", 2)}
    assert mirror.last_error(project) == ""
    assert lag(project) == set()


def test_status_has_a_lagging_mirror_try_again(
    project: Project, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_live(project, bundle(project, 1))
    monkeypatch.setenv(mirror.MODE, "wait")
    assert lag(project) == {"one", "two"}
    assert lag(project) == set()
    assert registry.calls == 1


@pytest.mark.parametrize(
    "content", [b"", b"nonsense", b"[]", b'{"prod/one": null}', b'{"prod/one": 5}', b"[" * 100_000]
)
def test_a_state_that_nobody_can_read_is_lag(project: Project, registry: Registry, content: bytes) -> None:
    put_live(project, bundle(project, 1))
    mirror.mirror_now(project)
    project.store.objects.put("mirror/state.json", content)
    assert lag(project) == {"one", "two"}


@pytest.mark.parametrize(
    "content", [b"[]", b'{"at": "noon", "owner": 5}', b'{"at": "2026-01-01", "owner": {}}']
)
def test_what_a_mirror_left_in_a_form_that_nobody_can_read_stops_nobody(
    project: Project, registry: Registry, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    started: list[Project] = []
    monkeypatch.setattr(mirror, "_detach", started.append)
    monkeypatch.setenv(mirror.MODE, "background")
    for name in ("starting", "running/1", "error"):
        project.store.objects.put(f"mirror/{name}.json", content)
    put_live(project, bundle(project, 1))
    assert started == [project]
    assert lag(project) == {"one", "two"}
    mirror.mirror_now(project)
    assert lag(project) == set()


def test_no_more_mirrors_are_started_than_are_of_use(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Commands in quick succession leave it to the process that the first one started."""
    started = []
    monkeypatch.setattr(mirror, "_detach", started.append)
    monkeypatch.setattr(mirror, "_START_S", 3600.0)  # on a slow machine too
    monkeypatch.setenv(mirror.MODE, "background")
    for version in (1, 2, 3):
        put_live(project, bundle(project, version))
        assert lag(project) == {"one", "two"}
    assert len(started) == 1
    monkeypatch.setattr(mirror, "_START_S", 0.0)  # that one never came: the next command starts another
    status(project)
    assert len(started) == 2


def test_a_password_of_the_registry_is_on_no_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = "postgresql://mlflow:hidden@db/mlflow"
    project = project_at(tmp_path, text=CONFIG.replace("store: store", f"registry: {secret}\nstore: store"))
    (tmp_path / "python").write_text(  # notes what it is started with
        f'#!/bin/sh\ncd {tmp_path}\necho "$@" > said\ncat > part\nmv part given\n'
    )
    (tmp_path / "python").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv(mirror.MODE, "background")
    mirror.start(project)
    end = time.monotonic() + 60
    while not (tmp_path / "given").exists():
        assert time.monotonic() < end
        time.sleep(0.02)
    assert json.loads((tmp_path / "given").read_text())["registry"] == secret
    assert (tmp_path / "said").read_text().split() == ["-m", mirror.__name__]


# the real MLflow

_FILL = """
import sys
from mlflow import MlflowClient
client = MlflowClient(tracking_uri=sys.argv[1], registry_uri=sys.argv[1])
for name, versions in {"ocr": 2, "det": 1}.items():
    client.create_registered_model(name)
    for _ in range(versions):
        client.create_model_version(name, source="file:///nowhere")
"""


def aliases_in(database: Path) -> dict[str, tuple[str, int]]:
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
        rows = connection.execute("select alias, name, version from registered_model_aliases").fetchall()
    connection.close()
    return {alias: (name, version) for alias, name, version in rows}


def wait_for_mirror(project: Project) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        running = list(project.store.objects.list("mirror/running/"))
        live = {place(target): serial_of(project, target) for target in ("one", "two")}
        if not running and not mirror.behind(project, live):
            return
        time.sleep(0.2)
    raise AssertionError(f"the mirror did not catch up: {mirror.last_error(project)}")


def serial_of(project: Project, target: str) -> int | None:
    return status(project, "prod")["prod"][target].serial


def test_a_process_of_its_own_keeps_the_real_mlflow_in_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = project_at(tmp_path)
    database = Path(project.registry_uri.removeprefix("sqlite:///"))
    database.parent.mkdir(parents=True)
    subprocess.run([sys.executable, "-c", _FILL, project.registry_uri], check=True, capture_output=True)
    monkeypatch.setenv(mirror.MODE, "background")
    put_live(project, bundle(project, 1))
    put_live(project, bundle(project, 2))
    rollback(project, "prod", targets=["two"])
    wait_for_mirror(project)
    assert aliases_in(database) == {"prod-one": ("ocr", 2), "prod-two": ("ocr", 1)}
    put_live(project, bundle(project, 1, model="det"), targets=["two"])
    wait_for_mirror(project)
    assert aliases_in(database) == {"prod-one": ("ocr", 2), "prod-two": ("det", 1)}

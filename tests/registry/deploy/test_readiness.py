"""What ``status`` says of a rollback before anybody needs it, and that the rollback then does so."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from deploy_scene import CONFIG, assert_live_is_whole, bundle, live_versions, project_at, put_live

from shipway.registry.cli.app import main
from shipway.registry.config.project import Project
from shipway.registry.errors import DeliveryError, IntegrityError, NotFoundError, UsageError
from shipway.registry.store.folder import FolderObjects
from shipway.registry.verbs.history import history
from shipway.registry.verbs.rollback import rollback
from shipway.registry.verbs.status import TargetStatus, status
from shipway.targets.manifest import Manifest


@pytest.fixture
def releases(project: Project) -> tuple[Manifest, Manifest]:
    """Version 1, then version 2, live in prod."""
    first, second = bundle(project, 1), bundle(project, 2)
    put_live(project, first)
    put_live(project, second)
    return first, second


def seen(project: Project, *, deep: bool) -> TargetStatus:
    return status(project, "prod", deep=deep)["prod"]["one"]


def at(project: Project, manifest: Manifest) -> Path:
    return project.root / "out/prod/one/releases" / manifest.release_id


def blob(project: Project, manifest: Manifest, path: str) -> Path:
    file = manifest.file(path)
    assert file is not None
    objects = project.store.objects
    assert isinstance(objects, FolderObjects)
    return objects.root / project.store.key(file.digest)


@pytest.mark.parametrize("deep", [False, True])
def test_all_is_ready(project: Project, releases: tuple[Manifest, Manifest], deep: bool) -> None:
    found = seen(project, deep=deep)
    assert (found.healthy, found.problem) == (True, "")
    assert (found.rollback_to, found.rollback_ready, found.rollback_problem) == (1, True, "")
    (one, two) = rollback(project, "prod").deployments
    assert max(one.bytes_sent, two.bytes_sent) < 1024  # a pointer
    assert live_versions(project) == {"one": 1, "two": 1}


def test_a_release_that_is_gone_is_sent_again(project: Project, releases: tuple[Manifest, Manifest]) -> None:
    shutil.rmtree(at(project, releases[0]))
    found = seen(project, deep=False)
    assert found.healthy
    assert not found.rollback_ready
    assert "the store has it, so that a rollback sends it again" in found.rollback_problem
    rollback(project, "prod")
    assert live_versions(project) == {"one": 1, "two": 1}


def test_a_release_that_is_gone_from_the_store_too(
    project: Project, releases: tuple[Manifest, Manifest]
) -> None:
    shutil.rmtree(at(project, releases[0]))
    blob(project, releases[0], "model/graph.onnx").unlink()
    found = seen(project, deep=False)
    assert not found.rollback_ready
    assert "and the store has lost model/graph.onnx" in found.rollback_problem
    with pytest.raises(NotFoundError, match="one: what a rollback would restore is gone") as caught:
        rollback(project, "prod")
    assert "the store has lost model/graph.onnx" in caught.value.why
    assert live_versions(project) == {"one": 2, "two": 2}
    assert len(history(project, "prod")) == 4  # nothing was claimed
    rollback(project, "prod", targets=["two"])  # where it still lies it needs no store
    assert live_versions(project) == {"one": 2, "two": 1}


def test_a_bundle_that_the_store_has_lost_hides_nothing_else(
    project: Project, releases: tuple[Manifest, Manifest]
) -> None:
    objects = project.store.objects
    assert isinstance(objects, FolderObjects)
    (objects.root / f"bundles/{releases[0].digest.hex}.json").unlink()
    found = seen(project, deep=False)
    assert found.healthy
    assert found.rollback_to == 1
    assert not found.rollback_ready
    assert "the store has lost its bundle" in found.rollback_problem
    with pytest.raises(NotFoundError):
        rollback(project, "prod")


def test_only_reading_back_finds_an_altered_file(
    project: Project, releases: tuple[Manifest, Manifest]
) -> None:
    path = at(project, releases[0]) / "model/graph.onnx"
    path.write_bytes(b"x" * path.stat().st_size)
    assert seen(project, deep=False).rollback_ready
    found = seen(project, deep=True)
    assert found.healthy
    assert not found.rollback_ready
    assert found.rollback_problem.endswith("changed: model/graph.onnx")
    rollback(project, "prod")  # finds it as well, and mends it from the store
    assert live_versions(project) == {"one": 1, "two": 1}
    assert_live_is_whole(project)


def test_only_reading_back_finds_what_is_wrong_with_the_live_one(
    project: Project, releases: tuple[Manifest, Manifest]
) -> None:
    path = at(project, releases[1]) / "model/graph.onnx"
    path.write_bytes(b"x" * path.stat().st_size)
    assert seen(project, deep=False).healthy
    found = seen(project, deep=True)
    assert not found.healthy
    assert "is damaged" in found.problem
    assert found.rollback_ready


def test_a_release_that_does_not_load_is_not_ready(tmp_path: Path) -> None:
    project = project_at(tmp_path)
    put_live(project, bundle(project, 1, good=False), accept="somebody wanted it")
    put_live(project, bundle(project, 2))
    assert seen(project, deep=False).rollback_ready
    found = seen(project, deep=True)
    assert found.healthy
    assert not found.rollback_ready
    assert "The golden check of ocr/1 (jetson-ort) did not pass" in found.rollback_problem
    with pytest.raises(DeliveryError, match="golden check of ocr/1"):
        rollback(project, "prod")
    assert live_versions(project) == {"one": 2, "two": 2}
    rollback(project, "prod", accept="worse than nothing")
    assert live_versions(project) == {"one": 1, "two": 1}
    newest = history(project, "prod", "one")[0]
    assert newest.started.accept == "worse than nothing"
    assert newest.ended is not None
    assert "accepted though gate check failed" in newest.ended.detail
    with pytest.raises(UsageError, match="blank"):
        rollback(project, "prod", accept=" ")
    put_live(project, bundle(project, 2))
    # Where the environment asks for no check at the destination, none is run.
    assert seen(project_at(tmp_path, gate="{}"), deep=True).rollback_ready


def test_a_file_that_the_store_holds_altered_is_told_by_the_rollback(
    project: Project, releases: tuple[Manifest, Manifest]
) -> None:
    shutil.rmtree(at(project, releases[0]))
    path = blob(project, releases[0], "model/graph.onnx")
    path.chmod(0o644)
    path.write_bytes(b"x" * path.stat().st_size)
    with pytest.raises(IntegrityError):
        rollback(project, "prod", targets=["one"])
    assert live_versions(project) == {"one": 2, "two": 2}


def test_the_command_says_it(
    project: Project,
    releases: tuple[Manifest, Manifest],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (project.root / "deploy.yaml").write_text(CONFIG.format(keep=5, gate="{check: true}"))
    (at(project, releases[0]) / "verdict").write_bytes(b"bad!")
    monkeypatch.chdir(project.root)

    def asked(*arguments: str) -> str:
        assert main(["status", "--env", "prod", *arguments]) == 0
        return capsys.readouterr().out

    assert "back to ocr/1: ready" in asked()
    shown = asked("--deep")
    assert "back to ocr/1: not ready" in shown
    assert "prod/one: rollback to ocr/1: " in shown
    document = json.loads(asked("--deep", "--json"))["environments"]["prod"]
    assert (document["one"]["rollback_ready"], document["two"]["rollback_ready"]) == (False, True)
    assert "verdict" in document["one"]["rollback_problem"]

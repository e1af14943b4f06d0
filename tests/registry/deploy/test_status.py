"""What status says of an environment, and how much it reads for that."""

from __future__ import annotations

import shutil

import pytest
from deploy_scene import bundle, forked, naming, put_live

from shipway.registry.config.project import Project
from shipway.registry.errors import (
    DeliveryError,
)
from shipway.registry.nouns import ModelRef
from shipway.registry.store.folder import FolderObjects
from shipway.registry.store.store import Store
from shipway.registry.verbs.history import history
from shipway.registry.verbs.rollback import rollback
from shipway.registry.verbs.status import look, status

OCR_1, OCR_2 = ModelRef("ocr", version=1), ModelRef("ocr", version=2)


def test_status_of_an_environment_where_nothing_ever_was(plain: Project) -> None:
    one = status(plain)["lab"]["one"]
    assert one.to_json() == {
        **dict.fromkeys(["model", "version", "bundle", "serial", "since", "outcome"]),
        "healthy": False,
        "problem": "",
        "rollback_to": None,
        "rollback_serial": None,
        "rollback_ready": False,
        "rollback_problem": "",
        "attempt": None,
        "skew": False,
        "mirrored": True,
        "hosts": {},
    }


def test_status_shows_what_is_live_and_what_a_rollback_would_restore(project: Project) -> None:
    put_live(project, bundle(project, 1))
    put_live(project, bundle(project, 2))
    one = status(project)["prod"]["one"]
    assert (one.model, one.version, one.serial, one.outcome, one.healthy) == ("ocr", 2, 2, "live", True)
    assert (one.rollback_to, one.rollback_ready, one.attempt, one.skew) == (1, True, None, False)
    assert not one.mirrored
    rollback(project, "prod", targets=["one"])
    found = status(project)["prod"]
    assert (found["one"].version, found["one"].rollback_to) == (1, None)
    assert found["one"].skew
    assert found["two"].skew


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        ("current.json", "nothing is live at"),
        ("releases/{live}/model/graph.onnx", "files of {live} are missing"),
        ("releases/{live}/bundle.json", "files of {live} are missing"),
    ],
)
def test_status_tells_of_a_destination_that_lost_something(
    project: Project, damage: str, problem: str
) -> None:
    manifest = bundle(project, 1)
    put_live(project, manifest)
    (project.root / "out/prod/one" / damage.format(live=manifest.release_id)).unlink()
    one = status(project)["prod"]["one"]
    assert not one.healthy
    assert problem.format(live=manifest.release_id) in one.problem
    assert status(project)["prod"]["two"].healthy


def test_status_tells_of_a_pointer_that_somebody_moved(project: Project) -> None:
    put_live(project, bundle(project, 1))
    old = (project.root / "out/prod/one/current.json").read_bytes()
    put_live(project, bundle(project, 2))
    (project.root / "out/prod/one/current.json").write_bytes(old)
    one = look(project, "prod", "one")
    assert not one.healthy
    assert "serial 1" in one.problem
    put_live(project, bundle(project, 2))
    assert look(project, "prod", "one").healthy


def test_status_tells_whether_a_rollback_would_have_to_send(project: Project) -> None:
    first = bundle(project, 1)
    put_live(project, first)
    put_live(project, bundle(project, 2))
    shutil.rmtree(project.root / "out/prod/one/releases" / first.release_id)
    found = status(project)["prod"]
    assert (found["one"].rollback_to, found["one"].rollback_ready) == (1, False)
    assert found["two"].rollback_ready


def test_status_shows_a_failed_attempt_beside_what_is_live(project: Project) -> None:
    put_live(project, bundle(project, 1))
    with pytest.raises(Exception, match="golden check"):
        put_live(project, bundle(project, 2, good=False))
    one = status(project)["prod"]["one"]
    assert (one.version, one.healthy, one.outcome) == (1, True, "live")
    assert one.attempt is not None
    assert (one.attempt.started.version, one.attempt.outcome) == (2, "failed")


def test_an_attempt_without_an_end_is_told(project: Project) -> None:
    put_live(project, bundle(project, 1))
    assert forked(lambda: put_live(project, bundle(project, 2)), die=naming("current.json")) == -9
    attempt = look(project, "prod", "one").attempt
    assert attempt is not None
    assert attempt.outcome == "started"


def test_status_reads_as_much_of_a_long_ledger_as_of_a_short_one(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Counting(FolderObjects):
        reads = 0

        def get(self, key: str) -> bytes | None:
            self.reads += 1
            return super().get(key)

        def exists(self, key: str) -> bool:
            self.reads += 1
            return super().exists(key)

    objects = Counting(project.root / "store")
    project.__dict__["store"] = Store(objects)
    manifests = [bundle(project, version) for version in (1, 2)]
    costs = []
    for rounds in (2, 30):
        for _ in range(rounds):
            for manifest in manifests:
                put_live(project, manifest, targets=["one"])
        objects.reads = 0
        status(project)
        costs.append(objects.reads)
        objects.reads = 0
        rollback(project, "prod", targets=["one"], dry_run=True)
        costs.append(objects.reads)
        objects.reads = 0
        assert len(history(project, limit=3)) == 3
        costs.append(objects.reads)
    assert costs[:3] == costs[3:]


def test_status_works_for_somebody_who_may_only_read(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_live(project, bundle(project, 1))

    class ReadOnly(FolderObjects):
        def put(self, key: str, data: bytes) -> None:
            raise DeliveryError("You may only read.")

    project.__dict__["store"] = Store(ReadOnly(project.root / "store"))
    monkeypatch.setenv("SHIPWAY_MIRROR", "background")
    assert status(project)["prod"]["one"].healthy
    assert len(history(project)) == 2

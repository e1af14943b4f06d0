"""Rollback on real folders: what it restores, how far back it goes, and when there is nothing."""

from __future__ import annotations

import shutil

import pytest
from deploy_scene import (
    assert_ledger_is_sound,
    assert_live_is_whole,
    assert_nothing_left,
    bundle,
    files_of,
    live_versions,
    place,
    pointers,
    put_live,
)

from shipway.registry.config.project import Project
from shipway.registry.errors import DeliveryError, NotFoundError
from shipway.registry.ledger.ledger import Ledger
from shipway.registry.verbs.rollback import rollback


def test_promote_promote_rollback(project: Project) -> None:
    put_live(project, bundle(project, 1))
    put_live(project, bundle(project, 2))
    assert pointers(project) == {"one": (2, 2), "two": (2, 2)}
    done = rollback(project, "prod", reason="it flickers")
    assert [(d.target, d.serial, d.version, d.outcome, d.bytes_sent) for d in done.deployments] == [
        ("one", 3, 1, "live", done.deployments[0].bytes_sent),
        ("two", 3, 1, "live", done.deployments[1].bytes_sent),
    ]
    assert all(deployment.bytes_sent < 1000 for deployment in done.deployments)  # nothing but the pointer
    assert pointers(project) == {"one": (3, 1), "two": (3, 1)}
    event = next(iter(Ledger(project.store.objects).events(place("one"))))
    assert (event.started.kind, event.started.restores, event.started.reason) == (
        "rollback",
        1,
        "it flickers",
    )
    assert_ledger_is_sound(project)
    assert_live_is_whole(project)
    assert_nothing_left(project)


def test_rolling_back_twice_goes_further_back_and_then_says_there_is_nothing(project: Project) -> None:
    for version in (1, 2, 3):
        put_live(project, bundle(project, version))
    rollback(project, "prod")
    assert live_versions(project) == {"one": 2, "two": 2}
    rollback(project, "prod")
    assert live_versions(project) == {"one": 1, "two": 1}
    before = files_of(project.root)
    with pytest.raises(NotFoundError, match="nothing to roll back to"):
        rollback(project, "prod")
    assert files_of(project.root) == before


def test_rollback_to_a_version(project: Project) -> None:
    for version in (1, 2, 3):
        put_live(project, bundle(project, version))
    rollback(project, "prod", to_version=1)
    assert live_versions(project) == {"one": 1, "two": 1}
    rollback(project, "prod", to_version=2)
    assert live_versions(project) == {"one": 2, "two": 2}
    unchanged = rollback(project, "prod", to_version=2)
    assert {deployment.outcome for deployment in unchanged.deployments} == {"unchanged"}
    with pytest.raises(NotFoundError, match="nothing to roll back to"):
        rollback(project, "prod", to_version=9)
    assert_ledger_is_sound(project)


def test_a_version_that_failed_is_no_version_to_go_back_to(project: Project) -> None:
    put_live(project, bundle(project, 1))
    with pytest.raises(DeliveryError):
        put_live(project, bundle(project, 2, good=False))
    put_live(project, bundle(project, 3))
    with pytest.raises(NotFoundError):
        rollback(project, "prod", to_version=2)
    rollback(project, "prod")
    assert live_versions(project) == {"one": 1, "two": 1}


def test_rollback_names_the_targets_that_have_nothing(project: Project) -> None:
    put_live(project, bundle(project, 1))
    put_live(project, bundle(project, 2), targets=["two"])
    with pytest.raises(NotFoundError) as caught:
        rollback(project, "prod")
    assert "one" in caught.value.why
    assert "--target two" in caught.value.remedy
    rollback(project, "prod", targets=["two"])
    assert live_versions(project) == {"one": 1, "two": 1}


def test_rollback_passes_over_targets_that_never_had_anything(project: Project) -> None:
    put_live(project, bundle(project, 1), targets=["one"])
    put_live(project, bundle(project, 2), targets=["one"])
    rollback(project, "prod")
    assert live_versions(project) == {"one": 1, "two": None}


def test_rollback_refuses_a_named_target_that_never_had_anything(project: Project) -> None:
    put_live(project, bundle(project, 1), targets=["one"])
    put_live(project, bundle(project, 2), targets=["one"])
    before = files_of(project.root)
    for to_version in (None, 1):
        with pytest.raises(NotFoundError, match="nothing to roll back to") as caught:
            rollback(project, "prod", targets=["one", "two"], to_version=to_version)
        assert caught.value.why.endswith(": two.")
        assert caught.value.remedy.endswith("--target one")
    assert files_of(project.root) == before


def test_rollback_of_nothing(project: Project) -> None:
    with pytest.raises(NotFoundError, match="nothing to roll back to in prod"):
        rollback(project, "prod")
    assert not (project.root / "out").exists()


def test_rollback_needs_neither_the_model_nor_its_files_in_the_store(project: Project) -> None:
    put_live(project, bundle(project, 1))
    put_live(project, bundle(project, 2))
    shutil.rmtree(project.root / "store/blobs")
    rollback(project, "prod")
    assert live_versions(project) == {"one": 1, "two": 1}
    assert_live_is_whole(project)


def test_rollback_repairs_a_candidate_that_was_damaged(project: Project) -> None:
    first = bundle(project, 1)
    put_live(project, first)
    put_live(project, bundle(project, 2))
    (project.root / "out/prod/one/releases" / first.release_id / "model/graph.onnx").write_bytes(b"?")
    shutil.rmtree(project.root / "out/prod/two/releases" / first.release_id)
    rollback(project, "prod")
    assert live_versions(project) == {"one": 1, "two": 1}
    assert_live_is_whole(project)
    assert_nothing_left(project)

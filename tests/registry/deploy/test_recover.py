"""Recovery after deploy.yaml has changed: what was left where a target once went blocks nobody."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from deploy_scene import (
    CONFIG,
    assert_ledger_is_sound,
    bundle,
    forked,
    live_versions,
    naming,
    place,
    pointers,
    project_at,
    put_live,
)

from shipway.registry.config.project import Project
from shipway.registry.deploy.site import Site
from shipway.registry.ledger.ledger import Ledger
from shipway.registry.verbs.rollback import rollback

TWO = "    two: {{to: out/prod/two, keep: {keep}, gate: {gate}}}\n"
WITHOUT_TWO = CONFIG.replace(TWO, "")
MOVED_TWO = CONFIG.replace("out/prod/two", "elsewhere/two")


def killed(root: Path, *, at: str = "current.json", nth: int = 2) -> Project:
    """Version 1 is live; the promote of version 2 died before ``two``'s pointer moved, or elsewhere."""
    project = project_at(root, gate="{}")
    for version in (1, 2):
        bundle(project, version)
    put_live(project, bundle(project, 1))
    assert forked(lambda: put_live(project, bundle(project, 2)), die=naming(at, nth=nth)) == -9
    return project


def newest(project: Project, target: str) -> str:
    return next(iter(Ledger(project.store.objects).events(place(target)))).outcome


@pytest.mark.parametrize("verb", ["promote", "rollback"])
def test_a_target_that_left_the_file_blocks_nobody_and_is_undone_where_it_was(
    tmp_path: Path, verb: str
) -> None:
    before = pointers(killed(tmp_path, at="current.json", nth=2))
    assert before == {"one": (2, 2), "two": (1, 1)}
    project = project_at(tmp_path, gate="{}", text=WITHOUT_TWO)
    if verb == "promote":
        put_live(project, bundle(project, 3))
        assert live_versions(project) == {"one": 3}
    else:
        put_live(project, bundle(project, 1))  # recovers: version 1 is live again, so nothing changes
        put_live(project, bundle(project, 3))
        rollback(project, "prod")
        assert live_versions(project) == {"one": 1}
    assert newest(project, "two") == "interrupted"
    assert live_versions(project_at(tmp_path))["two"] == 1
    assert not (tmp_path / "out/prod/two/.staging").exists()
    assert_ledger_is_sound(project)


def test_a_pointer_that_had_moved_goes_back_where_the_target_was(tmp_path: Path) -> None:
    project = killed(tmp_path, at="outcome.json", nth=1)  # both had moved
    release = tmp_path / "out/prod/one/releases" / bundle(project, 2).release_id
    (release / "model/graph.onnx").write_bytes(b"spoilt: so that it can't be finished")
    Site(project_at(tmp_path, gate="{}", text=WITHOUT_TWO), "prod").recover()
    assert live_versions(project) == {"one": 1, "two": 1}
    assert newest(project, "two") == "interrupted"
    assert_ledger_is_sound(project)


@pytest.mark.parametrize("gone", [True, False])
def test_a_target_that_went_elsewhere_is_undone_where_it_was(tmp_path: Path, gone: bool) -> None:
    project = killed(tmp_path, at="outcome.json", nth=1)
    release = tmp_path / "out/prod/one/releases" / bundle(project, 2).release_id
    (release / "model/graph.onnx").write_bytes(b"spoilt: so that it can't be finished")
    if gone:
        (tmp_path / "out/prod/two").rename(tmp_path / "unplugged")
        (tmp_path / "out/prod/two").write_text("no folder")
    moved = project_at(tmp_path, gate="{}", text=MOVED_TWO)
    put_live(moved, bundle(moved, 3))
    assert live_versions(moved) == {"one": 3, "two": 3}
    if not gone:
        assert live_versions(project)["two"] == 1
    assert_ledger_is_sound(moved)


def test_a_ledger_of_before_addresses_were_kept_settles_without(tmp_path: Path) -> None:
    killed(tmp_path, at="current.json", nth=2)
    for path in (tmp_path / "store/ledger").rglob("*.started.json"):
        document = json.loads(path.read_text())
        assert document.pop("to") == f"out/prod/{document['target']}"
        path.write_text(json.dumps(document))
    project = project_at(tmp_path, gate="{}", text=WITHOUT_TWO)
    put_live(project, bundle(project, 3))
    assert live_versions(project) == {"one": 3}
    assert newest(project, "two") == "interrupted"

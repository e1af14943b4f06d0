"""Hooks: what they get, when they run, and what follows from how they end."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from deploy_scene import bundle, files_of, live_versions, project_at, put_live
from observers import Notes

from shipway.registry.config.project import Project
from shipway.registry.deploy.site import Goal, Site
from shipway.registry.errors import DeliveryError
from shipway.registry.ledger import owner
from shipway.registry.verbs.history import history
from shipway.registry.verbs.rollback import rollback

TEXT = """
project: scene
store: store
targets:
  one: {{kind: jetson-ort}}
  two: {{kind: jetson-ort}}
environments:
  prod:
    hooks: HOOKS
    one: {{to: out/prod/one, keep: {keep}, gate: {gate}}}
    two: {{to: out/prod/two, keep: {keep}, gate: {gate}}}
"""

KEEP = """import json, os, sys
told = json.load(sys.stdin)
with open("told.jsonl", "a") as out:
    live = os.path.exists("out/prod/one/current.json")
    out.write(json.dumps({**told, "cwd": os.getcwd(), "pointer": live}) + "\\n")
print("some words on stdout")
print("and on stderr", file=sys.stderr)
raise SystemExit(int(sys.argv[1]))
"""


def project_with(root: Path, **hooks: Any) -> Project:
    """A project whose hooks keep what they are told in ``told.jsonl`` and exit as given."""
    (root / "keep.py").write_text(KEEP)
    said = {
        name: [sys.executable, "keep.py", str(code)]
        if isinstance(code, int) and name != "timeout_s"
        else code
        for name, code in hooks.items()
    }
    return project_at(
        root, text=TEXT.replace("HOOKS", json.dumps(said).replace("{", "{{").replace("}", "}}"))
    )


def told(root: Path) -> list[dict[str, Any]]:
    path = root / "told.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_hooks_are_told_the_deployments(tmp_path: Path) -> None:
    project = project_with(tmp_path, before_promote=0, after_promote=0, after_rollback=0)
    first, second = bundle(project, 1), bundle(project, 2)
    put_live(project, first)
    (made,) = [one for one in put_live(project, second, targets=["two"]) if one.target == "two"]
    rollback(project, "prod", targets=["two"], reason="worse")
    heard = told(tmp_path)
    assert [(one["hook"], one["kind"], len(one["deployments"])) for one in heard] == [
        ("before_promote", "promote", 2),
        ("after_promote", "promote", 2),
        ("before_promote", "promote", 1),
        ("after_promote", "promote", 1),
        ("after_rollback", "rollback", 1),
    ]
    # Before the first promotion nothing is there; after it, it is live.
    assert [one["pointer"] for one in heard] == [False, True, True, True, True]
    assert {one["cwd"] for one in heard} == {str(tmp_path)}
    before, after, back = heard[2], heard[3], heard[4]
    assert {key: before[key] for key in before if key not in ("deployments", "cwd", "pointer")} == {
        "schema": 1,
        "hook": "before_promote",
        "project": "scene",
        "environment": "prod",
        "kind": "promote",
        "actor": owner.actor(),
        "reason": "",
        "accept": None,
    }
    (planned,) = before["deployments"]
    was = planned.pop("before")
    assert (was["serial"], was["version"], was["bundle"]) == (1, 1, str(first.digest))
    assert planned == {
        "environment": "prod",
        "target": "two",
        "serial": 2,
        "model": "ocr",
        "version": 2,
        "bundle": str(second.digest),
        "release": second.release_id,
        "kind": "jetson-ort",
        "precision": "fp32",
        "to": "out/prod/two",
        "restores": None,
    }
    (ended,) = after["deployments"]
    assert ended == {**planned, "before": was, **made.to_json()}
    assert (back["reason"], back["deployments"][0]["restores"], back["deployments"][0]["version"]) == (
        "worse",
        1,
        1,
    )


def test_a_hook_before_that_does_not_agree_stops_the_command(tmp_path: Path) -> None:
    project = project_with(tmp_path, before_promote=3, after_promote=0)
    manifest = bundle(project, 1)
    ledger = files_of(tmp_path / "store")
    with pytest.raises(
        DeliveryError, match=r"The hook before_promote of prod \('.*keep.py 3'\) failed"
    ) as caught:
        put_live(project, manifest)
    assert caught.value.why.splitlines()[:2] == ["some words on stdout", "and on stderr"]
    assert caught.value.remedy.startswith("Nothing was changed.")
    assert [one["hook"] for one in told(tmp_path)] == ["before_promote"]
    assert not (tmp_path / "out").exists()
    assert files_of(tmp_path / "store") == ledger
    assert history(project) == []


def test_a_hook_after_that_fails_is_noted_and_the_deployment_stays(tmp_path: Path) -> None:
    project = project_with(tmp_path, after_promote=3, after_rollback=4)
    heard = Notes()
    put_live(project, bundle(project, 1))
    site = Site(project, "prod")
    second = bundle(project, 2)
    site.carry_out(site.plan("promote", {target: Goal(second) for target in site.targets}), observer=heard)
    assert live_versions(project) == {"one": 2, "two": 2}
    (note,) = heard.notes
    assert "hook after_promote of prod" in note
    assert "The deployment stays. some words on stdout" in note
    assert "after_promote of prod" in heard.phases
    rollback(project, "prod", observer=heard)
    assert live_versions(project) == {"one": 1, "two": 1}
    assert "hook after_rollback of prod" in heard.notes[1]
    assert [event.outcome for event in history(project)] == ["live"] * 6


@pytest.mark.parametrize(
    ("hook", "what", "why"),
    [
        (["./not-there.sh"], "can't be started", "No such file or directory: ./not-there.sh"),
        (["sh", "-c", "kill -9 $$"], "failed", "SIGKILL"),
    ],
)
def test_a_hook_that_never_comes_to_a_good_end(tmp_path: Path, hook: list[str], what: str, why: str) -> None:
    project = project_with(tmp_path, before_promote=hook)
    with pytest.raises(DeliveryError, match=what) as caught:
        put_live(project, bundle(project, 1))
    assert why in caught.value.why
    assert live_versions(project) == {"one": None, "two": None}


def test_a_hook_that_never_ends_is_ended_and_what_it_said_is_told(tmp_path: Path) -> None:
    for seconds in (0.3, 3, 30):  # until it had the time to say something: most machines need no second try
        hook = ["sh", "-c", "echo waiting; sleep 600"]
        project = project_with(tmp_path, before_promote=hook, timeout_s=seconds)
        with pytest.raises(DeliveryError, match=f"did not end within {seconds} s") as caught:
            put_live(project, bundle(project, 1))
        assert live_versions(project) == {"one": None, "two": None}
        if "waiting" in caught.value.why:
            return
    raise AssertionError(caught.value.why)


def test_a_failed_promotion_is_followed_by_no_hook(tmp_path: Path) -> None:
    project = project_with(tmp_path, before_promote=0, after_promote=0)
    with pytest.raises(DeliveryError):
        put_live(project, bundle(project, 1, good=False))
    assert [one["hook"] for one in told(tmp_path)] == ["before_promote"]


def test_where_nothing_changes_no_hook_runs(tmp_path: Path) -> None:
    put_live(project_with(tmp_path), bundle(project_with(tmp_path), 1))
    project = project_with(tmp_path, before_promote=9, after_promote=9, after_rollback=9)
    put_live(project, bundle(project, 1))
    rollback_free = Site(project, "prod").plan("promote", {"one": Goal(bundle(project, 2))})  # a dry run
    assert rollback_free.changes
    assert told(tmp_path) == []


def test_the_reference_names_every_key_that_a_hook_gets(tmp_path: Path) -> None:
    put_live(project_with(tmp_path, after_promote=0), bundle(project_with(tmp_path), 1))
    reference = (Path(__file__).parents[3] / "docs" / "reference" / "files.md").read_text()
    section = reference.split("## What a hook gets\n")[1].split("\n## ")[0]
    (document,) = told(tmp_path)
    keys = {*document, *document["deployments"][0]} - {"cwd", "pointer"}
    assert keys == {key for key in re.findall(r"`([a-z_]+)`", section) if key in keys}

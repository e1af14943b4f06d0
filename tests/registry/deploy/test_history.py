"""What history says, and in which order."""

from __future__ import annotations

import pytest
from deploy_scene import bundle, live_versions, place, put_live
from version_scene import register

from shipway.registry.config.load import load_text
from shipway.registry.config.project import Project
from shipway.registry.errors import (
    UsageError,
)
from shipway.registry.ledger import owner
from shipway.registry.nouns import ModelRef
from shipway.registry.verbs.history import history
from shipway.registry.verbs.promote import promote
from shipway.registry.verbs.status import status

OCR_1, OCR_2 = ModelRef("ocr", version=1), ModelRef("ocr", version=2)


def test_history_tells_of_places_that_deploy_yaml_no_longer_has(plain: Project) -> None:
    for environment in ("staging", "lab"):
        put_live(plain, bundle(plain, 1), environment)
    text = "project: scene\nstore: store\ntargets:\n  one: {kind: jetson-ort}\n"
    smaller = load_text(text + "environments:\n  lab:\n    one: {to: out/lab/one}\n", plain.root)
    empty = load_text(text, plain.root)
    for project in (smaller, empty):
        assert [str(event.started.place) for event in history(project)] == ["lab/one", "staging/one"]
        assert [str(event.started.place) for event in history(project, "staging")] == ["staging/one"]
        assert [str(event.started.place) for event in history(project, "staging", "one")] == ["staging/one"]
    assert set(status(smaller)) == {"lab"}
    with pytest.raises(UsageError, match="no environment 'prod'"):
        history(smaller, "prod")
    with pytest.raises(UsageError, match="no target 'three'"):
        history(smaller, "lab", "three")


def test_history_is_newest_first_over_all_places(plain: Project) -> None:
    register(plain, 1)
    promote(plain, OCR_1, "lab", reason="to try")
    promote(plain, OCR_1, "staging")
    promote(plain, OCR_1, "prod")
    events = [event.to_json() for event in history(plain)]
    assert [event["environment"] for event in events] == ["prod", "prod", "staging", "lab"]
    assert events[3]["reason"] == "to try"
    assert events[0]["actor"] == owner.actor()
    assert {
        "environment",
        "target",
        "serial",
        "kind",
        "model",
        "version",
        "bundle",
        "actor",
        "at",
        "reason",
        "outcome",
    } <= set(events[0])
    assert len(history(plain, limit=2)) == 2
    assert [event.started.place for event in history(plain, "prod", "two")] == [place("two")]
    assert history(plain, "prod", limit=1)[0].started.place.environment == "prod"
    with pytest.raises(UsageError):
        history(plain, "nowhere")
    with pytest.raises(UsageError):
        history(plain, "lab", "two")


def test_history_keeps_to_the_serials_when_a_clock_was_wrong(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    years = iter(["2030-01-01T00:00:00.000Z", "2029-01-01T00:00:00.000Z", "2031-01-01T00:00:00.000Z"])
    for version in (1, 2, 3):
        year = next(years)
        monkeypatch.setattr(owner, "now", lambda: year)  # noqa: B023
        put_live(project, bundle(project, version), targets=["one"])
    assert [event.started.serial for event in history(project, "prod", "one")] == [3, 2, 1]
    assert live_versions(project)["one"] == 3

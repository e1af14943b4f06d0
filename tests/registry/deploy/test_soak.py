"""``soak``: how long a version must have been live where it comes from, whatever the clocks say."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from deploy_scene import live_versions
from version_scene import register

from shipway.registry.config.load import load_text
from shipway.registry.config.project import Project
from shipway.registry.errors import NotFoundError
from shipway.registry.ledger import owner
from shipway.registry.nouns import ModelRef
from shipway.registry.units import format_left
from shipway.registry.verbs.history import history
from shipway.registry.verbs.plan import plan
from shipway.registry.verbs.promote import promote
from shipway.registry.verbs.rollback import rollback
from shipway.registry.verbs.status import status

TEXT = """
project: soak
store: store
targets:
  one: {kind: jetson-ort}
  two: {kind: jetson-ort}
  three: {kind: jetson-ort}
environments:
  staging:
    one: {to: out/staging/one}
    two: {to: out/staging/two}
  prod:
    after: staging
    soak: 1h
    one: {to: out/prod/one}
    two: {to: out/prod/two}
  edge:
    after: staging
    soak: 1h
    three: {to: out/edge/three}
"""
OCR_1, OCR_2 = ModelRef("ocr", version=1), ModelRef("ocr", version=2)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    found = load_text(TEXT, tmp_path)
    register(found, 1)
    register(found, 2)
    return found


def at(monkeypatch: pytest.MonkeyPatch, **ago: float) -> None:
    """From now on the ledger's times are so long ago."""
    moment = datetime.now(timezone.utc) - timedelta(**ago)
    text = moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    monkeypatch.setattr(owner, "now", lambda: text)


def test_a_version_must_have_been_live_for_so_long(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    at(monkeypatch, minutes=20)
    promote(project, OCR_1, "staging")
    with pytest.raises(
        NotFoundError, match="not live in staging for long enough: prod wants 60 min, and 40 min"
    ) as e:
        promote(project, OCR_1, "prod")
    assert e.value.why == "staging/one: live for 20 min, staging/two: live for 20 min"
    assert "Wait" in e.value.remedy
    assert history(project, "prod") == []
    at(monkeypatch, minutes=61)
    promote(project, OCR_2, "staging")
    promote(project, OCR_2, "prod")
    assert live_versions(project, "prod") == {"one": 2, "two": 2}


def test_the_youngest_of_the_shared_targets_counts(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    at(monkeypatch, hours=3)
    promote(project, OCR_1, "staging")
    at(monkeypatch, minutes=5)
    promote(project, OCR_2, "staging", targets=["two"])
    rollback(project, "staging", targets=["two"])  # live again, but only for five minutes
    with pytest.raises(NotFoundError, match="55 min are left"):
        promote(project, OCR_1, "prod")
    promote(project, OCR_1, "prod", targets=["one"])
    # Where no target is shared, one that was live for long enough will do.
    promote(project, OCR_1, "edge")


def test_a_reason_goes_past_it_and_a_plan_does_not(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    at(monkeypatch, minutes=1)
    promote(project, OCR_1, "staging")
    with pytest.raises(NotFoundError):
        plan(project, OCR_1, "prod")
    promote(project, OCR_1, "prod", accept="the shop is on fire")
    assert live_versions(project, "prod") == {"one": 1, "two": 1}


@pytest.mark.parametrize("days", [-366, 366, -36500])
def test_a_clock_that_is_wrong_by_a_year_breaks_nothing(
    project: Project, monkeypatch: pytest.MonkeyPatch, days: float
) -> None:
    at(monkeypatch, days=days)
    promote(project, OCR_1, "staging")
    if days < 0:  # a time that is yet to come counts as none
        with pytest.raises(NotFoundError, match="60 min are left") as caught:
            promote(project, OCR_1, "prod")
        assert "a time that is yet to come, which counts as none" in caught.value.why
        at(monkeypatch)
        promote(project, OCR_1, "prod", accept="the clock of that machine was wrong")
    else:
        promote(project, OCR_1, "prod")
    promote(project, OCR_2, "prod", accept="a trial")
    rollback(project, "prod")
    found = status(project)
    assert {one.version for one in found["prod"].values()} == {1}
    assert all(one.healthy for targets in found.values() for one in targets.values() if one.version)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.1, "1 s"),
        (99, "99 s"),
        (99.5, "2 min"),
        (2399.2, "40 min"),
        (5940, "99 min"),
        (5941, "2 h"),
        (86400, "24 h"),
    ],
)
def test_what_is_left_is_rounded_up(seconds: float, text: str) -> None:
    assert format_left(seconds) == text

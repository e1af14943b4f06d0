"""A ledger that takes no more documents, at the worst moment: what is told, and what comes next."""

from __future__ import annotations

import pytest
from deploy_scene import (
    assert_ledger_is_sound,
    bundle,
    files_of,
    live_versions,
    outcomes,
    put_live,
)
from observers import Notes

from shipway.registry.config.project import Project
from shipway.registry.deploy.site import Goal, Site
from shipway.registry.errors import DeliveryError
from shipway.registry.store.folder import FolderObjects
from shipway.registry.store.store import Store


class FullStore(FolderObjects):
    """A store whose disk is full from the ``good``-th outcome on, or from the ``good``-th claim on."""

    good = 99
    what = "outcome.json"

    def create(self, key: str, data: bytes) -> bool:
        if key.endswith(self.what):
            if self.good == 0:
                raise DeliveryError("The store is full.")
            self.good -= 1
        return super().create(key, data)


def with_full_store(project: Project, good: int, what: str) -> FullStore:
    objects = FullStore(project.root / "store")
    objects.good, objects.what = good, what
    project.__dict__["store"] = Store(objects)
    return objects


def test_a_ledger_that_can_not_be_written_at_the_end_undoes_too(project: Project) -> None:
    put_live(project, bundle(project, 1))
    objects = with_full_store(project, 0, "outcome.json")
    with pytest.raises(DeliveryError) as caught:
        put_live(project, bundle(project, 2))
    assert "next shipway command" in caught.value.remedy
    assert live_versions(project) == {"one": 1, "two": 1}
    objects.good = 99
    put_live(project, bundle(project, 3))
    assert live_versions(project) == {"one": 3, "two": 3}
    assert outcomes(project) == ["live", "interrupted", "live"]
    assert_ledger_is_sound(project)


def test_a_ledger_that_fills_up_between_two_outcomes_is_completed_later(project: Project) -> None:
    """All of it is live and has passed: the command succeeds and says what the ledger lacks."""
    put_live(project, bundle(project, 1))
    objects = with_full_store(project, 1, "outcome.json")
    site, observer = Site(project, "prod"), Notes()
    plan = site.plan("promote", {target: Goal(bundle(project, 2)) for target in site.targets})
    done = site.carry_out(plan, observer=observer)
    assert [(one.version, one.outcome) for one in done] == [(2, "live"), (2, "live")]
    (note,) = observer.notes
    assert note.startswith("prod/two: ocr/2 is live, but this could not be noted: The store is full.")
    assert live_versions(project) == {"one": 2, "two": 2}
    assert outcomes(project, "two") == ["live", "started"]
    objects.good = 99
    Site(project, "prod").recover()
    assert outcomes(project) == outcomes(project, "two") == ["live", "live"]
    assert_ledger_is_sound(project)


class NoHints(FolderObjects):
    """A store that is so full that it takes no hint and no lease, and lets none be removed."""

    def put(self, key: str, data: bytes) -> None:
        raise DeliveryError("The store is full.")

    def delete(self, key: str) -> None:
        raise DeliveryError("The store is full.")


def test_a_store_that_takes_no_hints_fails_no_deployment(project: Project) -> None:
    put_live(project, bundle(project, 1))
    second = bundle(project, 2)
    project.__dict__["store"] = Store(NoHints(project.root / "store"))
    assert {one.outcome for one in put_live(project, second)} == {"live"}
    assert live_versions(project) == {"one": 2, "two": 2}
    assert_ledger_is_sound(project)


class Unsure(FolderObjects):
    """A store that fails, or is interrupted, right after an outcome was written."""

    error: BaseException | None = None

    def create(self, key: str, data: bytes) -> bool:
        made = super().create(key, data)
        if self.error and key.endswith("outcome.json"):
            raise self.error
        return made


def test_an_outcome_that_is_there_counts_though_writing_it_failed(project: Project) -> None:
    put_live(project, bundle(project, 1))
    objects = Unsure(project.root / "store")
    project.__dict__["store"] = Store(objects)
    objects.error = DeliveryError("The connection broke.")
    assert {one.outcome for one in put_live(project, bundle(project, 2))} == {"live"}
    assert_ledger_is_sound(project)


def test_an_interruption_right_after_an_outcome_leaves_the_rest_to_the_next(project: Project) -> None:
    put_live(project, bundle(project, 1))
    objects = Unsure(project.root / "store")
    project.__dict__["store"] = Store(objects)
    objects.error = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        put_live(project, bundle(project, 2))
    objects.error = None
    assert live_versions(project) == {"one": 2, "two": 2}
    assert [outcomes(project), outcomes(project, "two")] == [["live", "live"], ["live", "started"]]
    put_live(project, bundle(project, 3))  # the same process: it is alive, but works on that no more
    assert outcomes(project, "two") == ["live", "live", "live"]
    assert_ledger_is_sound(project)


def test_a_ledger_that_fills_up_between_two_claims_changes_nothing(project: Project) -> None:
    put_live(project, bundle(project, 1))
    before = files_of(project.root / "out")
    objects = with_full_store(project, 1, "started.json")
    with pytest.raises(DeliveryError):
        put_live(project, bundle(project, 2))
    assert files_of(project.root / "out") == before
    assert_ledger_is_sound(project)
    objects.good = 99
    put_live(project, bundle(project, 2))
    assert live_versions(project) == {"one": 2, "two": 2}

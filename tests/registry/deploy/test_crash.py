"""kill -9 right before every single change to the file system that promote, rollback and recovery make."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from deploy_scene import (
    assert_ledger_is_sound,
    assert_live_is_whole,
    assert_nothing_left,
    bundle,
    change,
    forked,
    live_versions,
    naming,
    project_at,
    put_live,
)

from shipway.registry.config.project import Project
from shipway.registry.deploy.site import Site
from shipway.registry.ledger.events import Event
from shipway.registry.ledger.ledger import Ledger
from shipway.registry.verbs.rollback import rollback

Work = Callable[[Project], object]


def first(project: Project) -> None:
    put_live(project, bundle(project, 1))


def second(project: Project) -> None:
    put_live(project, bundle(project, 2))


def back(project: Project) -> None:
    rollback(project, "prod")


def nothing(project: Project) -> None:
    pass


def before_second(project: Project) -> None:
    first(project)
    bundle(project, 2)  # in the store already: only the deployment is cut


def fourth(project: Project) -> None:
    put_live(project, bundle(project, 4))


def before_fourth(project: Project) -> None:
    before_back(project)
    put_live(project, bundle(project, 3))
    bundle(project, 4)


def before_back(project: Project) -> None:
    first(project)
    second(project)


CASES: dict[str, tuple[Work, Work, int | None, int | None]] = {
    # name: (what was done, what is killed, live before, live after)
    "first promote": (nothing, first, None, 1),
    "second promote": (before_second, second, 1, 2),
    "promote that prunes": (before_fourth, fourth, 3, 4),
    "rollback": (before_back, back, 2, 1),
}


def prepared(root: Path, number: int, prepare: Work, *, keep: int = 5) -> Project:
    """A copy, one for each number, of a project on which ``prepare`` was called once."""
    origin = root / "origin"
    if not origin.exists():
        origin.mkdir()
        prepare(project_at(origin, keep=keep, gate="{}"))
    shutil.copytree(origin, root / str(number))
    return project_at(root / str(number), keep=keep, gate="{}")


@pytest.mark.parametrize("name", CASES)
def test_a_killed_command_leaves_old_or_new_whole_and_the_next_one_converges(
    name: str, tmp_path: Path, record_counts: Callable[[str, int], None]
) -> None:
    prepare, work, old, new = CASES[name]
    tried = 0
    for point in itertools.count():
        project = prepared(tmp_path, point, prepare, keep=1)
        end = forked(lambda: work(project), die=change(point))  # noqa: B023
        if end == 0:
            break  # it made fewer changes than that: all points were tried
        assert end == -9
        tried += 1
        assert_live_is_whole(project)
        assert set(live_versions(project).values()) <= {old, new}
        Site(project, "prod").recover()
        settled = set(live_versions(project).values())
        assert settled in ({old}, {new})  # the targets of one command share their fate
        assert_ledger_is_sound(project)
        if settled == {old}:
            work(project)
        assert set(live_versions(project).values()) == {new}
        assert_live_is_whole(project)
        assert_ledger_is_sound(project)
        assert_nothing_left(project)
    record_counts(f"{name}, in folders: killed before each change to the file system", tried)
    assert tried > 40


def test_recovery_can_be_killed_anywhere_too(
    tmp_path: Path, record_counts: Callable[[str, int], None]
) -> None:
    """Kill a promote between its two pointers, then the next command at every point of its own."""
    for point in itertools.count():
        project = prepared(tmp_path, point, before_second)
        assert forked(lambda: second(project), die=naming("current.json", nth=2)) == -9  # noqa: B023
        assert live_versions(project) == {"one": 2, "two": 1}
        end = forked(lambda: Site(project, "prod").recover(), die=change(point))  # noqa: B023
        assert_live_is_whole(project)
        Site(project, "prod").recover()
        assert live_versions(project) == {"one": 1, "two": 1}
        assert_ledger_is_sound(project)
        assert_nothing_left(project)
        if end == 0:
            break
    record_counts("recovery, in folders: killed before each change to the file system", point)
    assert point > 10


def test_what_was_in_place_when_the_process_died_is_finished(project: Project) -> None:
    before_second(project)
    assert forked(lambda: second(project), die=naming("outcome.json")) == -9
    Site(project, "prod").recover()
    assert live_versions(project) == {"one": 2, "two": 2}
    assert [event.outcome for event in newest(project)] == ["live", "live"]
    assert_ledger_is_sound(project)


def test_a_release_that_no_longer_passes_is_undone_instead(project: Project) -> None:
    before_second(project)
    assert forked(lambda: second(project), die=naming("outcome.json")) == -9
    site = Site(project, "prod")
    release = Path(site.delivery(site.places[1]).address) / "releases" / bundle(project, 2).release_id
    (release / "model/graph.onnx").write_bytes(b"spoilt while nobody looked")
    site.recover()
    assert live_versions(project) == {"one": 1, "two": 1}
    assert [event.outcome for event in newest(project)] == ["interrupted", "interrupted"]
    assert_live_is_whole(project)
    assert_ledger_is_sound(project)


def test_a_half_recorded_success_is_recorded_to_the_end(project: Project) -> None:
    before_second(project)
    assert forked(lambda: second(project), die=naming("outcome.json", nth=2)) == -9
    assert [event.outcome for event in newest(project)] == ["live", "started"]
    put_live(project, bundle(project, 2), targets=["two"])
    assert [(event.started.serial, event.outcome) for event in newest(project)] == [(2, "live"), (2, "live")]


def test_the_targets_of_a_killed_command_are_settled_together(project: Project) -> None:
    """The next command names one target only; the other must not stay on what was never finished."""
    before_second(project)
    assert forked(lambda: second(project), die=naming("current.json", nth=2)) == -9
    put_live(project, bundle(project, 4), targets=["two"])
    assert live_versions(project) == {"one": 1, "two": 4}
    assert_ledger_is_sound(project)


def newest(project: Project) -> list[Event]:
    ledger = Ledger(project.store.objects)
    return [next(iter(ledger.events(place))) for place in Site(project, "prod").places]

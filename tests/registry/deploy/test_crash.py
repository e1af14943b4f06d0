"""kill -9 right before every single change to the file system that promote, rollback and recovery make."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
from deploy_scene import (
    assert_ledger_is_sound,
    assert_live_is_whole,
    assert_nothing_left,
    bundle,
    forked,
    live_versions,
    project_at,
    put_live,
)
from shipway.registry.config.project import Project
from shipway.registry.deploy.site import Site
from shipway.registry.verbs.rollback import rollback

Work = Callable[[Project], object]


def first(project: Project) -> None:
    put_live(project, bundle(project, 1))


def second(project: Project) -> None:
    put_live(project, bundle(project, 2))


def bad(project: Project) -> None:
    put_live(project, bundle(project, 3, good=False))


def back(project: Project) -> None:
    rollback(project, "prod")


def nothing(project: Project) -> None:
    pass


def before_second(project: Project) -> None:
    first(project)
    bundle(project, 2)  # in the store already: only the deployment is cut


def before_back(project: Project) -> None:
    first(project)
    second(project)


CASES: dict[str, tuple[Work, Work, int | None, int | None]] = {
    # name: (what was done, what is killed, live before, live after)
    "first promote": (nothing, first, None, 1),
    "second promote": (before_second, second, 1, 2),
    "rollback": (before_back, back, 2, 1),
}


@pytest.mark.parametrize("name", CASES)
def test_a_killed_command_leaves_old_or_new_whole_and_the_next_one_converges(
    name: str, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    prepare, work, old, new = CASES[name]
    tried = 0
    for point in itertools.count():
        project = project_at(tmp_path / str(point), gate="{}")
        prepare(project)
        end = forked(lambda: work(project), die_before=point)  # noqa: B023
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
    record_property("kill_points", tried)
    print(f"{name}: {tried} kill points")
    assert tried > 40

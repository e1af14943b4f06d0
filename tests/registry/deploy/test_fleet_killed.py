"""A roll-out to a fleet that is killed, at any step on any host: what the next command makes of it."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from deploy_scene import assert_ledger_is_sound, bundle, forked
from fleet_scene import TOLERANT, FleetProject, FolderHost, faults, fleet_at, newest, promote

from shipway.registry.deploy.execute import Watch
from shipway.registry.deploy.plan import Task
from shipway.registry.deploy.site import Goal, Site
from shipway.registry.verbs.rollback import rollback


def killed(work: Callable[[], object], point: int) -> int:
    """How it ended that was to be killed before the step of that number, of all steps on all hosts."""

    def act() -> None:
        FolderHost.countdown = itertools.count(point, -1)
        work()

    return forked(act)


def prepared(root: Path, number: int, versions: int) -> FleetProject:
    """A copy of a project with four hosts to which so many versions were promoted."""
    origin = root / "origin"
    if not origin.exists():
        project = fleet_at(origin, "abcd")
        for version in range(1, versions + 1):
            promote(project, version)
        bundle(project, versions + 1)  # in the store already: only the deployment is cut
    shutil.copytree(origin, root / str(number))
    return fleet_at(root / str(number), "abcd")


def act(project: FleetProject, work: str, version: int) -> object:
    if work == "promote":
        return promote(project, version)
    return rollback(project, "prod", targets=["boards"])


@pytest.mark.parametrize(("work", "old", "new"), [("promote", 3, 4), ("rollback", 3, 2)])
def test_killed_before_any_step_on_any_host_the_next_command_converges(
    work: str, old: int, new: int, tmp_path: Path, record_counts: Callable[[str, int], None]
) -> None:
    for point in itertools.count():
        project = prepared(tmp_path, point, old)
        end = killed(lambda: act(project, work, new), point)  # noqa: B023
        if end == 0:
            break  # it has fewer steps than that: all were tried
        assert end == -9
        assert set(project.versions()) <= {old, new}
        Site(project, "prod", ["boards"]).recover()
        settled = set(project.versions())
        assert settled in ({old}, {new})
        assert_ledger_is_sound(project)
        if settled == {old}:
            act(project, work, new)
        assert project.versions() == [new] * 4
        assert_ledger_is_sound(project)
        assert not list(project.root.rglob(".staging"))
    record_counts(f"{work} to a fleet in waves: killed before each step on each host", point)
    assert point >= (4 * 8 if work == "promote" else 4 * 3)


def test_recovery_of_a_roll_out_can_be_killed_anywhere_too(
    tmp_path: Path, record_counts: Callable[[str, int], None]
) -> None:
    for point in itertools.count():
        project = prepared(tmp_path, point, 1)
        assert forked(lambda: promote(project, 2, watch=killer("d"))) == -9  # noqa: B023
        assert project.versions() == [2, 2, 2, 1]
        end = killed(lambda: Site(project, "prod", ["boards"]).recover(), point)  # noqa: B023
        Site(project, "prod", ["boards"]).recover()
        assert project.versions() == [1] * 4
        assert_ledger_is_sound(project)
        if end == 0:
            break
    record_counts("recovery of a fleet: killed before each step on each host", point)
    assert point >= 4


def killer(hosts: str, step: str = "Point", moment: str = "before") -> Watch:
    """Dies at the first such step on just these hosts."""

    def watch(now: str, task: Task) -> None:
        if (now, type(task.step).__name__, task.hosts) == (moment, step, tuple(hosts)):
            os.kill(os.getpid(), signal.SIGKILL)

    return watch


def test_after_a_kill_hosts_that_have_it_are_sent_nothing(tmp_path: Path) -> None:
    project = fleet_at(tmp_path)
    promote(project, 1)

    assert forked(lambda: promote(project, 2, watch=killer("de"))) == -9
    assert project.versions() == [2, 2, 2, 1, 1]
    done = promote(project, 2)
    assert newest(project).started.serial == done.serial == 3
    assert all(host.bytes_sent < 500 for host in done.hosts)
    assert project.versions() == [2] * 5


def test_a_roll_out_that_was_over_when_it_was_killed_is_finished_without_who_is_away(tmp_path: Path) -> None:
    project = fleet_at(tmp_path, more=TOLERANT)
    promote(project, 1)

    assert forked(lambda: promote(project, 2, watch=killer("de", "Gate", "after"))) == -9
    with faults(project, b="down"):
        Site(project, "prod", ["boards"]).recover()
    event = newest(project)
    assert event.ended is not None
    assert event.outcome == "live"
    assert event.ended.detail.endswith("out of reach: b")
    assert [host.host for host in event.ended.hosts] == ["b"]
    assert_ledger_is_sound(project)


def test_a_killed_roll_out_names_a_host_that_had_it_and_is_away(tmp_path: Path) -> None:
    project = fleet_at(tmp_path)
    promote(project, 1)
    assert forked(lambda: promote(project, 2, watch=killer("a", "Gate"))) == -9
    with faults(project, a="down"):
        Site(project, "prod", ["boards"]).recover()
    assert project.versions() == [2, 1, 1, 1, 1]  # it alone was pointed
    event = newest(project)
    assert event.ended is not None
    assert event.ended.detail.endswith("could not be taken back: a")


def test_a_killed_roll_out_is_undone_though_a_host_is_away(tmp_path: Path) -> None:
    project = fleet_at(tmp_path)
    promote(project, 1)

    assert forked(lambda: promote(project, 2, watch=killer("de"))) == -9
    with faults(project, b="down"):
        Site(project, "prod", ["boards"]).recover()
        assert project.versions() == [1, 2, 1, 1, 1]
    event = newest(project)
    assert event.ended is not None
    assert event.outcome == "interrupted"
    assert event.ended.detail.endswith("could not be taken back: b")
    promote(project, 2)
    assert project.versions() == [2] * 5
    assert_ledger_is_sound(project)


@pytest.mark.parametrize(("fault", "live"), [("", True), ("fails at gate check", False)])
def test_what_was_accepted_is_a_verdict_not_a_host_that_fails(tmp_path: Path, fault: str, live: bool) -> None:
    project = fleet_at(tmp_path, "ab", "gate: {check: true}")
    promote(project, 1)
    site = Site(project, "prod", ["boards"])
    plan = site.plan("promote", {"boards": Goal(bundle(project, 2, good=False))}, accept="known")
    assert forked(lambda: site.carry_out(plan, watch=killer("ab", "Gate"))) == -9
    with faults(project, b=fault):
        Site(project, "prod", ["boards"]).recover()
    assert project.versions() == [2 if live else 1] * 2
    assert_ledger_is_sound(project)

"""Targets side by side: what is, what is not, and what follows where one of them fails."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from deploy_scene import assert_ledger_is_sound, bundle, live_versions, project_at, put_live

from shipway.registry.deploy import abreast
from shipway.registry.deploy.plan import Task
from shipway.registry.deploy.site import Goal, Site
from shipway.registry.errors import DeliveryError
from shipway.registry.nouns import File
from shipway.targets.deliveries.folder import FolderDelivery
from shipway.targets.steps import Command, Gate, Point, Prune, Release, Seal, Send, Stage

PATIENCE_S = 60.0


def test_all_before_the_first_pointer_is_split_by_target_in_its_order(tmp_path: Path) -> None:
    project = project_at(tmp_path)
    site = Site(project, "prod")
    plan = site.plan("promote", {target: Goal(bundle(project, 1)) for target in site.targets})
    lanes, rest = abreast.split(plan.tasks)
    assert list(lanes) == ["one", "two"]
    for target, tasks in lanes.items():
        assert [task for task in plan.tasks if task in tasks] == tasks
        assert {task.target for task in tasks} == {target}
        assert not any(isinstance(task.step, (Point, Gate, Prune)) for task in tasks)
        assert isinstance(tasks[-1].step, Seal)
    assert isinstance(rest[0].step, Point)
    assert len(rest) + sum(map(len, lanes.values())) == len(plan.tasks)


def test_nothing_is_split_off_a_plan_that_begins_with_a_pointer() -> None:
    assert abreast.split(()) == ({}, ())


def test_one_target_sends_while_the_other_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each waits in its first step for the other to be there too: one after the other they never would."""
    project = project_at(tmp_path)
    both = threading.Barrier(2, timeout=PATIENCE_S)
    real = FolderDelivery._stage

    def stage(self: FolderDelivery, release: Release) -> None:
        both.wait()
        real(self, release)

    monkeypatch.setattr(FolderDelivery, "_stage", stage)
    put_live(project, bundle(project, 1))
    assert live_versions(project) == {"one": 1, "two": 1}
    assert_ledger_is_sound(project)


def test_where_one_fails_the_other_stops_and_nothing_goes_live(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = project_at(tmp_path)
    put_live(project, bundle(project, 1))
    both, told, sent = threading.Barrier(2, timeout=PATIENCE_S), threading.Event(), []
    real = FolderDelivery._send

    class Pool(ThreadPoolExecutor):
        def shutdown(self, *arguments: Any, **options: Any) -> None:
            told.set()  # the lanes were told to stop, and are waited for now
            super().shutdown(*arguments, **options)

    def send(self: FolderDelivery, folder: Path, release: Release, file: File) -> int:
        if not sent:
            both.wait()
        if self.root.name == "one":
            raise DeliveryError("The disk of one is full.")
        sent.append(file.path)
        assert told.wait(PATIENCE_S)
        return real(self, folder, release, file)

    monkeypatch.setattr(FolderDelivery, "_send", send)
    monkeypatch.setattr(abreast, "ThreadPoolExecutor", Pool)
    with pytest.raises(DeliveryError, match="The disk of one is full"):
        put_live(project, bundle(project, 2))
    assert len(sent) == 1  # the file that it was at
    assert live_versions(project) == {"one": 1, "two": 1}
    assert_ledger_is_sound(project)


def test_commands_run_one_at_a_time(tmp_path: Path) -> None:
    release = Release(bundle(project_at(tmp_path), 1))
    lanes = {name: [Task(name, Command(release, ("true",), "test"))] * 20 for name in ("one", "two", "three")}
    at_work, most = 0, 0

    def perform(task: Task) -> None:
        nonlocal at_work, most
        at_work += 1
        most = max(most, at_work)
        time.sleep(0.001)
        at_work -= 1

    abreast.run(lanes, perform)
    assert most == 1


def test_the_failure_of_the_first_lane_is_raised_when_all_have_stopped(tmp_path: Path) -> None:
    release = Release(bundle(project_at(tmp_path), 1))
    lanes = {name: [Task(name, Stage(release)), Task(name, Seal(release))] for name in ("one", "two")}
    both, stopped = threading.Barrier(2, timeout=PATIENCE_S), []

    def perform(task: Task) -> None:
        both.wait()
        time.sleep(0.1 if task.target == "one" else 0)
        stopped.append(task.target)
        raise ValueError(task.target)

    with pytest.raises(ValueError, match="one"):
        abreast.run(lanes, perform)
    assert sorted(stopped) == ["one", "two"]


def test_a_single_lane_stays_in_the_callers_thread(tmp_path: Path) -> None:
    release = Release(bundle(project_at(tmp_path), 1))
    threads = set()
    abreast.run(
        {"one": [Task("one", Send(release, release.manifest.files[0]))]},
        lambda task: threads.add(threading.current_thread()),
    )
    assert threads == {threading.current_thread()}

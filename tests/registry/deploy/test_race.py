"""Several commands at once: the claim of a serial is the lock, and only a dead owner loses it."""

from __future__ import annotations

import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from deploy_scene import (
    assert_ledger_is_sound,
    bundle,
    files_of,
    fork,
    forked,
    live_versions,
    naming,
    place,
    put_live,
)

from shipway.registry.config.project import Project
from shipway.registry.deploy.plan import Task
from shipway.registry.deploy.site import Goal, Site
from shipway.registry.errors import ConflictError, DeliveryError
from shipway.registry.ledger import lease, owner
from shipway.registry.ledger.events import Started
from shipway.registry.ledger.ledger import Ledger
from shipway.registry.store.folder import FolderObjects
from shipway.registry.store.store import Store
from shipway.registry.verbs.rollback import earlier
from shipway.targets.steps import Gate, Point


def forked_free(work: object) -> int:
    try:
        work()  # type: ignore[operator]
    except ConflictError:
        return 7
    except BaseException as error:
        os.write(2, f"child: {error!r}\n".encode())
        return 1
    return 0


def test_a_command_in_the_middle_keeps_others_out(project: Project) -> None:
    put_live(project, bundle(project, 1))
    before = files_of(project.root / "out")
    tried = []

    def meanwhile(moment: str, task: Task) -> None:
        if moment == "before" and isinstance(task.step, Point) and not tried:
            tried.append(forked(lambda: put_live(project, bundle(project, 3))))
            tried.append(files_of(project.root / "out/prod/one/releases").keys() & before.keys())

    put_live(project, bundle(project, 2), watch=meanwhile)
    assert tried[0] == 7
    assert live_versions(project) == {"one": 2, "two": 2}
    assert_ledger_is_sound(project)


def test_a_plan_made_while_another_deploys_is_not_carried_out(project: Project) -> None:
    """It found nobody at work, then another claimed: what it sees now may be half done."""
    put_live(project, bundle(project, 1))
    late = Site(project, "prod")
    late.recover()
    tried = []

    def meanwhile(moment: str, task: Task) -> None:
        if moment == "before" and isinstance(task.step, Gate) and not tried:
            plan = late.plan("promote", {target: Goal(bundle(project, 3)) for target in late.targets})
            tried.append(plan)

    put_live(project, bundle(project, 2), watch=meanwhile)
    with pytest.raises(ConflictError):
        late.carry_out(tried[0])
    assert live_versions(project) == {"one": 2, "two": 2}
    assert_ledger_is_sound(project)


def test_a_rollback_decided_before_another_deployment_is_not_carried_out(project: Project) -> None:
    for version in (1, 2):
        put_live(project, bundle(project, version))
    late = Site(project, "prod")
    back = earlier(late, "one", None)
    assert back is not None
    put_live(project, bundle(project, 3))
    with pytest.raises(ConflictError):
        late.carry_out(late.plan("rollback", {"one": Goal(project.store.bundle(back.bundle), back.serial)}))
    assert live_versions(project) == {"one": 3, "two": 3}
    assert_ledger_is_sound(project)


def test_a_stopped_process_is_alive(project: Project) -> None:
    """SIGSTOP on the same machine: others must wait, however long it takes."""
    put_live(project, bundle(project, 1))
    pid = fork()
    if pid == 0:
        put_live(project, bundle(project, 2), watch=_stop_before_first_pointer)
        os._exit(0)
    os.waitpid(pid, os.WUNTRACED)
    with pytest.raises(ConflictError) as caught:
        put_live(project, bundle(project, 3))
    assert str(pid) in caught.value.why
    os.kill(pid, signal.SIGCONT)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert live_versions(project) == {"one": 2, "two": 2}


def _stop_before_first_pointer(moment: str, task: Task) -> None:
    if moment == "before" and isinstance(task.step, Point) and task.target == "one":
        os.kill(os.getpid(), signal.SIGSTOP)


def test_a_process_that_slept_through_its_lease_does_no_harm(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It deploys from another machine, sleeps, is taken over, and wakes up right before its pointer moves."""
    put_live(project, bundle(project, 1))
    pid = fork()
    if pid == 0:
        here = owner.this_process()
        owner.this_process = lambda: replace(here, host="far-away", machine="m", boot="b")
        code = forked_free(lambda: put_live(project, bundle(project, 2), watch=_stop_before_first_pointer))
        os._exit(code)
    os.waitpid(pid, os.WUNTRACED)
    with pytest.raises(ConflictError) as caught:
        put_live(project, bundle(project, 3))
    assert "far-away" in caught.value.why
    monkeypatch.setattr(owner, "LEASE_S", 0.05)
    time.sleep(0.06)
    put_live(project, bundle(project, 3))
    after = files_of(project.root / "out")
    os.kill(pid, signal.SIGCONT)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    assert files_of(project.root / "out") == after
    assert live_versions(project) == {"one": 3, "two": 3}
    assert_ledger_is_sound(project)


def test_a_claim_on_two_targets_is_given_back_if_the_second_is_taken(project: Project) -> None:
    put_live(project, bundle(project, 1))
    site = Site(project, "prod")
    plan = site.plan("promote", {target: Goal(bundle(project, 2)) for target in site.targets})
    put_live(project, bundle(project, 3), targets=["two"])
    before = files_of(project.root / "out")
    with pytest.raises(ConflictError):
        site.carry_out(plan)
    assert files_of(project.root / "out") == before
    assert_ledger_is_sound(project)
    assert live_versions(project) == {"one": 1, "two": 3}
    assert next(iter(site.ledger.events(place("one")))).outcome == "interrupted"


def test_the_lease_is_renewed_while_a_command_works(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within one long task too, and not any more once it has ended."""
    monkeypatch.setattr(lease, "EVERY_S", 0.005)
    threads = set(threading.enumerate())
    tried = []

    def look(moment: str, task: Task) -> None:
        if not tried:
            tried.append(renewed_soon(project, 1))

    put_live(project, bundle(project, 1), targets=["one"], watch=look)
    assert tried == [True]
    assert set(threading.enumerate()) <= threads


def renewed_soon(project: Project, serial: int) -> bool:
    ledger = Ledger(project.store.objects)
    started, deadline = ledger.started(place("one"), serial), time.monotonic() + 60
    before = ledger.holder(started)[1]
    while ledger.holder(started)[1] <= before and time.monotonic() < deadline:
        time.sleep(0.005)
    return ledger.holder(started)[1] > before


def test_the_lease_is_renewed_while_a_command_recovers(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "EVERY_S", 0.005)
    put_live(project, bundle(project, 1), targets=["one"])
    bundle(project, 2)
    end = forked(lambda: put_live(project, bundle(project, 2), targets=["one"]), die=naming("outcome.json"))
    assert end == -9
    tried, gates_of = [], Site._gates

    def slowly(site: Site, started: Started) -> list[Gate]:
        tried.append(renewed_soon(project, 2))
        return gates_of(site, started)

    monkeypatch.setattr(Site, "_gates", slowly)
    Site(project, "prod").recover()
    assert tried == [True]
    assert_ledger_is_sound(project)


def test_a_lease_that_was_lost_or_can_not_be_written_is_let_be(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full(FolderObjects):
        tried = 0

        def put(self, key: str, data: bytes) -> None:
            if key.endswith("lease.json"):
                self.tried += 1
                raise DeliveryError("The store is full.")
            super().put(key, data)

    monkeypatch.setattr(lease, "EVERY_S", 0.005)
    objects = Full(project.root / "store")
    project.__dict__["store"] = Store(objects)

    def wait(moment: str, task: Task) -> None:
        deadline = time.monotonic() + 60
        while objects.tried < 2 and time.monotonic() < deadline:
            time.sleep(0.005)

    put_live(project, bundle(project, 1), targets=["one"], watch=wait)
    assert objects.tried >= 2
    ended, done = Ledger(objects).started(place("one"), 1), objects.tried
    with lease.kept(Ledger(objects), [(ended, 0)]):
        time.sleep(0.05)
    assert objects.tried == done
    assert_ledger_is_sound(project)


def test_an_owner_is_told_from_a_later_process_of_the_same_number() -> None:
    me = owner.this_process()
    assert owner.is_alive(me, owner.now())
    assert not owner.is_alive(replace(me, born="1"), owner.now())
    before = replace(me, boot="before the last boot")
    # without a machine id (containers) a restart is not told from another machine: the lease decides
    assert owner.is_alive(before, owner.now()) == (not me.machine)


def test_an_owner_elsewhere_lives_as_long_as_its_lease() -> None:
    far = replace(owner.this_process(), host="far-away")
    assert owner.is_alive(far, owner.now())
    assert not owner.is_alive(far, "2020-01-01T00:00:00.000Z")
    assert not owner.is_alive(far, "2999-01-01T00:00:00.000Z")  # a clock that is wrong proves nothing


def test_a_process_that_only_waits_to_be_reaped_is_dead() -> None:
    pid = fork()
    if pid == 0:
        os._exit(0)
    while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
        time.sleep(0.01)
    born = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    assert not owner.is_alive(replace(owner.this_process(), pid=pid, born=born), owner.now())
    os.waitpid(pid, 0)

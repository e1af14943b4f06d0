"""A host on which somebody else is at work while a deployment meets it, over a real sshd."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import ssh_project
from deploy_scene import assert_ledger_is_sound, bundle, put_live
from ssh_hosts import USER, Host
from ssh_scene import Shelf, connect, deploy, place, pointer

from shipway.registry.config.project import Project
from shipway.registry.deploy.execute import Watch
from shipway.registry.deploy.plan import Task
from shipway.registry.deploy.site import Site
from shipway.registry.errors import DeliveryError
from shipway.registry.ledger.events import Event
from shipway.targets.deliveries.on_host_place import LOCK_S
from shipway.targets.steps import Gate, Point, Prune, Stage

pytestmark = pytest.mark.real


@pytest.fixture
def project(host: Host, client_key: Path, tmp_path: Path) -> Project:
    project = ssh_project.write_project(tmp_path, USER, [f"{host.name}:{host.port}"])
    (tmp_path / "known_hosts").write_text(host.known())
    shutil.copy(client_key, tmp_path / "key")
    return project


def root_of(project: Project) -> Path:
    (root,) = (project.root / "hosts").iterdir()
    return root


def live(project: Project) -> str:
    return (root_of(project) / "current").resolve(strict=True).name


def newest(project: Project) -> Event:
    site = Site(project, "prod")
    return next(iter(site.ledger.events(site.places[0])))


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@contextlib.contextmanager
def held(path: Path, how: int = fcntl.LOCK_EX) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, how)
        yield
    finally:
        os.close(descriptor)


def busy_at(project: Project, kind: type, seconds: float, more: contextlib.ExitStack) -> Watch:
    """Somebody takes the host's lock when the first step of ``kind`` begins and keeps it for a while."""
    timers: list[threading.Timer] = []

    def watch(moment: str, task: Task) -> None:
        if moment == "before" and isinstance(task.step, kind) and not timers:
            stack = contextlib.ExitStack()
            stack.enter_context(held(root_of(project) / ".shipway/lock"))
            timers.append(threading.Timer(seconds, stack.close))
            timers[0].start()
            more.callback(timers[0].join)

    return watch


def test_point_and_undo_outwait_somebody_else(project: Project) -> None:
    """Each for longer than other steps wait."""
    old = bundle(project, 1)
    put_live(project, old)
    with contextlib.ExitStack() as stack:
        put_live(project, bundle(project, 2), watch=busy_at(project, Point, LOCK_S + 0.7, stack))
    assert live(project) == bundle(project, 2).release_id
    with contextlib.ExitStack() as stack:
        watch = busy_at(project, Gate, LOCK_S + 0.7, stack)
        with pytest.raises(DeliveryError, match="golden check"):
            put_live(project, bundle(project, 3, good=False), watch=watch)
    assert live(project) == bundle(project, 2).release_id
    event = newest(project)
    assert event.ended is not None
    assert (event.outcome, "could not be taken back" in event.ended.detail) == ("failed", False)
    assert_ledger_is_sound(project)


def test_who_is_kept_out_before_the_pointer_moves_fails_and_nothing_changed(project: Project) -> None:
    put_live(project, bundle(project, 1))
    with contextlib.ExitStack() as stack:
        watch = busy_at(project, Stage, LOCK_S + 3, stack)
        with pytest.raises(DeliveryError, match="Somebody else is at work"):
            put_live(project, bundle(project, 2), watch=watch)
    assert live(project) == bundle(project, 1).release_id
    assert newest(project).outcome == "failed"


def test_a_check_holds_up_no_step_but_the_removal_of_what_it_reads(
    host: Host, known_hosts: Path, client_key: Path, tmp_path: Path
) -> None:
    shelf, enough = Shelf(tmp_path / "store"), tmp_path / "enough"
    begun = tmp_path / "begun"
    check = (
        f"import os, time\nopen({str(begun)!r}, 'w')\n"
        f"while not os.path.exists({str(enough)!r}): time.sleep(0.05)\n"
        "open('verdict').read()\nprint('{\"passed\": true, \"outputs\": []}')\n"
    ).encode()
    first, second = shelf.bundle(1, {"check.py": check}), shelf.bundle(2)
    with (
        connect(host, shelf, known_hosts, client_key) as looker,
        connect(host, shelf, known_hosts, client_key) as other,
    ):
        deploy(looker, first, 1)
        thread = threading.Thread(target=looker.perform, args=(Gate(first, "check", {}),))
        thread.start()
        wait_for(begun.exists)
        place(other, second)
        other.perform(Point(pointer(second, 2)))
        other.perform(Gate(second, "check", {}))
        other.undo(pointer(second, 2))
        other.perform(Point(pointer(second, 2)))
        with pytest.raises(DeliveryError, match="at work") as caught:
            other.perform(Prune(first.id))
        assert first.id in caught.value.why
        enough.touch()
        thread.join()
        assert looker.verdict is not None
        other.perform(Prune(first.id))
        with pytest.raises(DeliveryError, match=f"no release {first.id}"):
            looker.perform(Gate(first, "check", {}))


def test_what_somebody_reads_is_left_at_the_end_of_a_good_deployment(project: Project) -> None:
    first = bundle(project, 1)
    for version in (1, 2):
        put_live(project, bundle(project, version))
    home = root_of(project) / "releases" / first.release_id
    with held(home, fcntl.LOCK_SH):
        (done,) = put_live(project, bundle(project, 3))
        assert done.outcome == "live"
        assert home.is_dir()
    put_live(project, bundle(project, 4))
    assert not home.exists()

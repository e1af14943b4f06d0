"""Deployments with store, ledger and destinations in S3: killed before each write, and what they cost."""

from __future__ import annotations

import functools
import itertools
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from shipway.registry.config.load import load_text
from shipway.registry.config.project import Project
from shipway.registry.deploy.plan import Task
from shipway.registry.deploy.site import Goal, Site
from shipway.registry.errors import ConflictError
from shipway.registry.ledger.ledger import Ledger
from shipway.registry.s3.bucket import Bucket, Patience, Service
from shipway.registry.store.s3 import S3Objects, origin
from shipway.registry.store.store import Store
from shipway.registry.verbs.rollback import rollback
from shipway.targets.deliveries.base import Delivery
from shipway.targets.deliveries.s3 import S3Delivery
from shipway.targets.steps import Point

sys.path.insert(0, str(Path(__file__).parent.parent / "registry" / "deploy"))

import deploy_scene as scene

QUICK = Patience(pause=0.01, longest_pause=0.05)
WRITES = {"put_object", "delete_object", "copy_object", "create_multipart_upload", "upload_part",
          "complete_multipart_upload", "abort_multipart_upload"}  # fmt: skip
CONFIG = """
project: scene
store: {{to: "s3://{bucket}/{prefix}store", endpoint: "{endpoint}"}}
targets:
  one: {{kind: jetson-ort}}
  two: {{kind: jetson-ort}}
environments:
  prod:
    one: {{to: "s3://{bucket}/{prefix}prod/one", keep: 1, gate: {{check: true}}}}
    two: {{to: "s3://{bucket}/{prefix}prod/two", keep: 1}}
"""


class S3Project(Project):
    """A project whose store and destinations are in the service that the configuration names."""

    @cached_property
    def store(self) -> Store:
        return Store(S3Objects(self.config.store.to, self.root / "cache", self.service, QUICK))

    @property
    def service(self) -> Service:
        return Service(endpoint=self.config.store.endpoint)

    def delivery(self, environment: str, target: str) -> Delivery:
        to = self.placements(environment, [target])[target].to
        return S3Delivery(to, self.store.open, self.service, origin=origin(self.store), patience=QUICK)


def project_at(root: Path, server: Any, prefix: str = "") -> S3Project:
    found = load_text(CONFIG.format(bucket=server.bucket, endpoint=server.endpoint, prefix=prefix), root)
    return S3Project(found.config, found.root, found.source, found.lines)


@pytest.fixture(autouse=True)
def _no_mirror(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHIPWAY_MIRROR", "off")


def killed_before_write(number: int, work: Callable[[], object]) -> int:
    """Run ``work`` in a forked child that is killed right before its write of that number; its exit code."""
    left = itertools.count(number, -1)
    plain = Bucket._attempt

    def attempt(self: Bucket, operation: str, request: Callable[[], Any]) -> Any:
        if operation in WRITES and next(left) == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return plain(self, operation, request)

    def armed() -> None:
        Bucket._attempt = attempt  # type: ignore[method-assign]  # in the child only
        work()

    return scene.forked(armed)


def assert_sound(project: Project) -> None:
    scene.assert_live_is_whole(project)
    scene.assert_ledger_is_sound(project)


def killed_everywhere(
    project_of: Callable[[], Project], work: Callable[[Project, int], object], wanted: Callable[[int], int]
) -> int:
    """Kill ``work(project, round)`` before its first write, its second, ... until it ends by itself.

    After each kill what is live must be whole and either the old or the new version, and the same command
    again must make the version ``wanted(round)`` live. Returns the number of kills.
    """
    for number in itertools.count():
        before = set(scene.live_versions(project_of()).values())
        code = killed_before_write(number, lambda n=number: work(project_of(), n))
        if code == 0:
            assert_sound(project_of())
            return number
        assert code == -signal.SIGKILL
        scene.assert_live_is_whole(project_of())
        assert set(scene.live_versions(project_of()).values()) <= before | {wanted(number)}
        work(project_of(), number)
        assert set(scene.live_versions(project_of()).values()) == {wanted(number)}
        assert_sound(project_of())
    raise AssertionError


@pytest.mark.real
def test_promote_survives_a_kill_before_every_write(
    real_s3: Any, tmp_path: Path, record_counts: Callable[[str, int], None]
) -> None:
    project = project_at(tmp_path, real_s3)
    bundles = [scene.bundle(project, version) for version in range(1, 60)]
    for manifest in bundles[:3]:
        scene.put_live(project, manifest)  # so that there is something to prune
    kills = killed_everywhere(
        lambda: project_at(tmp_path, real_s3),
        lambda project, number: scene.put_live(project, bundles[number + 3]),
        lambda number: number + 4,
    )
    assert kills >= 25
    for delivery in (project.delivery("prod", "one"), project.delivery("prod", "two")):
        assert isinstance(delivery, S3Delivery)
        keys = [key.removeprefix(delivery._root) for key, _ in delivery.bucket.list(delivery._root)]
        of = {key.split("/")[1] for key in keys if key.startswith("releases/")}
        assert of == set(delivery.releases())  # whatever removal was cut short was taken up again
        assert not [key for key in keys if key.startswith(".pruning/")]
    record_counts("promote that prunes, in S3: killed before each write", kills)


@pytest.mark.real
def test_rollback_survives_a_kill_before_every_write(
    real_s3: Any, tmp_path: Path, record_counts: Callable[[str, int], None]
) -> None:
    project = project_at(tmp_path, real_s3)
    for version in (1, 2):
        scene.put_live(project, scene.bundle(project, version))
    for number in itertools.count():
        scene.put_live(project_at(tmp_path, real_s3), scene.bundle(project, 2))
        code = killed_before_write(number, lambda: rollback(project_at(tmp_path, real_s3), "prod"))
        if code == 0:
            break
        assert code == -signal.SIGKILL
        scene.assert_live_is_whole(project_at(tmp_path, real_s3))
        scene.put_live(project_at(tmp_path, real_s3), scene.bundle(project, 1))
        assert scene.live_versions(project_at(tmp_path, real_s3)) == {"one": 1, "two": 1}
        assert_sound(project_at(tmp_path, real_s3))
    assert number >= 10
    record_counts("rollback, in S3: killed before each write", number)


@pytest.mark.real
def test_a_first_promote_survives_a_kill_before_every_write(
    real_s3: Any, tmp_path: Path, record_counts: Callable[[str, int], None]
) -> None:
    for number in itertools.count():
        at = functools.partial(project_at, tmp_path / str(number), real_s3, f"{number}/")
        manifest = scene.bundle(at(), 1)
        code = killed_before_write(number, lambda: scene.put_live(at(), manifest))  # noqa: B023
        if code == 0:
            break
        assert code == -signal.SIGKILL
        scene.assert_live_is_whole(at())
        scene.put_live(at(), manifest)
        assert scene.live_versions(at()) == {"one": 1, "two": 1}
        assert_sound(at())
    assert number >= 15
    record_counts("first promote, in S3: killed before each write", number)


@pytest.mark.real
def test_recovery_survives_a_kill_before_every_write(
    real_s3: Any, tmp_path: Path, record_counts: Callable[[str, int], None]
) -> None:
    """A promote dies between its two pointers; the next command dies before each write of its own."""
    for number in itertools.count():
        at = functools.partial(project_at, tmp_path / str(number), real_s3, f"{number}/")
        for version in (1, 2):
            scene.bundle(at(), version)
        scene.put_live(at(), scene.bundle(at(), 1))

        def die(moment: str, task: Task) -> None:
            if isinstance(task.step, Point) and moment == "after":
                os.kill(os.getpid(), signal.SIGKILL)

        promote = functools.partial(scene.put_live, at(), scene.bundle(at(), 2), watch=die)
        assert scene.forked(promote) == -signal.SIGKILL
        assert sorted(filter(None, scene.live_versions(at()).values())) == [1, 2]
        code = killed_before_write(number, lambda: Site(at(), "prod").recover())  # noqa: B023
        scene.assert_live_is_whole(at())
        Site(at(), "prod").recover()
        assert scene.live_versions(at()) == {"one": 1, "two": 1}
        assert_sound(at())
        if code == 0:
            break
        assert code == -signal.SIGKILL
    assert number >= 3
    record_counts("recovery, in S3: killed before each write", number)


@pytest.mark.real
def test_promote_and_rollback_in_s3(real_proxied: tuple[Any, Any], tmp_path: Path) -> None:
    proxy, server = real_proxied
    project = project_at(tmp_path, server)
    first, second = scene.bundle(project, 1), scene.bundle(project, 2)
    scene.put_live(project, first)
    outcome = scene.put_live(project, second)
    assert [deployment.outcome for deployment in outcome] == ["live", "live"]
    assert (
        sum(deployment.bytes_sent for deployment in outcome) < 2000
    )  # the pointers: files were copied there
    assert scene.live_versions(project) == {"one": 2, "two": 2}
    proxy.forget()
    rollback(project_at(tmp_path, server), "prod")
    assert sum(request.sent for request in proxy.requests) < 64 << 10
    assert scene.live_versions(project) == {"one": 1, "two": 1}
    assert_sound(project)
    with pytest.raises(Exception, match="not pass"):
        scene.put_live(project, scene.bundle(project, 3, good=False))
    assert scene.live_versions(project) == {"one": 1, "two": 1}
    assert_sound(project)


@pytest.fixture(params=["proxied", pytest.param("real_proxied", marks=pytest.mark.real)])
def through(request: pytest.FixtureRequest) -> Iterator[tuple[Any, Any]]:
    return request.getfixturevalue(request.param)


def test_what_another_writer_made_live_meanwhile_stays(through: tuple[Any, Any], tmp_path: Path) -> None:
    """Who lost the race has changed nothing: neither by pointing nor by taking back."""
    _, server = through
    project = project_at(tmp_path, server)
    scene.put_live(project, scene.bundle(project, 1))
    bucket, key = Bucket(server.bucket, project.service, QUICK), "prod/one/current.json"
    mine = Site(project, "prod").delivery(scene.place("one")).pointer()
    assert mine is not None
    theirs = json.dumps({**mine.to_json(), "serial": 77}).encode()

    def write(moment: str, task: Task) -> None:
        if moment == "before" and isinstance(task.step, Point) and task.target == "one":
            bucket.put(key, theirs, {})

    with pytest.raises(ConflictError, match="changed by somebody else"):
        scene.put_live(project, scene.bundle(project, 2), watch=write)
    found = bucket.get(key)
    assert found is not None
    assert found[0] == theirs
    assert scene.pointers(project)["two"] == (1, 1)


def test_reading_the_ledger_takes_as_many_requests_however_long_it_is(
    through: tuple[Any, Any], tmp_path: Path
) -> None:
    proxy, server = through
    project = project_at(tmp_path, server)
    manifests = [scene.bundle(project, version) for version in (1, 2)]
    place = scene.place("one")
    counts = []
    for number in range(8):
        site = Site(project, "prod", ["one"])
        site.carry_out(site.plan("promote", {"one": Goal(manifests[number % 2])}))
        proxy.forget()
        ledger = Ledger(project_at(tmp_path, server).store.objects)
        assert ledger.head(place).serial == number + 1
        counts.append(len(proxy.requests))
    assert max(counts) <= 5
    assert len(set(counts[1:])) == 1

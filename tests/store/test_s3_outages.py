"""promote and rollback with a sick S3 service: every request struck once, and the service gone for good."""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import test_s3_deploy as deploys

from shipway.registry.config.project import Project
from shipway.registry.errors import DeliveryError
from shipway.registry.verbs.rollback import rollback

pytestmark = pytest.mark.real
scene = deploys.scene
Counts = Callable[[str, int], None]
FAULTS: dict[str, dict[str, Any]] = {
    "answers 500": {"status": 500},
    "answers 503 SlowDown": {"status": 503, "code": "SlowDown"},
    "is slow": {"delay": 0.05, "rate": 1_000_000.0},
    "is cut off before its answer": {"lose": True},
    "is cut off in its answer": {"cut": 20},
    "gives wrong bytes": {"corrupt": 3},
    "gets wrong bytes": {"spoil": 5},
    "hangs up": {"drop": True},
}


@pytest.fixture(autouse=True)
def _no_mirror(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHIPWAY_MIRROR", "off")


def promote(project: Project, version: int) -> None:
    extra = {"weights.bin": bytes([version]) * 300_000}
    scene.put_live(project, scene.bundle(project, version, extra=extra))


def go_back(project: Project, version: int) -> None:
    rollback(project, "prod")


@pytest.mark.parametrize("fault", FAULTS)
def test_every_request_is_struck_once(
    fault: str, real_proxied: tuple[Any, Any], tmp_path: Path, record_counts: Counts
) -> None:
    proxy, server = real_proxied
    for number, (work, version) in enumerate([(promote, 1), (promote, 2), (go_back, 1)]):
        proxy.forget()
        planned = proxy.plan(**FAULTS[fault], each=True)
        work(deploys.project_at(tmp_path / str(number), server), version)  # a cache of its own
        proxy.forget()
        assert scene.live_versions(deploys.project_at(tmp_path, server)) == {"one": version, "two": version}
        assert planned.hits > 10
        record_counts(f"{named(work)} in S3: requests where the service {fault}", planned.hits)
    deploys.assert_sound(deploys.project_at(tmp_path, server))


EVERY = 4  # each takes three deployments; a kill before every write has tests of its own


@pytest.mark.parametrize("work", [promote, go_back])
def test_the_service_is_gone_from_a_request_on(
    work: Callable[[Project, int], None],
    real_proxied: tuple[Any, Any],
    tmp_path: Path,
    record_counts: Counts,
) -> None:
    """From the first request on, from the fifth, ...: until the command has no so many."""
    proxy, server = real_proxied
    at = functools.partial(deploys.project_at, tmp_path, server)
    gone = 0
    for gone in itertools.count():
        promote(at(), 1)
        promote(at(), 2)
        old, new = (2, 3) if work is promote else (2, 1)
        proxy.forget()
        dead = proxy.plan(drop=True, skip=EVERY * gone, times=10**6)
        with contextlib.suppress(DeliveryError):
            work(at(), new)
        proxy.forget()
        scene.assert_live_is_whole(at())
        assert set(scene.live_versions(at()).values()) <= {old, new}
        if not dead.hits:
            break
        promote(at(), new)  # and now all is well
        assert scene.live_versions(at()) == {"one": new, "two": new}
        deploys.assert_sound(at())
    record_counts(f"{named(work)} in S3: requests from which on the service was gone", gone)
    assert gone > 4


def named(work: Callable[[Project, int], None]) -> str:
    return "promote" if work is promote else "rollback"

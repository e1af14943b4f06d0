"""promote and rollback with a sick S3 service: every request is struck once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import test_s3_deploy as deploys

from shipway.registry.config.project import Project
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


def named(work: Callable[[Project, int], None]) -> str:
    return "promote" if work is promote else "rollback"

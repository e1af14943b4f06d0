"""Fixtures of the deployment tests. The folder joins the path, so that they share ``deploy_scene``."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from deploy_scene import project_at

from shipway.registry.config.project import Project


@pytest.fixture(autouse=True)
def _no_mirror(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test starts MLflow behind its own back; the mirror's tests set their own mode."""
    monkeypatch.setenv("SHIPWAY_MIRROR", "off")


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return project_at(tmp_path)

"""Fixtures of the deployment tests. The folder joins the path, so that they share ``deploy_scene``."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from deploy_scene import project_at

from shipway.registry.config.load import load_text
from shipway.registry.config.project import Project


@pytest.fixture(autouse=True)
def _no_mirror(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test starts MLflow behind its own back; the mirror's tests set their own mode."""
    monkeypatch.setenv("SHIPWAY_MIRROR", "off")


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return project_at(tmp_path)


@pytest.fixture
def plain(tmp_path: Path) -> Project:
    """Two environments, one after the other, without gates."""
    return load_text(
        """
project: scene
store: store
targets:
  one: {kind: jetson-ort}
  two: {kind: jetson-ort}
environments:
  staging:
    one: {to: out/staging/one}
  prod:
    after: staging
    one: {to: out/prod/one}
    two: {to: out/prod/two}
  lab:
    one: {to: out/lab/one}
""",
        tmp_path,
    )

"""A project with one small version in its store."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from shipway.registry.config.load import load_text
from shipway.registry.config.project import Project
from shipway.registry.nouns import ModelVersion

CONFIG = """
project: tests
store: {store}
targets:
  jetson: {{kind: jetson-ort}}
  mobile: {{kind: mobile-ort, size_limit: 20MB}}
  small: {{kind: mobile-ort, size_limit: 1kB}}
  half: {{kind: server-tensorrt, precision: fp16}}
"""


def _kinds() -> ModuleType:
    """The fixtures of the target kinds' tests, which make versions without registering them."""
    path = Path(__file__).parents[2] / "targets" / "kinds" / "conftest.py"
    spec = importlib.util.spec_from_file_location("shipway_tests_kinds", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


kinds = _kinds()


@dataclass
class Placed:
    """A project and the version ``tiny/1`` in its store; ``made`` makes more of it."""

    project: Project
    version: ModelVersion
    made: Any


@pytest.fixture
def placed(tmp_path: Path) -> Placed:
    made = kinds.make(tmp_path / "made")
    store = tmp_path / "made" / "store"
    return Placed(load_text(CONFIG.format(store=store), tmp_path), made.version, made)

"""Where ``runner.py`` has TensorRT keep its engines, so that who deploys builds them for the service."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Place = Callable[[Path], Path]


@pytest.fixture
def place(tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """The folder of engines that a bundle laid out at ``folder`` takes."""
    monkeypatch.delenv("SHIPWAY_ENGINES", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))

    def found(folder: Path) -> Path:
        if not folder.exists():
            tiny.export("jetson-ort", folder)
        spec = importlib.util.spec_from_file_location("bundled_runner", folder / "runner.py")
        assert spec is not None
        assert spec.loader is not None
        runner = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(runner)
        options = runner.Model(str(folder))._options({"options": {"trt_engine_cache_enable": 1}})
        return Path(options["trt_engine_cache_path"])

    return found


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """A release at a host's destination, by the link that its service opens."""
    (tmp_path / "to" / ".shipway").mkdir(parents=True)
    (tmp_path / "to" / "current").symlink_to("releases/tiny-1")
    return tmp_path / "to" / "releases" / "tiny-1"


def test_who_deploys_builds_beside_the_releases(place: Place, release: Path) -> None:
    shared = place(release)
    assert shared.parent == release.parents[1] / ".shipway" / "engines"
    assert shared.is_dir()
    assert place(release.parents[1] / "current") == shared


def test_a_service_begins_with_a_copy_and_keeps_its_own(
    place: Place, release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = place(release)
    (shared / "a.engine").write_text("built by the deployer")
    (shared / "a.profile").write_text("its shapes")
    monkeypatch.setenv("SHIPWAY_ENGINES", str(tmp_path / "service"))
    own = place(release)
    assert own == tmp_path / "service" / shared.name
    assert sorted(path.name for path in own.iterdir()) == ["a.engine", "a.profile"]
    (own / "a.engine").write_text("built anew by the service")
    (shared / "b.engine").write_text("of another TensorRT")
    assert place(release) == own
    assert (own / "a.engine").read_text() == "built anew by the service"
    assert (own / "b.engine").read_text() == "of another TensorRT"
    assert sorted(path.name for path in own.iterdir()) == ["a.engine", "a.profile", "b.engine"]
    assert (shared / "a.engine").read_text() == "built by the deployer"


def test_who_may_not_write_there_takes_a_copy_home(
    place: Place, release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = place(release)
    (shared / "a.engine").write_text("built by the deployer")
    monkeypatch.setattr("os.access", lambda *_: False)  # the user of the tests may write everywhere
    own = place(release)
    assert own == tmp_path / "home" / ".cache" / "shipway" / "engines" / shared.name
    assert (own / "a.engine").read_text() == "built by the deployer"


def test_where_there_is_no_destination_they_are_in_the_home(place: Place, tmp_path: Path) -> None:
    home = tmp_path / "home" / ".cache" / "shipway" / "engines"
    assert place(tmp_path / "bundle").parent == home
    (tmp_path / "to" / "releases").mkdir(parents=True)
    assert place(tmp_path / "to" / "releases" / "tiny-1").parent == home  # a folder on this machine
    assert not (tmp_path / "to" / ".shipway").exists()

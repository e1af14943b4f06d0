"""The verb ``bundle``: a version and a target of deploy.yaml to a bundle, in the store and in a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from shipway.registry.errors import (
    DeliveryError,
    IntegrityError,
    NotFoundError,
    UnsupportedModelError,
    UsageError,
)
from shipway.registry.nouns import Digest, File
from shipway.registry.verbs.bundle import build_bundle, build_bundles, export
from shipway.targets.manifest import Manifest


def blob(store: Any, file: File) -> Path:
    return Path(store.open(file))


def test_a_bundle_is_in_the_store_under_its_digest(placed: Any) -> None:
    manifest = build_bundle(placed.project, placed.version, "jetson")
    store = placed.project.store
    assert store.bundle(manifest.digest) == manifest
    assert (manifest.kind, manifest.model, manifest.version) == ("jetson-ort", "tiny", 1)
    assert manifest.tolerance == placed.project.config.convert.tolerance.value
    for file in manifest.files:
        assert blob(store, file).stat().st_size == file.size
    assert build_bundle(placed.project, placed.version, "jetson") == manifest


def test_bundles_built_side_by_side_are_those_built_alone(placed: Any) -> None:
    together = build_bundles(placed.project, placed.version, ["mobile", "jetson"])
    assert list(together) == ["mobile", "jetson"]
    for target, manifest in together.items():
        assert build_bundle(placed.project, placed.version, target) == manifest
        for file in manifest.files:
            assert Digest.of(blob(placed.project.store, file).read_bytes()) == file.digest
    assert build_bundles(placed.project, placed.version, ["jetson"]) == {"jetson": together["jetson"]}


def test_of_several_bundles_the_first_that_fails_is_told(placed: Any) -> None:
    with pytest.raises(NotFoundError, match="no fp16 form"):
        build_bundles(placed.project, placed.version, ["jetson", "half", "small"])


def test_a_precision_that_the_version_lacks_is_named(placed: Any) -> None:
    with pytest.raises(NotFoundError, match="tiny/1 has no fp16 form") as caught:
        build_bundle(placed.project, placed.version, "half")
    assert "fp32" in caught.value.why
    assert caught.value.remedy


def test_a_bundle_over_its_size_limit_is_refused(placed: Any) -> None:
    with pytest.raises(UnsupportedModelError, match=r"too large .* of 1\.0 kB"):
        build_bundle(placed.project, placed.version, "small")
    assert build_bundle(placed.project, placed.version, "mobile").kind == "mobile-ort"


def test_an_unknown_target_is_the_users_mistake(placed: Any) -> None:
    with pytest.raises(UsageError, match="no target 'fridge'"):
        build_bundle(placed.project, placed.version, "fridge")


def test_the_projects_templates_shape_the_bundle(placed: Any, tmp_path: Path) -> None:
    plain = build_bundle(placed.project, placed.version, "jetson")
    mine = tmp_path / "mine" / "jetson-ort"
    mine.mkdir(parents=True)
    (mine / "README.md.j2").write_text("# Ours: {{ name | code }}\n")
    config = placed.project.config.model_copy(update={"templates": Path("mine")})
    project = type(placed.project)(config, placed.project.root)
    manifest = build_bundle(project, placed.version, "jetson")
    readme = manifest.file("README.md")
    assert readme is not None
    assert blob(project.store, readme).read_text() == "# Ours: `tiny`\n"
    assert manifest.digest != plain.digest


@pytest.fixture
def manifest(placed: Any) -> Manifest:
    return build_bundle(placed.project, placed.version, "jetson")


def test_an_exported_bundle_is_a_copy_that_may_be_edited(
    placed: Any, manifest: Manifest, tmp_path: Path
) -> None:
    out = tmp_path / "new" / "out"
    export(placed.project.store, manifest, out)
    assert (out / "bundle.json").read_bytes() == manifest.to_bytes()
    for file in manifest.files:
        there = out / file.path
        assert there.read_bytes() == blob(placed.project.store, file).read_bytes()
        assert there.stat().st_nlink == 1
        assert there.stat().st_mode & 0o777 == (0o755 if file.path in manifest.executables else 0o644)
    assert [path.name for path in out.parent.iterdir()] == ["out"]  # nothing of the staging is left


def test_an_empty_folder_is_filled_and_a_full_one_left_alone(
    placed: Any, manifest: Manifest, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    export(placed.project.store, manifest, tmp_path / "empty")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for name in ("full", "file"):
        with pytest.raises(UsageError, match="not an empty folder"):
            export(placed.project.store, manifest, tmp_path / name)
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["mine"]


def test_a_damaged_store_gives_no_bundle(placed: Any, manifest: Manifest, tmp_path: Path) -> None:
    file = manifest.file("README.md")
    assert file is not None
    damaged = blob(placed.project.store, file)
    damaged.chmod(0o644)
    damaged.write_bytes(b"x")
    with pytest.raises(IntegrityError, match=r"README\.md"):
        export(placed.project.store, manifest, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".out*"))


def test_a_place_that_cannot_be_written_is_named(placed: Any, manifest: Manifest, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DeliveryError, match="can't be written") as caught:
        export(placed.project.store, manifest, tmp_path / "file" / "out")
    assert str(tmp_path / "file") in caught.value.why
    assert caught.value.remedy

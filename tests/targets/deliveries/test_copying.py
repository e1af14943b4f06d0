"""What is on disk when: all of a release before it gets its name, though none of its files is waited for."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path

import pytest
from records import pointer_to, release_of

from shipway.registry.store.folder import FolderObjects
from shipway.registry.store.store import Store
from shipway.targets.deliveries import copying
from shipway.targets.deliveries.folder import FolderDelivery
from shipway.targets.steps import Point, Release, Seal, Send, Stage

DEEP = "a/b/c/d/e/f/g/h/i/j/k"
CONTENTS = {"model/graph.onnx": b"graph" * 1000, "labels.txt": b"a\nb\n", DEEP: b"deep"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def release(tmp_path: Path) -> Release:
    return release_of(Store(FolderObjects(tmp_path / "store")), CONTENTS)


@pytest.fixture
def delivery(root: Path, tmp_path: Path) -> FolderDelivery:
    return FolderDelivery(root, Store(FolderObjects(tmp_path / "store")).open)


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """The inodes that were put on disk so far."""
    inodes: set[int] = set()
    real = os.fsync

    def noting(descriptor: int) -> None:
        real(descriptor)
        inodes.add(os.fstat(descriptor).st_ino)

    monkeypatch.setattr(os, "fsync", noting)
    return inodes


def _place(delivery: FolderDelivery, release: Release) -> None:
    sends = [Send(release, file) for file in release.manifest.files]
    for step in [Stage(release), *sends, Seal(release)]:
        delivery.perform(step)


def test_all_of_a_release_is_on_disk_before_it_gets_its_name(
    delivery: FolderDelivery,
    release: Release,
    root: Path,
    synced: set[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real, named = Path.rename, []

    def checking(path: Path, target: Path) -> Path:
        inside = [path, *path.rglob("*")]
        assert {path / DEEP, path / "model", path / "bundle.json"} <= set(inside)
        assert {one.stat().st_ino for one in inside} <= synced
        named.append(target.name)
        return real(path, target)

    monkeypatch.setattr(Path, "rename", checking)
    _place(delivery, release)
    assert named == [release.id]
    assert (root / "releases").stat().st_ino in synced


def test_a_file_that_replaces_a_damaged_one_is_on_disk_before_it_does(
    delivery: FolderDelivery,
    release: Release,
    root: Path,
    synced: set[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _place(delivery, release)
    damaged = root / "releases" / release.id / "model/graph.onnx"
    damaged.write_bytes(damaged.read_bytes().upper())
    real, replaced = Path.replace, []

    def checking(path: Path, target: Path) -> Path:
        assert path.stat().st_ino in synced
        replaced.append(target.name)
        return real(path, target)

    monkeypatch.setattr(Path, "replace", checking)
    delivery.perform(Seal(release))
    assert replaced == ["graph.onnx"]
    assert delivery.audit(release.manifest).whole


def test_the_pointer_is_on_disk_before_it_replaces_the_last_one(
    delivery: FolderDelivery,
    release: Release,
    root: Path,
    synced: set[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _place(delivery, release)
    synced.clear()
    real, replaced = Path.replace, []

    def checking(path: Path, target: Path) -> Path:
        assert path.stat().st_ino in synced
        assert root.stat().st_ino not in synced
        replaced.append(target.name)
        return real(path, target)

    monkeypatch.setattr(Path, "replace", checking)
    delivery.perform(Point(pointer_to(release)))
    assert replaced == ["current.json"]
    assert root.stat().st_ino in synced  # its name


@pytest.mark.parametrize("size", [3_000, 20_000_000])
def test_what_is_written_to_a_file_after_it_was_compared_is_found_out(
    tmp_path: Path, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(FolderObjects(tmp_path / "store"))
    release = release_of(store, {"model.onnx": bytes(size)})
    delivery, real, spoilt = FolderDelivery(tmp_path / "out", store.open), copying.same, []

    def late(one: Path, other: Path) -> bool:
        equal = real(one, other)
        if not spoilt:
            spoilt.append(other)
            with other.open("r+b") as stream:
                stream.write(b"other")
        return equal

    monkeypatch.setattr(copying, "same", late)
    _place(delivery, release)
    assert spoilt
    assert (delivery.root / "releases" / release.id / "model.onnx").read_bytes() == bytes(size)


def test_a_tree_with_links_is_put_on_disk_without_following_them(tmp_path: Path, synced: set[int]) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/file").write_bytes(b"x")
    (tmp_path / "elsewhere").write_bytes(b"y")
    (tmp_path / "tree/link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "tree/lost").symlink_to(tmp_path / "nowhere")
    copying.sync_tree(tmp_path / "tree")
    assert synced == {path.stat().st_ino for path in (tmp_path / "tree", tmp_path / "tree/file")}


@pytest.mark.parametrize("content", [b"", b"x", b"y" * 3_000_000])
def test_a_copy_needs_none_of_the_calls_that_make_it_faster(
    tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "source"
    source.write_bytes(content)
    copying.copy(source, tmp_path / "with", mode=0o600)
    monkeypatch.setattr(copying, "_system", lambda name: None)
    copying.copy(source, tmp_path / "without", mode=0o600)
    monkeypatch.setattr(copying, "_system", lambda name: lambda *arguments: -1)
    copying.copy(source, tmp_path / "refused", mode=0o600)
    for name in ("with", "without", "refused"):
        assert (tmp_path / name).read_bytes() == content


@pytest.mark.parametrize("content", [b"", b"x", b"y" * 3_000_000])
def test_a_copy_has_the_same_bytes_even_where_the_kernel_will_not_copy(
    tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "source"
    source.write_bytes(content)
    copying.copy(source, tmp_path / "kernel", mode=0o600)

    def refuse(*arguments: object) -> int:
        raise OSError(errno.EXDEV, "another file system")

    monkeypatch.setattr(os, "copy_file_range", refuse, raising=False)
    copying.copy(source, tmp_path / "python", mode=0o640)
    assert (tmp_path / "kernel").read_bytes() == (tmp_path / "python").read_bytes() == content
    assert (tmp_path / "python").stat().st_mode & 0o777 == 0o640


def test_a_pipe_in_a_tree_is_not_waited_for(tmp_path: Path, synced: set[int]) -> None:
    os.mkfifo(tmp_path / "pipe")
    with contextlib.suppress(OSError):  # whether one can be put on disk is the system's to say
        copying.sync_tree(tmp_path)

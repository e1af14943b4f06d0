"""Files appear whole or not at all."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from shipway.registry import files
from shipway.registry.nouns import Digest


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_replaced_file_is_never_seen_half_written(tmp_path: Path) -> None:
    path = tmp_path / "pointer.json"
    versions = [bytes([letter]) * 200_000 for letter in b"ab"]
    files.write_atomic(path, versions[0])
    stop = threading.Event()
    seen: set[bytes] = set()

    def read() -> None:
        while not stop.is_set():
            seen.add(path.read_bytes())

    reader = threading.Thread(target=read)
    reader.start()
    for turn in range(50):
        files.write_atomic(path, versions[turn % 2])
    stop.set()
    reader.join()
    assert seen <= set(versions)
    assert names(tmp_path) == ["pointer.json"]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a"
    files.write_atomic(path, b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        files.write_atomic(path, b"new")
    with pytest.raises(OSError, match="No space"):
        files.create_exclusive(tmp_path / "b", b"new")
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["a"]


def test_of_many_creators_one_wins(tmp_path: Path) -> None:
    path = tmp_path / "claims" / "00000001.json"
    barrier = threading.Barrier(8)
    won: list[int] = []

    def claim(number: int) -> None:
        barrier.wait()
        if files.create_exclusive(path, str(number).encode()):
            won.append(number)

    threads = [threading.Thread(target=claim, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [path.read_bytes()] == [str(number).encode() for number in won]
    assert names(path.parent) == [path.name]


def test_a_copy_with_other_bytes_than_expected_does_not_appear(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"x" * 3_000_000)
    target = tmp_path / "store" / "blob"
    with pytest.raises(ValueError, match="does not hold"):
        files.copy_atomic(source, target, expect=Digest.of(b"other"))
    assert names(target.parent) == []
    files.copy_atomic(source, target, expect=files.digest_of(source))
    assert target.read_bytes() == source.read_bytes()


@pytest.mark.parametrize(
    ("name", "inside"),
    [
        ("a", True),
        ("a/b", True),
        ("a/../b", True),
        ("../a", False),
        ("/a", False),
        ("a/../../b", False),
        ("a\\b", False),
        ("link/x", False),
        ("a\0", False),
    ],
)
def test_names_that_leave_the_folder_are_seen(tmp_path: Path, name: str, inside: bool) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "link").symlink_to("/")
    assert files.is_inside(root, name) is inside

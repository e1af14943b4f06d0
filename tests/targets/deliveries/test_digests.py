"""Digests that are remembered: never of a file that is not as it was."""

from __future__ import annotations

import errno
import os
import threading
import time
from pathlib import Path

import pytest

from shipway.registry import files
from shipway.registry.nouns import Digest
from shipway.targets.deliveries import copying
from shipway.targets.deliveries import digests as remembering
from shipway.targets.deliveries.digests import TICK_NS, Digests, set_back


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were read, in order."""
    read: list[Path] = []
    real = files.digest_of

    def counting(path: Path) -> Digest:
        read.append(path)
        return real(path)

    monkeypatch.setattr(files, "digest_of", counting)
    return read


def _settled(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    time.sleep(2 * TICK_NS / 1e9)
    return path


def test_a_file_that_stays_is_read_once(tmp_path: Path, reads: list[Path]) -> None:
    path, digests = _settled(tmp_path / "file", b"one"), Digests()
    assert digests.of(path) == digests.of(path) == Digest.of(b"one")
    assert reads == [path]


def test_a_change_is_seen_though_size_and_modification_time_are_as_before(tmp_path: Path) -> None:
    path, digests = _settled(tmp_path / "file", b"one"), Digests()
    digests.of(path)
    times = path.stat()
    path.write_bytes(b"two")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert digests.of(path) == Digest.of(b"two")


def test_what_was_written_just_now_is_read_each_time(tmp_path: Path, reads: list[Path]) -> None:
    path, digests = tmp_path / "file", Digests()
    for content in (b"one", b"two", b"six"):  # all within a tick
        path.write_bytes(content)
        assert digests.of(path) == Digest.of(content)
    assert len(reads) == 3


def test_what_is_known_is_not_read_until_it_changes(tmp_path: Path, reads: list[Path]) -> None:
    path, digests = _settled(tmp_path / "file", b"one"), Digests()
    digests.know(path, Digest.of(b"one"), path.lstat())
    assert digests.of(path) == Digest.of(b"one")
    assert reads == []
    path.chmod(0o600)
    assert digests.of(path) == Digest.of(b"one")
    assert reads == [path]


def test_what_was_written_just_now_can_not_be_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remembering, "TICK_NS", 3600 * 10**9)  # just now, however slow this machine is
    path, digests = tmp_path / "file", Digests()
    path.write_bytes(b"one")
    digests.know(path, Digest.of(b"other"), path.lstat())
    assert digests.of(path) == Digest.of(b"one")


def test_what_was_written_since_its_time_was_set_back_is_read(tmp_path: Path, reads: list[Path]) -> None:
    """However soon, and of whatever size; what stayed as it was is not read."""
    for size in (3, 20_000_000):
        path, digests = tmp_path / str(size), Digests()
        path.write_bytes(bytes(size))
        seen = set_back(path)
        digests.know(path, Digest.of(b"as it was told"), seen)
        assert digests.of(path) == Digest.of(b"as it was told")
        assert reads == []
        with path.open("r+b") as stream:
            stream.write(b"two")
        digests.know(path, Digest.of(b"as it was told"), seen)
        assert digests.of(path) == files.digest_of(path) != Digest.of(b"as it was told")
        reads.clear()


def test_where_no_time_can_be_set_what_is_young_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remembering, "TICK_NS", 3600 * 10**9)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "this share takes no times")

    monkeypatch.setattr(os, "utime", refuse)
    path, digests = tmp_path / "file", Digests()
    path.write_bytes(b"one")
    digests.know(path, Digest.of(b"other"), set_back(path))
    assert digests.of(path) == Digest.of(b"one")


def test_what_was_begun_ahead_is_read_once(tmp_path: Path, reads: list[Path]) -> None:
    path, digests = _settled(tmp_path / "file", bytes(20_000_000)), Digests()
    digests.ahead(path)
    assert digests.of(path) == Digest.of(bytes(20_000_000))
    digests.ahead(path)
    assert reads == [path]


def test_what_can_not_be_read_ahead_is_met_by_who_asks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, digests = _settled(tmp_path / "file", bytes(20_000_000)), Digests()

    def broken(path: Path) -> Digest:
        raise OSError(errno.EIO, "the disk is broken")

    monkeypatch.setattr(files, "digest_of", broken)
    digests.ahead(path)
    with pytest.raises(OSError, match="broken"):
        digests.of(path)
    for thread in threading.enumerate():
        if thread.name == "shipway-digest":
            thread.join()


def test_of_several_threads_one_reads(tmp_path: Path, reads: list[Path]) -> None:
    path, digests = _settled(tmp_path / "file", bytes(20_000_000)), Digests()
    found: list[Digest] = []
    threads = [threading.Thread(target=lambda: found.append(digests.of(path))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [Digest.of(bytes(20_000_000))] * 4
    assert reads == [path]


def test_a_file_that_is_gone_is_asked_for_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, digests = _settled(tmp_path / "file", b"one"), Digests()
    with monkeypatch.context() as patch:

        def gone(path: Path) -> Digest:
            raise FileNotFoundError(path)

        patch.setattr(files, "digest_of", gone)
        with pytest.raises(FileNotFoundError):
            digests.of(path)
    assert digests.of(path) == Digest.of(b"one")


@pytest.mark.parametrize("other", [b"", b"a", b"b" * (1 << 20), b"a" * (1 << 20) + b"b", b"a" * (2 << 20)])
def test_same_compares_every_byte(tmp_path: Path, other: bytes) -> None:
    for content in (b"", b"a", b"a" * (1 << 20), b"a" * ((1 << 20) + 1)):
        one, two = tmp_path / "one", tmp_path / "two"
        one.write_bytes(content)
        two.write_bytes(other)
        assert copying.same(one, two) == (content == other)

"""What a host takes in: hashed as it lies there, while it is written, and believed only while it stays so."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shipway.targets.deliveries.on_host import Host
from shipway.targets.deliveries.on_host_place import Refused
from shipway.targets.deliveries.on_host_wire import Wire

CONTENT = os.urandom(3_500_000)  # some pieces, and a part of one
SHA = hashlib.sha256(CONTENT).hexdigest()
MANIFEST = json.dumps(
    {"files": [{"path": "a/b", "sha256": SHA, "size": len(CONTENT)}], "executables": []}
).encode()
SEALED = {
    "release": "r",
    "sha": hashlib.sha256(MANIFEST).hexdigest(),
    "manifest": MANIFEST.decode(),
}


class Line(Wire):
    """Bytes that come from where the host says that it has got to; ``late`` is called before the last."""

    def __init__(self, content: bytes, late: Callable[[], object] = lambda: None) -> None:
        self.content = content
        self.at = 0
        self.late = late

    def say(self, answer: dict[str, Any], lead: str = "") -> None:
        self.at = answer["offset"]

    def bytes(self, most: int) -> bytes:
        given = self.content[self.at : self.at + min(most, 65_536)]
        self.at += len(given)
        if self.at == len(self.content):
            self.late()
        return given


def receive(root: Path, line: Line) -> Host:
    host = Host(str(root), line, "token")
    try:
        host.do_stage("r", [(SHA, len(CONTENT))])
        assert host.do_receive(SHA, len(CONTENT), release="r", path="a/b") == {}
    finally:
        host.let_go()
    return host


def seal(host: Host) -> dict[str, Any]:
    try:
        return host.do_seal(**SEALED)
    finally:
        host.let_go()


def part(root: Path) -> Path:
    return root / f".shipway/uploads/{SHA}.part"


def test_what_arrived_is_not_read_a_second_time(tmp_path: Path) -> None:
    host = receive(tmp_path, Line(CONTENT))
    assert list(host.digests.values()) == [SHA]
    assert seal(host) == {}
    sealed = tmp_path / "releases/r/a/b"
    assert sealed.read_bytes() == CONTENT
    assert host.digest(str(sealed)) == SHA
    assert list(host.digests.values()) == [SHA]  # known by the same times, under its new name


@pytest.mark.parametrize("size", [len(CONTENT), 10], ids=["altered", "cut"])
def test_what_is_altered_after_it_arrived_gets_no_name(size: int, tmp_path: Path) -> None:
    """However soon: in the same tick of the clock that stamps files."""
    host = receive(tmp_path, Line(CONTENT))
    staged = tmp_path / ".shipway/staging/r/a/b"
    with staged.open("r+b") as stream:
        stream.write(b"other")
        stream.truncate(size)
    assert seal(host) == {"wrong": ["a/b"]}
    assert not (tmp_path / "releases/r").exists()


def test_a_file_that_is_cut_while_it_arrives_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused) as caught:
        receive(tmp_path, Line(CONTENT, lambda: os.truncate(part(tmp_path), 10)))
    assert caught.value.answer["error"] == "digest"
    assert not part(tmp_path).exists()


def test_wrong_bytes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused):
        receive(tmp_path, Line(CONTENT[:-1] + bytes([CONTENT[-1] ^ 1])))
    assert not part(tmp_path).exists()


def begun(root: Path, content: bytes) -> None:
    part(root).parent.mkdir(parents=True)
    part(root).write_bytes(content)


def test_a_part_is_gone_on_with(tmp_path: Path) -> None:
    begun(tmp_path, CONTENT[:3_000_001])
    line = Line(b"x" * 3_000_001 + CONTENT[3_000_001:])  # what is there already is not asked for
    assert seal(receive(tmp_path, line)) == {}


@pytest.mark.parametrize("wrong", [b"x" * 1_000, CONTENT + b"more", b"x" * len(CONTENT)], ids=len)
def test_a_part_that_is_none_is_found_out(wrong: bytes, tmp_path: Path) -> None:
    begun(tmp_path, wrong)
    if wrong[: len(CONTENT)] == CONTENT:  # only too long
        assert seal(receive(tmp_path, Line(CONTENT))) == {}
        return
    with pytest.raises(Refused):
        receive(tmp_path, Line(CONTENT))
    assert not part(tmp_path).exists()
    assert seal(receive(tmp_path, Line(CONTENT))) == {}


def test_a_file_that_somebody_adds_to_while_it_arrives_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused):
        receive(tmp_path, Line(CONTENT, lambda: os.truncate(part(tmp_path), len(CONTENT) + 10)))


def test_each_rename_finds_on_disk_what_it_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that arrived, bundle.json, the release, what says of which deployment ``current`` is."""
    synced: set[int] = set()
    real, named = os.rename, []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.add(os.fstat(descriptor).st_ino))

    def checking(source: str, target: str) -> None:
        for path in [Path(source), *Path(source).rglob("*")]:
            assert path.is_symlink() or path.stat().st_ino in synced
        named.append(Path(target).name)
        real(source, target)

    monkeypatch.setattr(os, "rename", checking)
    host = receive(tmp_path, Line(CONTENT))
    assert seal(host) == {}
    try:
        host.do_point({"serial": 1, "release": "r"}, None)
    finally:
        host.let_go()
    assert named == [SHA, "b", "bundle.json", "r", "pointer.json", "current"]
    assert {path.stat().st_ino for path in (tmp_path, tmp_path / "releases")} <= synced

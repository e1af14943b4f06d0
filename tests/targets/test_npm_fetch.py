"""Fetching a pinned npm package: once, checked, then offline. npm here is a script that counts calls."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import tarfile
from pathlib import Path

import pytest

from shipway.registry.errors import ConfigError, DeliveryError, IntegrityError
from shipway.targets import npm

NAME, VERSION = "some-runtime", "1.2.3"


def package(path: Path, **contents: str) -> str:
    """Write a tarball as npm packs them; return its integrity."""
    with tarfile.open(path, "w:gz") as archive:
        for name, content in contents.items():
            member = tarfile.TarInfo(f"package/dist/{name}.js")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content.encode()))
    return f"sha512-{base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode()}"


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine whose npm packs ``published.tgz`` (and fails without it), with an empty cache."""
    folder = tmp_path / "bin"
    folder.mkdir()
    script = folder / "npm"
    script.write_text(
        f'#!/bin/sh\necho "$*" >> {tmp_path}/calls\n'
        f"cp {tmp_path}/published.tgz {NAME}-{VERSION}.tgz || {{ echo ENOTFOUND >&2; exit 1; }}\n"
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}/usr/bin{os.pathsep}/bin")
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    monkeypatch.setenv("SHIPWAY_CACHE", str(tmp_path / "cache"))
    return tmp_path


def calls(machine: Path) -> list[str]:
    log = machine / "calls"
    return log.read_text().splitlines() if log.exists() else []


def test_it_is_fetched_once_and_then_needs_no_network(machine: Path) -> None:
    integrity = package(machine / "published.tgz", a="one")
    first = npm.tarball(NAME, VERSION, integrity)
    (machine / "published.tgz").unlink()
    assert npm.tarball(NAME, VERSION, integrity) == first
    assert len(calls(machine)) == 1
    assert calls(machine)[0].startswith(f"pack {NAME}@{VERSION} --ignore-scripts")
    assert npm.read_members(first, ["dist/a.js"]) == {"dist/a.js": b"one"}


def test_a_broken_copy_in_the_cache_is_fetched_again(machine: Path) -> None:
    integrity = package(machine / "published.tgz", a="one")
    kept = npm.tarball(NAME, VERSION, integrity)
    kept.write_bytes(kept.read_bytes()[:-3])
    assert npm.read_members(npm.tarball(NAME, VERSION, integrity), ["dist/a.js"]) == {"dist/a.js": b"one"}
    assert len(calls(machine)) == 2


def test_another_package_under_the_name_is_refused_and_not_kept(machine: Path) -> None:
    expected = package(machine / "expected.tgz", a="one")
    package(machine / "published.tgz", a="evil")
    with pytest.raises(IntegrityError, match=f"is not {NAME} {VERSION}"):
        npm.tarball(NAME, VERSION, expected)
    assert not list((machine / "cache").rglob("*.tgz"))


def test_without_npm_the_remedy_names_both_ways_out(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(machine / "empty"))
    with pytest.raises(ConfigError, match="npm is not installed") as caught:
        npm.tarball(NAME, VERSION, "sha512-x")
    assert "Node.js" in caught.value.remedy
    assert "runtime_tarball" in caught.value.remedy


def test_without_a_network_npms_words_are_passed_on(machine: Path) -> None:
    with pytest.raises(DeliveryError, match=f"could not fetch {NAME}") as caught:
        npm.tarball(NAME, VERSION, "sha512-x")
    assert "ENOTFOUND" in caught.value.why


def test_a_cache_that_cannot_be_written_is_named(machine: Path) -> None:
    integrity = package(machine / "published.tgz", a="one")
    (machine / "cache").write_text("a file in the way")
    with pytest.raises(ConfigError, match="can't be kept") as caught:
        npm.tarball(NAME, VERSION, integrity)
    assert "SHIPWAY_CACHE" in caught.value.remedy


def test_a_local_tarball_needs_no_npm_but_the_same_integrity(machine: Path) -> None:
    local = machine / "local.tgz"
    integrity = package(local, a="one")
    assert npm.tarball(NAME, VERSION, integrity, local) == local
    assert not calls(machine)
    with pytest.raises(IntegrityError):
        npm.tarball(NAME, VERSION, "sha512-other", local)
    with pytest.raises(ConfigError, match="there is no file"):
        npm.tarball(NAME, VERSION, integrity, machine / "gone.tgz")


def test_a_package_that_lacks_a_file_is_refused_naming_it(tmp_path: Path) -> None:
    package(tmp_path / "x.tgz", a="one")
    with pytest.raises(IntegrityError, match=r"does not hold dist/b\.js"):
        npm.read_members(tmp_path / "x.tgz", ["dist/a.js", "dist/b.js"])

"""Fixtures of the tests over SSH. Their folder and that of the deployment tests join the path."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "registry" / "deploy"))

from ssh_hosts import Host, make_key, running


@pytest.fixture(autouse=True)
def _no_mirror(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test starts MLflow behind its own back."""
    monkeypatch.setenv("SHIPWAY_MIRROR", "off")


@pytest.fixture(autouse=True)
def _nobodys_home(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """No key, agent or configuration of whoever runs the tests."""
    monkeypatch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)


@pytest.fixture(scope="session")
def client_key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_key(tmp_path_factory.mktemp("keys") / "client")


@pytest.fixture(scope="session")
def sshd(tmp_path_factory: pytest.TempPathFactory, client_key: Path) -> Iterator[Host]:
    """One sshd for all tests that do nothing to it."""
    with running(tmp_path_factory.mktemp("sshd") / "host", client_key) as host:
        yield host


@pytest.fixture
def host(sshd: Host, tmp_path: Path) -> Host:
    """The same, with a destination of the test's own that is not there yet."""
    return Host(sshd.name, sshd.port, sshd.folder, tmp_path / "on the host", sshd.process)


@pytest.fixture
def known_hosts(host: Host, tmp_path: Path) -> Path:
    path = tmp_path / "known_hosts"
    path.write_text(host.known())
    return path

"""S3 services for tests: moto inside this process, and a real server of its own."""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

import pytest
from moto.server import ThreadedMotoServer
from ports import free_port

from shipway.registry.s3.bucket import Bucket, Patience, Service

ROOT = Path(__file__).resolve().parent.parent.parent
KEYS = {"AWS_ACCESS_KEY_ID": "tester", "AWS_SECRET_ACCESS_KEY": "a-secret-of-tests"}
"""What both services accept."""
HASTE = Patience(attempts=5, pause=0.01, longest_pause=0.05)
"""Five tries like everybody's, but no long pauses."""


def _load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        f"shipway_tests_{name}", Path(__file__).with_name(f"{name}.py")
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


faults = _load("faults")
sys.path.insert(0, str(Path(__file__).parent))

import mlflow_parts  # noqa: E402


@dataclass(frozen=True)
class S3Server:
    """A running service. ``bucket`` exists, is empty and belongs to one test."""

    endpoint: str
    bucket: str

    @property
    def service(self) -> Service:
        return Service(endpoint=self.endpoint)

    @property
    def address(self) -> tuple[str, int]:
        parts = urlsplit(self.endpoint)
        assert parts.hostname is not None
        assert parts.port is not None
        return parts.hostname, parts.port

    def keys(self, prefix: str = "") -> dict[str, int]:
        """Every key of the bucket below ``prefix``, with its size."""
        return dict(Bucket(self.bucket, self.service, HASTE).list(prefix))


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The tests' keys and nothing of this machine's: no configuration files, no metadata service."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "no-config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "no-credentials"))


@pytest.fixture(scope="session")
def moto_endpoint() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="session")
def real_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """versitygw over a temporary folder, on a free port of loopback."""
    program = subprocess.run(
        [ROOT / "tools" / "install-s3-server.sh"], check=True, capture_output=True, text=True
    ).stdout.strip()
    folder = tmp_path_factory.mktemp("s3")
    (folder / "data").mkdir()
    port = free_port()
    command = [
        program,
        "--quiet",
        "--keep-alive",
        "--port",
        f"127.0.0.1:{port}",
        "posix",
        str(folder / "data"),
    ]
    keys = {
        "ROOT_ACCESS_KEY": KEYS["AWS_ACCESS_KEY_ID"],
        "ROOT_SECRET_KEY": KEYS["AWS_SECRET_ACCESS_KEY"],
    }
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen(command, env={**os.environ, **keys}, stdout=log, stderr=log) as process,
    ):
        try:
            _wait_for(port, process, folder / "log")
            yield f"http://127.0.0.1:{port}"
        finally:
            process.kill()  # a polite end waits for clients that keep connections


def _wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + 120
    while time.monotonic() < end:
        assert process.poll() is None, log.read_text()
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise AssertionError(f"the S3 server does not answer:\n{log.read_text()}")


def _fresh_bucket(endpoint: str) -> S3Server:
    name = f"test-{uuid.uuid4()}"
    Bucket(name, Service(endpoint=endpoint), HASTE).call("create_bucket")
    return S3Server(endpoint, name)


@pytest.fixture
def moto_s3(moto_endpoint: str, credentials: None) -> S3Server:
    return _fresh_bucket(moto_endpoint)


@pytest.fixture
def real_s3(real_endpoint: str, credentials: None) -> S3Server:
    return _fresh_bucket(real_endpoint)


@pytest.fixture
def proxied(moto_s3: S3Server) -> Iterator[tuple[Any, S3Server]]:
    """A fault proxy (``faults.FaultProxy``) and the service moto as seen through it."""
    with faults.FaultProxy(*moto_s3.address) as proxy:
        yield proxy, S3Server(proxy.url, moto_s3.bucket)


@pytest.fixture
def real_proxied(real_s3: S3Server) -> Iterator[tuple[Any, S3Server]]:
    """The same in front of the real server."""
    with faults.FaultProxy(*real_s3.address) as proxy:
        yield proxy, S3Server(proxy.url, real_s3.bucket)


@pytest.fixture(scope="session")
def cluster() -> Iterator[mlflow_parts.Postgres]:
    """PostgreSQL, from Debian's package."""
    with mlflow_parts.postgres() as running:
        yield running


@pytest.fixture(scope="session")
def store_parts() -> ModuleType:
    """``faults.py``, for tests that put its proxy in front of something else."""
    return faults

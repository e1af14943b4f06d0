"""PostgreSQL and an MLflow server for tests, each a real process on loopback that ends with its ``with``."""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ports import free_port

USER = "postgres"


@dataclass(frozen=True)
class Postgres:
    """A running cluster whose only user has a password."""

    port: int
    password: str
    programs: Path

    def uri(self, database: str) -> str:
        """As MLflow takes it. The driver is named: SQLAlchemy 2.0 and 2.1 have different defaults."""
        return f"postgresql+psycopg2://{USER}:{self.password}@127.0.0.1:{self.port}/{database}"

    def psql(self, command: str, database: str = "postgres") -> str:
        """What an SQL command answers, a row a line."""
        return subprocess.run(
            [self.programs / "psql", "-h", "127.0.0.1", "-p", str(self.port), "-U", USER,
             "-d", database, "-v", "ON_ERROR_STOP=1", "-qAtc", command],
            check=True,
            capture_output=True,
            text=True,
            env={**os.environ, "PGPASSWORD": self.password},
        ).stdout  # fmt: skip


@contextlib.contextmanager
def postgres() -> Iterator[Postgres]:
    """A cluster of its own, owned by the account that Debian's package makes: PostgreSQL refuses root."""
    programs = max(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    account = pwd.getpwnam("postgres") if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())
    # Not below pytest's folder, which nobody else may enter.
    folder = Path(tempfile.mkdtemp(prefix="shipway-postgres-"))
    password = secrets.token_hex(8)
    (folder / "password").write_text(password)
    for path in (folder, folder / "password"):
        os.chown(path, account.pw_uid, account.pw_gid)
    port = free_port()

    as_owner: dict[str, Any] = {}
    if os.geteuid() == 0:
        as_owner = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}

    def start(program: str, *arguments: str) -> subprocess.Popen[bytes]:
        with (folder / "log").open("ab") as log:
            return subprocess.Popen(
                [programs / program, "-D", str(folder / "data"), *arguments],
                cwd=folder,
                env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"},
                stdout=log,
                stderr=log,
                **as_owner,
            )

    secret = ("-A", "scram-sha-256", "--pwfile", str(folder / "password"))
    try:
        assert start("initdb", "-U", USER, "-E", "UTF8", *secret).wait() == 0, (folder / "log").read_text()
        with start("postgres", "-h", "127.0.0.1", "-p", str(port), "-k", str(folder), "-F") as process:
            try:
                cluster = Postgres(port, password, programs)
                _wait_for_postgres(cluster, process, folder / "log")
                yield cluster
            finally:
                process.send_signal(signal.SIGQUIT)  # at once, its children too
    finally:
        shutil.rmtree(folder)


def _wait_for_postgres(cluster: Postgres, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + 120
    ready = [cluster.programs / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(cluster.port)]
    while subprocess.run(ready).returncode != 0:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.05)


@dataclass
class MlflowServer:
    """``mlflow server`` with a database and a place for artifacts; it can be killed and started again."""

    database: str  # a URI
    artifacts: str  # s3://bucket/prefix
    endpoint: str  # of the S3 service
    log: Path
    proxied: bool = True  # artifacts go through the server; else clients write to S3 themselves
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def command(self) -> list[str]:
        place = (
            ["--artifacts-destination"]
            if self.proxied
            else ["--no-serve-artifacts", "--default-artifact-root"]
        )
        return [
            str(Path(sys.executable).with_name("mlflow")), "server",
            "--backend-store-uri", self.database,
            *place, self.artifacts,
            "--host", "127.0.0.1", "--port", str(self.port), "--workers", "1",
        ]  # fmt: skip

    def start(self) -> None:
        """Start it and wait until it answers, which takes some seconds."""
        environment = {
            **os.environ,
            "MLFLOW_S3_ENDPOINT_URL": self.endpoint,
            "AWS_DEFAULT_REGION": "us-east-1",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # eight more processes that registering never uses
            "MLFLOW_DISABLE_TELEMETRY": "true",
        }
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command, env=environment, stdout=log, stderr=log, start_new_session=True
            )
        end = time.monotonic() + 300
        while not self.answers():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < end, self.log.read_text()
            time.sleep(0.1)

    def answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=30) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def kill(self) -> None:
        """Kill it and its workers: they are a process group of their own."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None

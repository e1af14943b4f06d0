"""The services that rows send to, on loopback and gone afterwards: an sshd and an S3 server."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from measure import FailedError
from scene import HERE

KEYS = {"AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "a-secret-of-benchmarks"}
S3_ENVIRONMENT = {
    **KEYS,
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
}


def installed(tool: str) -> Path:
    """The program that ``tools/install-TOOL.sh`` installs once. Raises FailedError with what it said."""
    script = HERE.parent / "tools" / f"install-{tool}.sh"
    done = subprocess.run([script], capture_output=True, text=True)
    if done.returncode:
        raise FailedError(f"{script.name}: {done.stderr.strip()[-2000:]}")
    return Path(done.stdout.strip())


@dataclass(frozen=True)
class S3:
    endpoint: str
    folder: Path  # its objects as files, below the bucket's name


@contextlib.contextmanager
def s3(folder: Path) -> Iterator[S3]:
    """versitygw over ``folder``, with an empty bucket called ``bench``."""
    program = installed("s3-server")
    (folder / "data" / "bench").mkdir(parents=True)
    port = _free_port()
    command = [program, "--quiet", "--keep-alive", "--port", f"127.0.0.1:{port}", "posix", folder / "data"]
    names = {"ROOT_ACCESS_KEY": "AWS_ACCESS_KEY_ID", "ROOT_SECRET_KEY": "AWS_SECRET_ACCESS_KEY"}
    environment = {**os.environ, **{theirs: KEYS[ours] for theirs, ours in names.items()}}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            _wait(process, folder / "log", lambda: _answers(port))
            yield S3(f"http://127.0.0.1:{port}", folder / "data" / "bench")
        finally:
            process.kill()
            process.wait()


@dataclass(frozen=True)
class Host:
    user: str
    port: int
    key: Path
    known_hosts: Path


@contextlib.contextmanager
def sshd(folder: Path) -> Iterator[Host]:
    """An sshd of our own that lets one new key in. Its ciphers and limits are OpenSSH's defaults."""
    program = installed("sshd")
    folder.mkdir(parents=True)
    for name in ("host", "client"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    shutil.copy(folder / "client.pub", folder / "authorized")
    port = _free_port()
    lines = {
        "Port": port,
        "ListenAddress": "127.0.0.1",
        "HostKey": folder / "host",
        "AuthorizedKeysFile": folder / "authorized",
        "PidFile": "none",
        "UsePAM": "no",
        "StrictModes": "no",
        "PermitRootLogin": "prohibit-password",
        "Subsystem": "sftp internal-sftp",
    }
    (folder / "config").write_text("".join(f"{key} {value}\n" for key, value in lines.items()))
    host_key = " ".join((folder / "host.pub").read_text().split()[:2])
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {host_key}\n")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    user = "root" if os.geteuid() == 0 else os.environ["USER"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([program, "-D", "-e", "-f", folder / "config"], stderr=log)
        try:
            _wait(process, folder / "log", lambda: _answers(port))
            yield Host(user, port, folder / "client", folder / "known_hosts")
        finally:
            process.terminate()
            process.wait()


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _wait(process: subprocess.Popen[bytes], log: Path, ready: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not ready():
        if process.poll() is not None or time.monotonic() > end:
            raise FailedError(f"{process.args!r} does not answer: {log.read_text(errors='replace')[-2000:]}")
        time.sleep(0.02)

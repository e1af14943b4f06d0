"""An arm64 host: a real sshd in the arm64 Debian that tools/install-arm64-root.sh makes, run by qemu-user.

What is written there lands in a layer of the test's own; mounts and processes end with the host.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ssh_hosts import Host, running

_ENTER = """
set -e
lower=$0 folder=$1; shift
mount -t overlay overlay -o "lowerdir=$lower,upperdir=$folder/layer,workdir=$folder/work" "$folder/world"
cd "$folder/world"
mount -t proc proc proc
mount --bind /sys sys
mount --rbind /dev dev
mkdir -p "./$folder/host" run/sshd
mount --bind "$folder/host" "./$folder/host"
exec chroot . "$@"
"""


def arm64_root() -> Path:
    cache = Path(os.environ.get("SHIPWAY_CACHE") or Path.home() / ".cache" / "shipway")
    root = cache / "arm64" / "root"
    assert root.is_dir(), "tools/install-real-parts.sh makes the arm64 root"
    return root


@contextlib.contextmanager
def arm64_host(folder: Path, client_key: Path, files: Mapping[str, str] | None = None) -> Iterator[Host]:
    """An sshd in there. Its own folder, the destination's root in it, has the same path on both sides.

    ``files``: contents of programs and others that the host has besides, by path from ``/``.
    """
    for name in ("layer", "work", "world"):
        (folder / name).mkdir(parents=True)
    for path, content in (files or {}).items():
        file = folder / "layer" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
        file.chmod(0o755)
    with running(folder / "host", client_key, within=_entering(folder)) as host:
        yield host


def inside(folder: Path, *command: str) -> str:
    """What a command prints there, run in a copy of ``folder``."""
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        for part in ("layer", "work", "world"):
            (home / part).mkdir()
        shutil.copytree(folder, home / "host")
        argv = [*_entering(home), "env", "-C", str(home / "host"), *command]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=600)
        assert done.stdout, f"exit {done.returncode}: {done.stderr}"
        return done.stdout


def _entering(folder: Path) -> list[str]:
    """A command that runs the one that follows it there, with ``folder/host`` at its own path."""
    world = ["unshare", "--mount", "--pid", "--fork", "--kill-child"]
    return [*world, "bash", "-c", _ENTER, str(arm64_root()), str(folder)]


def over_ssh(host: Host, key: Path, command: str, given: bytes = b"") -> bytes:
    """What a command prints there; OpenSSH's client runs it."""
    argv = ["ssh", "-F", "none", "-p", str(host.port), "-i", str(key), "-o", "BatchMode=yes"]
    argv += ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"]
    argv += [f"root@{host.name}", command]
    done = subprocess.run(argv, input=given, capture_output=True, check=False, timeout=300)
    assert done.stdout, done.stderr
    return done.stdout


def told(host: Host, key: Path, command: str) -> Any:
    """The one line of JSON that a command prints there."""
    (line,) = over_ssh(host, key, command).splitlines()
    return json.loads(line)

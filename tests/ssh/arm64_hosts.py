"""An arm64 host: a real sshd in the arm64 Debian that tools/install-arm64-root.sh makes, run by qemu-user.

What is written there lands in a layer of the test's own; mounts and processes end with the host.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

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
    world = ["unshare", "--mount", "--pid", "--fork", "--kill-child"]
    enter = ["bash", "-c", _ENTER, str(arm64_root()), str(folder)]
    with running(folder / "host", client_key, within=[*world, *enter]) as host:
        yield host

"""The program that runs on a host, ``on_host``, as it is sent there."""

from __future__ import annotations

import zlib
from functools import cache
from importlib import resources

# Its modules, in the order in which they import each other.
_HELPER = (
    "on_host_files",
    "on_host_place",
    "on_host_wire",
    "on_host_delta",
    "on_host_follower",
    "on_host_intake",
    "on_host",
)


@cache
def _source() -> str:
    """The helper's modules, each under the name by which the next one imports it."""
    package = "shipway.targets.deliveries"
    parts = ["import sys, types"]
    for name in _HELPER:
        text = resources.files(package).joinpath(f"{name}.py").read_text(encoding="utf-8")
        parts.append(f"module = sys.modules[{package + '.' + name!r}] = types.ModuleType({name!r})")
        parts.append(f"exec(compile({text!r}, {name!r}, 'exec'), module.__dict__)")
    return "\n".join(parts)


def program(folder: str, token: str) -> bytes:
    """The helper as it is sent: compressed, and started on its folder."""
    return zlib.compress(f"{_source()}\nmodule.main({folder!r}, {token!r})\n".encode(), 9)


def boot(helper: bytes) -> str:
    """The command that runs the ``helper``, which is to follow on its standard input."""
    # No word of it is anybody's input, and any login shell takes it.
    return f"python3 -IS -c 'import sys,zlib;exec(zlib.decompress(sys.stdin.buffer.read({len(helper)})))'"


def greeting() -> bytes:
    """How its first answer begins."""
    from shipway.targets.deliveries import on_host

    return on_host.MAGIC.encode()

"""The environments that the corpus is saved and converted with: pinned, made once in the cache folder."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from shipway.registry.convert import environment, toolchains

_LOCKS = Path(__file__).parent / "locks"
_PATIENCE = 3600.0  # seconds: some hundred MB are fetched the first time


@dataclass(frozen=True)
class Environment:
    """Named packages; ``locks`` are files of ``locks/``, together whole. Without any it is shipway's own."""

    name: str
    locks: tuple[str, ...] = ()

    def python(self) -> Path:
        """Its interpreter; made now, and told, where it is not there yet."""
        if not self.locks:
            return Path(sys.executable)
        locks = [_LOCKS / f"{lock}.txt" for lock in self.locks]
        name = f"corpus-{self.name}"
        if environment.python_of(name, locks) is None:
            print(f"preparing {self.name} in {environment.cache_folder()}", file=sys.stderr, flush=True)
        return environment.prepare(name, locks, _PATIENCE)


@dataclass(frozen=True)
class _Alone(Environment):
    """The toolchain that shipway itself keeps an environment for."""

    def python(self) -> Path:
        return environment.prepare(self.name)


@dataclass(frozen=True)
class Public:
    """A public toolchain: an environment and, where it is not left to paddle2onnx, the opset to ask for."""

    name: str
    environment: Environment
    opset: int | None = 17
    formats: tuple[str, ...] = (".pdmodel", ".json")


def _pair(paddle: str, paddle2onnx: str) -> Environment:
    locks = (f"paddlepaddle-{paddle}", f"paddle2onnx-{paddle2onnx}", "common")
    return Environment(f"paddle-{paddle}+paddle2onnx-{paddle2onnx}", locks)


_TODAY = _pair("3.3.1", "2.1.0")  # what pip install paddlepaddle paddle2onnx gives
SAVERS = {"2.6.2": Environment("paddle-2.6.2", ("paddlepaddle-2.6.2", "common-2.6")), "3.3.1": _TODAY}
"""The Paddles that users have, by version: one saves ``.pdmodel``, the other ``.json``."""

PLAIN = Public("plain", _TODAY, opset=None)

OTHERS = (
    Public("3.3.1 + 2.1.0", _TODAY),
    Public("3.3.1 + 2.0.1", _pair("3.3.1", "2.0.1")),
    Public("3.2.2 + 2.1.0", _pair("3.2.2", "2.1.0")),
    Public("3.2.2 + 2.0.1", Environment(toolchains.PAIR.name)),
    Public("3.0.0 + 2.0.1", _pair("3.0.0", "2.0.1")),
    Public("1.2.4 alone", _Alone(toolchains.ALONE.name), formats=(".pdmodel",)),
)
"""Pairs of paddlepaddle and paddle2onnx, and the last paddle2onnx that needs no Paddle. Asked for opset 17,
as shipway asks its own."""

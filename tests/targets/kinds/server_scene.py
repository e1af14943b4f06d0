"""The bundle's server as its own process, spoken to by plain HTTP."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

X = (np.arange(8, dtype=np.float32).reshape(2, 4) - 3) / 128


@dataclass
class Server:
    """A server that runs: where it is, and its process."""

    address: str
    process: subprocess.Popen[str]

    @property
    def host(self) -> str:
        """``127.0.0.1:8000``, as tritonclient takes it."""
        return self.address.removeprefix("http://")


@contextmanager
def serving(folder: Path, *arguments: str | Path, python: str | Path = sys.executable) -> Iterator[Server]:
    """The server of the bundle in ``folder``, on a free port, from when it is ready."""
    argv = [python, "-B", "serve.py", "--port", "0", *map(str, arguments)]
    with subprocess.Popen(argv, cwd=folder, stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout is not None
            yield Server(child.stdout.readline().split()[0].rpartition("/v2/")[0], child)
        finally:
            child.terminate()


def call(url: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes, dict[str, str]]:
    """Status, body and headers (names in lower case) of a GET, or of a POST where there is a body."""
    named = {key.replace("_", "-"): value for key, value in headers.items()}
    request = urllib.request.Request(url, body, named)
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return answer.status, answer.read(), {name.lower(): text for name, text in answer.headers.items()}
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read(), {name.lower(): text for name, text in error.headers.items()}


def infer_body(**changes: Any) -> bytes:
    """A request for the small model ``relu(x @ w)``, its tensor changed."""
    tensor = {"name": "x", "datatype": "FP32", "shape": [2, 4], "data": X.reshape(-1).tolist(), **changes}
    return json.dumps({"id": "7", "inputs": [tensor]}).encode()


def expected(weights: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.maximum(X @ weights, 0)


def weights_of(version: int) -> np.ndarray[Any, Any]:
    """Weights that tell one version from another in each output."""
    return np.abs(np.random.default_rng(version).normal(size=(4, 3))).astype(np.float32)

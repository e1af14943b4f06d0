"""Ctrl-C and SIGTERM in the middle of ``register``: it ends and leaves nothing, whoever swallows them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

Build = Callable[..., onnx.ModelProto]

CHILD = """
import contextlib, os, signal, sys
from shipway.registry.cli import app
from shipway.registry.convert import optimise

number, how = int(sys.argv[1]), sys.argv[2]
signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever runs the tests may have it ignored
slim = optimise.slim

def interrupted(model):
    try:
        os.kill(os.getpid(), number)
        signal.pause()
    except BaseException:
        if how == "raised":
            raise
        if how == "altered":  # as a compiled module does that is being imported
            raise ImportError("initialization failed")
    return slim(model)  # swallowed, as by a bare except

optimise.slim = interrupted
sys.argv = ["shipway", "register", "net.onnx", "--name", "net"]
raise SystemExit(app.main())
"""


@pytest.mark.parametrize("how", ["raised", "altered", "swallowed"])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_nothing_stays(tmp_path: Path, mlp: Build, number: int, code: int, how: str) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    onnx.save(mlp(), tmp_path / "net.onnx")
    (tmp_path / "deploy.yaml").write_text("project: demo\n")
    run = subprocess.run(
        [sys.executable, "-c", CHILD, str(int(number)), how],
        cwd=tmp_path,
        env={**os.environ, "TMPDIR": str(scratch)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert run.returncode == code, run.stderr
    assert "Interrupted." in run.stderr
    assert "Traceback" not in run.stderr
    assert list(scratch.iterdir()) == []
    kept = [path.name for path in (tmp_path / ".shipway").rglob("*") if path.is_file()]
    assert [name for name in kept if not name.startswith("mlflow.db")] == []

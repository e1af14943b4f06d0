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
import signal, sys, threading, time
from shipway.registry.cli import app
from shipway.registry.convert import optimise
from shipway.registry.verify import chain

number, how = int(sys.argv[1]), sys.argv[2]
signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever runs the tests may have it ignored
golden_set = chain.golden_set

def interrupted(*given, **options):
    try:
        signal.raise_signal(number)
        time.sleep(60)
    except BaseException:
        if how == "raised":
            raise
        if how == "altered":  # as a compiled module does that is being imported
            raise ImportError("initialization failed")
    else:
        raise SystemExit("no interrupt came")
    return golden_set(*given, **options)  # swallowed, as by a bare except

chain.golden_set = interrupted
optimise.slim = lambda model: threading.Event().wait()  # whoever goes on finds nobody to wait for
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

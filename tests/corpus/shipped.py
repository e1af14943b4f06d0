"""Register a model of the corpus by shipway's own command line, in a scratch project; fetch the result."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

_SECONDS = 600
_CONFIG = """project: corpus
registry: sqlite:///.shipway/mlflow.db
store: .shipway/store
targets: {}
environments: {}
"""


def project(home: Path) -> Path:
    """A project without targets, so that the opset is the one that every runtime has, in an empty folder."""
    (home / "deploy.yaml").write_text(_CONFIG)
    return home


def shipway(home: Path, *words: str | Path) -> tuple[int, dict[str, Any]]:
    """Run a command; its exit code and its JSON."""
    command = [Path(sys.executable).with_name("shipway"), *words, "--json"]
    done = subprocess.run(
        command,
        cwd=home,
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        env={**os.environ, "SHIPWAY_MIRROR": "off"},
    )
    try:
        told: dict[str, Any] = json.loads(done.stdout)
    except ValueError:  # a bug: no JSON, a traceback
        told = {"error": {"kind": "bug", "exit": done.returncode, "what": done.stderr[-2000:], "why": ""}}
    return done.returncode, told


def register(home: Path, folder: Path) -> dict[str, Any]:
    """Register the model in ``folder`` on its own inputs, and put the ONNX model that came out in
    ``folder/shipway``. What ``register --json`` said."""
    out, samples = folder / "shipway", folder / "shipway" / "samples"
    shutil.rmtree(out, ignore_errors=True)
    samples.mkdir(parents=True)
    for path in sorted(folder.glob("inputs-*.npz")):
        shutil.copyfile(path, samples / path.name)
    code, told = shipway(home, "register", _model(folder), "--name", folder.name, "--samples", samples)
    result: dict[str, Any] = {"answer": "registered"}
    if code == 0:
        _, shown = shipway(home, "show", f"{folder.name}/{told['version']}")
        for file in shown["variants"][0]["files"]:
            digest = file["sha256"]
            blob = home / ".shipway/store/blobs/sha256" / digest[:2] / digest
            shutil.copyfile(blob, out / file["path"])
    else:
        result = {"error": f"exit {code}: {told['error']['what']}"}
    (out / "result.json").write_text(json.dumps(result))
    (out / "told.json").write_text(json.dumps(told))
    return told


def register_bare(home: Path, folder: Path) -> dict[str, Any]:
    """Register the model in ``folder`` without samples, as a user first would. What ``--json`` said."""
    _, told = shipway(home, "register", _model(folder), "--name", f"{folder.name}-bare")
    return told


def _model(folder: Path) -> Path:
    (model,) = (path for path in folder.glob("inference.*") if path.suffix in (".json", ".pdmodel"))
    return model

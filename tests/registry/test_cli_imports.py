"""What each command imports: nothing heavy that it does not need, because importing is most of its time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = frozenset(
    [
        "mlflow",
        "paddle",
        "paddle2onnx",
        "onnx",
        "onnxruntime",
        "onnxslim",
        "numpy",
        "pandas",
        "boto3",
        "sqlalchemy",
        "alembic",
        "jinja2",
        "rich",
        "netron",
        "asyncio",
        "multiprocessing",
        "urllib3",
        "requests",
    ]
)

PROJECT = """\
project: acme
targets:
  browser: {kind: browser-wasm}
  server: {kind: server-tensorrt}
environments:
  prod:
    browser: {to: ./deployed/browser}
    server: {to: ./deployed/server}
"""

SCRIPT = """\
import sys, json
before = set(sys.modules)
from shipway.registry.cli.app import main
code = main(sys.argv[1:])
names = sorted({name.partition(".")[0] for name in set(sys.modules) - before})
sys.stderr.write("\\n" + json.dumps([code, names]))
"""


def imported(folder: Path, *arguments: str) -> tuple[int, set[str]]:
    """The exit code of a command, and the top-level modules that it imported."""
    command = [sys.executable, "-c", SCRIPT, *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    code, names = json.loads(done.stderr.splitlines()[-1])
    return code, set(names)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "deploy.yaml").write_text(PROJECT)
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ("schema", 0),
        ("status", 0),
        ("status --json", 0),
        ("history", 0),
        ("rollback --env prod", 6),
        ("rollback --env nowhere", 2),
        ("doctor", 0),
        ("status --config nothing.yaml", 3),
    ],
)
def test_commands_that_must_not_wait_import_nothing_heavy(folder: Path, arguments: str, code: int) -> None:
    found, names = imported(folder, *arguments.split())
    assert found == code
    assert not names & HEAVY


@pytest.mark.parametrize(
    ("arguments", "code"), [("--help", 0), ("", 2), ("promote --help", 0), ("nonsense", 2), ("--version", 0)]
)
def test_help_and_wrong_usage_do_not_even_read_yaml(folder: Path, arguments: str, code: int) -> None:
    found, names = imported(folder, *arguments.split())
    assert found == code
    assert not names & HEAVY
    assert "yaml" not in names


def test_init_needs_no_project(tmp_path: Path) -> None:
    code, names = imported(tmp_path, "init", "new")
    assert code == 0
    assert not names & HEAVY
    assert "yaml" not in names


def test_status_and_rollback_do_not_import_the_kinds(folder: Path) -> None:
    listing = (
        "import sys; from shipway.registry.cli.app import main; main(sys.argv[1:]);"
        "sys.stderr.write('\\n'.join(sys.modules))"
    )
    for arguments in (["status"], ["history"], ["rollback", "--env", "prod"], ["versions"]):
        command = [sys.executable, "-c", listing, *arguments]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
        kinds = {"shipway.targets.browser_wasm", "shipway.targets.server_tensorrt"}
        assert not kinds & set(done.stderr.splitlines()), arguments

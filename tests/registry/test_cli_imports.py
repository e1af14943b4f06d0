"""What each command imports: nothing heavy that it does not need, because importing is most of its time."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import records

from shipway.registry.config.load import load

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

PLUGINS = frozenset(["zipfile", "email"])
"""What ``importlib.metadata`` brings along: pydantic looks for plugins with it, we for target kinds."""

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


TERMINAL = "import sys; sys.stdout.isatty = lambda: True\n"


def imported(folder: Path, *arguments: str, script: str = SCRIPT) -> tuple[int, set[str]]:
    """The exit code of a command, and the top-level modules that it imported."""
    command = [sys.executable, "-c", script, *arguments]
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


@pytest.mark.parametrize(
    "arguments", ["--help", "nonsense", "status", "history", "status --config nothing.yaml"]
)
def test_what_needs_no_kind_looks_for_no_plugins(folder: Path, arguments: str) -> None:
    _, names = imported(folder, *arguments.split())
    assert not names & (PLUGINS | {"concurrent"})


WALK = (
    ("versions ocr", 0, set()),
    ("show ocr/1", 0, set()),
    ("diff ocr/1 ocr/2", 0, set()),
    ("plan ocr/1 --to prod --target server", 0, {"jinja2"}),  # renders a bundle
    ("promote ocr/1 --to prod --target server", 0, set()),  # finds that bundle in the store
    ("promote ocr/2 --to prod --target server", 0, {"jinja2"}),
    ("status", 0, set()),
    ("rollback --env prod --target server", 0, set()),
    ("history --json", 0, set()),
    ("bundle ocr/1 --target server --out look", 0, set()),
    ("verify look --digests-only", 0, set()),
    ("verify ocr/1", 4, {"numpy", "onnxruntime"}),  # runs the model, which is none
)


def test_commands_that_work_import_what_their_work_needs(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One after the other in one project: a bundle that the store has needs no renderer."""
    monkeypatch.setenv("SHIPWAY_MIRROR", "off")
    store = load(folder / "deploy.yaml").store
    for number in (1, 2):
        records.registered(store, number)
    found = [(words, *imported(folder, *words.split())) for words, _, _ in WALK]
    assert [(words, code, names & HEAVY) for words, code, names in found] == list(WALK)


NOTED = """\
import os, sys
def note(event, arguments, known=frozenset(os.environ["NOTED"].split()), seen=set()):
    if event == "import" and arguments[0] in known - seen:
        seen.add(arguments[0])
        with open(os.path.join(os.environ["NOTES"], f"{os.getppid()}-{os.getpid()}"), "a") as notes:
            notes.write(arguments[0] + "\\n")
sys.addaudithook(note)
"""
"""Python reads this at its start, in children too: a file for each process that imports something heavy."""


def test_what_makes_versions_leaves_paddle_and_mlflow_to_children(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ppocr_models: dict[str, Path]
) -> None:
    """``register`` and ``ship``, ``inspect`` with a Netron that draws nothing; ``mirror``."""
    stand_ins, notes = tmp_path / "stand-ins", tmp_path / "notes"
    stand_ins.mkdir()
    (stand_ins / "sitecustomize.py").write_text(NOTED)
    (stand_ins / "netron.py").write_text("def start(path, browse): pass\ndef wait(): pass\n")
    monkeypatch.setenv("PYTHONPATH", str(stand_ins))
    monkeypatch.setenv("NOTES", str(notes))
    monkeypatch.setenv("NOTED", " ".join(HEAVY))
    monkeypatch.setenv("SHIPWAY_MIRROR", "off")
    model = str(ppocr_models["cls"])

    def run(*words: str, script: str = SCRIPT) -> tuple[set[str], list[set[str]]]:
        """What the command's own process imports, and each of its children."""
        shutil.rmtree(notes, ignore_errors=True)
        notes.mkdir()
        code, names = imported(folder, *words, script=script)
        assert code == 0
        below = [path for path in notes.iterdir() if not path.name.startswith(f"{os.getpid()}-")]
        return names & HEAVY, [set(path.read_text().split()) for path in below]

    own, children = run("register", model, "--name", "ocr")
    assert own >= {"numpy", "onnx", "onnxruntime"}
    assert not own & {"paddle", "mlflow", "sqlalchemy", "pandas", "boto3", "netron"}
    apart = sorted(" ".join(sorted(names & {"paddle", "mlflow"})) for names in children)
    assert apart == ["mlflow", "paddle"]
    assert run("register", model, "--name", "ocr") == (set(), [])  # the same again
    assert run("ship", model, "--name", "ocr", "--to", "prod", "--target", "server") == ({"jinja2"}, [])
    assert run("inspect", "ocr/1", script=TERMINAL + SCRIPT) == ({"netron"}, [])
    own, children = run("mirror")
    assert "mlflow" in own
    assert not own & {"paddle", "onnx", "onnxruntime", "onnxslim", "boto3", "netron"}
    assert not children


@pytest.mark.parametrize("words", ["status --env ", "promote rec/", "rollback --env prod --target "])
def test_completion_imports_nothing_heavy(folder: Path, words: str) -> None:
    """As the shell asks: typer's own variables say what was typed so far."""
    asked = {"_SHIPWAY_COMPLETE": "complete_bash", "COMP_WORDS": f"shipway {words}"}
    asked["COMP_CWORD"] = str(len(f"shipway {words}".split(" ")) - 1)
    script = SCRIPT.replace(
        "code = main(sys.argv[1:])", "code = None\ntry:\n main()\nexcept SystemExit: pass"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=True, env={**os.environ, **asked}
    )
    offered, names = done.stdout.split(), set(json.loads(done.stderr.splitlines()[-1])[1])
    assert offered == {"status --env ": ["prod"], "promote rec/": []}.get(words, ["browser", "server"])
    assert not names & HEAVY


WATCHED = """
import os, sys
import shipway.registry.verbs.status as verb
from shipway.registry.cli.app import main
real = verb.status
def status(*arguments):
    sys.stderr.write("seen: %s\\n" % os.environ.get("PYDANTIC_DISABLE_PLUGINS"))
    return real(*arguments)
verb.status = status
sys.exit(main(["status"]))
"""


@pytest.mark.parametrize("value", [None, "mine"])
def test_pydantics_plugins_are_left_alone_while_a_command_works(folder: Path, value: str | None) -> None:
    """A gate's program, say, inherits the environment that the user gave to shipway."""
    given = {key: kept for key, kept in os.environ.items() if key != "PYDANTIC_DISABLE_PLUGINS"}
    given |= {"PYDANTIC_DISABLE_PLUGINS": value} if value else {}
    command = [sys.executable, "-c", WATCHED]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True, env=given)
    assert f"seen: {value}\n" in done.stderr


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

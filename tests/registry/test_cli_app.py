"""The command line as a user meets it: exit codes, one JSON document, words on errors."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from shipway.registry import errors
from shipway.registry.cli import app, failures
from shipway.registry.observe import SILENT

PROJECT = """\
project: acme
targets:
  browser: {kind: browser-wasm}
environments:
  prod:
    browser: {to: ./deployed}
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a deploy.yaml, made the current one."""
    (tmp_path / "deploy.yaml").write_text(PROJECT)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def document(capsys: pytest.CaptureFixture[str]) -> Any:
    """The one JSON document on stdout."""
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("given", "hoisted"),
    [
        (["status", "--json"], ["--json", "status"]),
        (
            ["status", "--config", "x.yaml", "--env", "prod"],
            ["--config", "x.yaml", "status", "--env", "prod"],
        ),
        (["show", "--config=x.yaml", "a/1", "-q"], ["--config=x.yaml", "-q", "show", "a/1"]),
        (["--json", "show", "--", "--json"], ["--json", "show", "--", "--json"]),
        (["status", "--config"], ["--config", "status"]),
        ([], []),
    ],
)
def test_global_options_may_stand_after_the_command(given: list[str], hoisted: list[str]) -> None:
    assert app.hoist(given) == hoisted


FAMILIES = {
    errors.UsageError: 2,
    errors.ConfigError: 3,
    errors.ConversionError: 4,
    errors.UnsupportedModelError: 4,
    errors.VerificationError: 5,
    errors.NotFoundError: 6,
    errors.ConflictError: 7,
    errors.DeliveryError: 8,
    errors.IntegrityError: 9,
}


def test_every_family_of_errors_has_its_exit_code() -> None:
    def subclasses(family: type[errors.ShipwayError]) -> set[type[errors.ShipwayError]]:
        return {family}.union(*(subclasses(each) for each in family.__subclasses__()))

    ours = {each for each in subclasses(errors.ShipwayError) if each.__module__ == errors.__name__}
    assert ours - {errors.ShipwayError} == set(FAMILIES)
    for family, code in FAMILIES.items():
        assert failures.family(family("x")).exit == code


def _raise(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def verb(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("shipway.registry.verbs.history.history", verb)


@pytest.mark.parametrize("family", FAMILIES)
def test_an_error_is_what_why_and_what_to_do(
    family: type[errors.ShipwayError],
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    _raise(monkeypatch, family("It failed.", why="One cause.\nAnother.", remedy="Mend it."))
    assert app.main(["history"]) == FAMILIES[family]
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == "Error: It failed.\n  One cause.\n  Another.\n  Mend it.\n"


def test_an_error_as_json_is_one_document(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _raise(monkeypatch, errors.ConflictError("Busy.", why="Somebody deploys.", remedy="Wait."))
    assert app.main(["history", "--json"]) == 7
    assert document(capsys) == {
        "error": {
            "kind": "conflict",
            "exit": 7,
            "what": "Busy.",
            "why": "Somebody deploys.",
            "remedy": "Wait.",
        }
    }


def test_a_bug_is_a_traceback_and_exit_1(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _raise(monkeypatch, RuntimeError("oops"))
    assert app.main(["history", "--json"]) == 1
    said = capsys.readouterr()
    assert "Traceback" in said.err
    assert "oops" in said.err
    assert json.loads(said.out)["error"]["kind"] == "bug"


def test_escape_sequences_in_errors_are_shown_and_not_sent(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _raise(monkeypatch, errors.NotFoundError("no \x1b[2J模型"))
    app.main(["history"])
    assert "\\x1b[2J模型" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["statu"],
        ["status", "--nonsense"],
        ["promote", "a/1"],
        ["promote", "a/b/c", "--to", "prod"],
        ["show", "../x/1"],
        ["rollback", "--env", "nowhere"],
        ["rollback", "--env", "prod", "--to-version", "one"],
        ["history", "--limit", "0"],
        ["history", "--target", "nothing"],
        ["diff", "a/1"],
        ["inspect", "a/1"],
    ],
    ids=" ".join,
)
def test_wrong_usage_ends_with_2_and_changes_nothing(
    arguments: list[str], project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(project.rglob("*"))
    assert app.main([*arguments, "--json"]) == 2
    error = document(capsys)["error"]
    assert (error["kind"], error["exit"]) == ("usage", 2)
    assert error["what"]
    assert error["remedy"]
    assert app.main(arguments) == 2
    assert capsys.readouterr().out == ""
    assert sorted(project.rglob("*")) == before


@pytest.mark.parametrize("command", ["status", "history", "versions", "mirror"])
def test_a_wrong_deploy_yaml_ends_with_3(
    command: str, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "deploy.yaml").write_text("project: acme\nstor: x\n")
    assert app.main([command, "--json"]) == 3
    assert document(capsys)["error"]["what"].startswith("deploy.yaml:2: stor: unknown key")


def test_no_deploy_yaml_ends_with_3(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert app.main(["status"]) == 3
    assert "shipway init" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_config_names_another_file(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "sub").mkdir()
    (project / "deploy.yaml").rename(project / "sub" / "other.yaml")
    assert app.main(["status", "--config", "sub/other.yaml", "--json"]) == 0
    assert list(document(capsys)["environments"]["prod"]) == ["browser"]


def test_an_empty_project_has_answers(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert app.main(["status", "--json"]) == 0
    status = document(capsys)["environments"]["prod"]["browser"]
    for name in ("model", "version", "bundle", "serial", "since", "outcome", "healthy", "rollback_to"):
        assert not status[name]
    assert app.main(["history", "--json"]) == 0
    assert document(capsys) == {"events": []}
    assert app.main(["versions", "--json"]) == 0
    assert document(capsys) == {"versions": []}
    assert app.main(["rollback", "--env", "prod"]) == 6
    assert "nothing to roll back to" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["show", "no/1"], ["diff", "no/1", "no/2"], ["versions", "no"]])
def test_what_is_not_registered_ends_with_6(
    command: list[str], project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert app.main([*command, "--json"]) == 6
    assert document(capsys)["error"]["kind"] == "not-found"


COMMANDS = [
    *("init", "register", "ship", "versions", "show", "diff", "bundle", "plan", "promote", "rollback"),
    *("status", "history", "mirror", "verify", "inspect", "doctor", "schema"),
]


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("shipway 0.")
    assert app.main(["--help"]) == 0
    listed = capsys.readouterr().out
    assert re.findall(r"^  ([a-z]+)  ", listed.partition("Commands:")[2], re.MULTILINE) == COMMANDS
    for command in COMMANDS:
        assert app.main([command, "--help"]) == 0
        assert "Usage: shipway " + command in capsys.readouterr().out


def test_help_is_whole_where_the_terminal_is_narrow(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "45")
    assert app.main(["--help"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "..." not in told.partition("Commands:")[2]
    assert "register Turn a trained model into a verified version." in told


def test_quiet_and_not_a_terminal_mean_no_progress(capsys: pytest.CaptureFixture[str]) -> None:
    from shipway.registry.cli.progress import observing

    with observing(quiet=True) as observer:
        assert observer is SILENT
    with observing(quiet=False) as observer, observer.phase("copy", 10) as phase:
        phase.advance(5)
        observer.note("took \x1b[31mlong")
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "took \\x1b[31mlong\n")


def test_ctrl_c_ends_with_130(project: Path) -> None:
    waiting = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # under nohup it is ignored
        "from shipway.registry.verbs import history\n"
        "def wait(*a, **k):\n    print('ready', file=sys.stderr, flush=True)\n    time.sleep(60)\n"
        "history.history = wait\n"
        "from shipway.registry.cli.app import main\n"
        "sys.exit(main(['history', '--json']))\n"
    )
    child = subprocess.Popen([sys.executable, "-c", waiting], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert child.stderr is not None
    assert child.stderr.readline() == b"ready\n"
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=120)
    assert child.returncode == 130
    assert json.loads(out)["error"]["kind"] == "interrupted"
    assert b"Traceback" not in err


def test_a_reader_that_went_away_is_no_traceback(project: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    command = [
        sys.executable,
        "-c",
        "import sys; from shipway.registry.cli.app import main; sys.exit(main())",
    ]
    done = subprocess.run([*command, "schema"], stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    assert done.returncode == 141
    assert done.stderr == b""


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["versions"], 74, "The result can't be written to stdout: No space left on device."),
        (["versions", "--json"], 74, "The result can't be written to stdout: No space left on device."),
        (["show", "nothing/1", "--json"], 6, "There is no nothing/1."),
    ],
)
def test_a_full_disk_under_stdout_is_no_bug(
    project: Path, arguments: list[str], code: int, said: str
) -> None:
    script = "import sys; from shipway.registry.cli.app import main; sys.exit(main())"
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-c", script, *arguments], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == code
    assert done.stderr.splitlines()[0] == f"Error: {said}"
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr


def test_json_is_json_where_the_locale_has_no_utf_8(project: Path) -> None:
    (project / "部署.yaml").write_text(PROJECT.replace("acme", "acme"))
    # Names of files are UTF-8, whatever the locale of whoever runs the tests; what is printed is not.
    environment = {**os.environ, "LC_ALL": "C.UTF-8", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    script = "import sys; from shipway.registry.cli.app import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", script, "status", "--json", "--config", "部署.yam"],
        env=environment,
        capture_output=True,
    )
    assert done.returncode == 3
    assert json.loads(done.stdout)["error"]["what"] == "部署.yam: there is no such file."


def test_progress_waits_before_it_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    from shipway.registry.cli import progress

    class Terminal:
        """stderr of a terminal, as far as is asked here."""

        text = ""

        def isatty(self) -> bool:
            return True

        def write(self, text: str) -> int:
            self.text += text
            return len(text)

        def flush(self) -> None:
            pass

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(progress, "PATIENCE_S", 600.0)
    with progress.observing(quiet=False) as observer, observer.phase("quick"):
        pass
    assert terminal.text == ""
    monkeypatch.setattr(progress, "PATIENCE_S", 0.05)
    with progress.observing(quiet=False) as observer, observer.phase("send 模型", 100) as phase:
        deadline = time.monotonic() + 60
        while "send 模型" not in terminal.text:
            assert time.monotonic() < deadline
            phase.advance()
            time.sleep(0.02)
        observer.note("a note")
    assert "a note" in terminal.text

"""``approve: true``: who is asked what, and that nothing happens without a yes."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from deploy_scene import files_of, live_versions
from version_scene import register

from shipway.registry.cli.app import main
from shipway.registry.config.load import load_text
from shipway.registry.config.project import Project
from shipway.registry.errors import ConflictError, UsageError
from shipway.registry.ledger import owner
from shipway.registry.nouns import ModelRef
from shipway.registry.verbs.history import history
from shipway.registry.verbs.plan import plan
from shipway.registry.verbs.promote import promote
from shipway.registry.verbs.rollback import rollback

TEXT = """
project: approved
store: store
targets:
  one: {kind: jetson-ort}
  two: {kind: jetson-ort}
environments:
  prod:
    approve: true
    hooks: {before_promote: [touch, hook-ran]}
    one: {to: out/prod/one}
    two: {to: out/prod/two}
"""
OCR_1, OCR_2 = ModelRef("ocr", version=1), ModelRef("ocr", version=2)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    (tmp_path / "deploy.yaml").write_text(TEXT)
    found = load_text(TEXT, tmp_path)
    register(found, 1)
    register(found, 2)
    return found


class Person:
    """Answers the same each time and remembers what was asked."""

    def __init__(self, answer: bool) -> None:
        self.answer = answer
        self.asked: list[str] = []

    def __call__(self, question: str) -> bool:
        self.asked.append(question)
        return self.answer


def test_a_yes_lets_it_through_and_says_what_goes_where(project: Project) -> None:
    person = Person(True)
    promote(project, OCR_1, "prod", confirm=person)
    promote(project, OCR_2, "prod", targets=["two"], confirm=person)
    first, second = (question.splitlines() for question in person.asked)
    assert first[0] == second[0] == "To be made live in prod:"
    assert first[1].startswith("  one: ocr/1 where nothing is live, out/prod/one, ")
    assert first[2].startswith("  two: ocr/1 where nothing is live, out/prod/two, ")
    assert second[1].startswith("  two: ocr/2 in place of ocr/1, out/prod/two, ")
    assert second[1].endswith(" to send")
    assert second[2:] == ["Approve?"]
    assert {event.started.actor for event in history(project)} == {owner.actor()}
    # Where nothing changes nobody is asked, and a rollback never asks.
    promote(project, OCR_1, "prod", targets=["one"], confirm=person)
    rollback(project, "prod", targets=["two"])
    assert len(person.asked) == 2
    assert live_versions(project) == {"one": 1, "two": 1}


def test_a_no_changes_nothing(project: Project) -> None:
    promote(project, OCR_1, "prod", confirm=Person(True))
    before = files_of(project.root / "out")
    (project.root / "hook-ran").unlink()
    with pytest.raises(UsageError, match="Nothing was changed: the promotion to prod was not approved"):
        promote(project, OCR_2, "prod", confirm=Person(False))
    assert files_of(project.root / "out") == before
    assert len(history(project)) == 2
    assert not (project.root / "hook-ran").exists()


def test_without_anybody_to_ask_it_is_refused_at_once(project: Project) -> None:
    store = files_of(project.root / "store")
    with pytest.raises(UsageError, match="nobody is there to be asked") as caught:
        promote(project, OCR_1, "prod")
    assert "--yes" in caught.value.remedy
    assert files_of(project.root / "store") == store  # not even a bundle was built
    assert plan(project, OCR_1, "prod").plan.changes  # looking needs no approval


MAIN = "from shipway.registry.cli.app import main; raise SystemExit(main())"


def shipway(project: Project, *arguments: str, stdin: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", MAIN, *arguments],
        cwd=project.root,
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=stdin,
        env={**os.environ, "TERM": "dumb"},
    )


@pytest.mark.parametrize(("answer", "code", "live"), [(b"y\n", 0, 1), (b"\n", 2, None)])
def test_a_person_at_a_terminal_is_asked(
    project: Project, answer: bytes, code: int, live: int | None
) -> None:
    person, terminal = pty.openpty()
    child = shipway(project, "promote", "ocr/1", "--to", "prod", stdin=terminal)
    os.close(terminal)
    seen = b""
    while b"Approve? [y/N] " not in seen:
        seen += os.read(person, 4096)
    assert b"To be made live in prod:\r\n  one: ocr/1 where nothing is live" in seen
    os.write(person, answer)
    assert child.stdout is not None
    child.stdout.read()
    child.stdout.close()
    assert child.wait() == code
    os.close(person)
    assert live_versions(project) == {"one": live, "two": live}


def test_a_pipeline_says_yes_beforehand(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(project.root)
    assert main(["promote", "ocr/1", "--to", "prod"]) == 2
    assert "needs to be approved" in capsys.readouterr().err
    assert main(["promote", "ocr/1", "--to", "prod", "--yes"]) == 0
    assert live_versions(project) == {"one": 1, "two": 1}


def test_whoever_is_overtaken_while_asked_changes_nothing(project: Project) -> None:
    promote(project, OCR_1, "prod", confirm=Person(True))

    def slow(question: str) -> bool:
        promote(load_text(TEXT, project.root), OCR_2, "prod", confirm=Person(True))
        return True

    with pytest.raises(ConflictError):
        promote(project, OCR_2, "prod", confirm=slow)
    assert live_versions(project) == {"one": 2, "two": 2}
    assert [event.outcome for event in history(project)] == ["live"] * 4

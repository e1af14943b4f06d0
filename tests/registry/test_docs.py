"""What the documents say against what the code has."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from shipway.registry.cli import failures
from shipway.registry.cli.commands import app

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[<>=!;\[ ]", requirement)[0] for requirement in requirements} - {"shipway"}


def table(text: str, heading: str) -> list[list[str]]:
    """The cells of the first table below a heading."""
    below = text.split(f"{heading}\n", 1)[1]
    lines = re.search(r"(?:^\|.*\n)+", below, re.MULTILINE)
    assert lines is not None
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[0].splitlines()][2:]


@pytest.mark.parametrize(
    ("heading", "extra"),
    [
        ("## Always installed: promote, rollback, status, history", None),
        ("## Extra `convert`: register", "convert"),
        ("## Extra `paddle`: register a Paddle model", "paddle"),
        ("## Extra `ssh`: destinations on hosts", "ssh"),
    ],
)
def test_every_dependency_has_its_reason(heading: str, extra: str | None) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = project["optional-dependencies"][extra] if extra else project["dependencies"]
    rows = table((DOCS / "explanation" / "dependencies.md").read_text(), heading)
    assert {row[0] for row in rows} == names(wanted)
    assert all(row[1] for row in rows)


def test_every_dependency_of_development_has_its_reason() -> None:
    page = (DOCS / "explanation" / "dependencies.md").read_text()
    rows = table(page, "## Group `dev`: `make setup`, `make check`, `make test`")
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]["dev"]
    assert sorted(name for row in rows for name in row[0].split(", ")) == sorted(names(wanted))

    rows = table(page, "## `make test-all`: what `tools/install-real-parts.sh` installs")
    packages = re.search(
        r"^packages=\(([^)]+)\)", (ROOT / "tools" / "install-real-parts.sh").read_text(), re.M
    )
    assert packages is not None
    assert sorted(name for row in rows for name in row[0].split(", ")) == sorted(packages[1].split())

    assert {f"locks/{lock.name}" for lock in (ROOT / "locks").iterdir()} == set(
        re.findall(r"\blocks/\w+\.txt", page)
    )


def test_every_exit_code_is_listed_with_its_kind() -> None:
    rows = table((DOCS / "reference" / "cli.md").read_text(), "## Exit codes")
    listed = {(row[1], int(row[0])) for row in rows if row[1]}
    families = [*failures.FAMILIES.values(), failures.BUG, failures.INTERRUPTED, failures.TERMINATED]
    assert listed == {(family.kind, family.exit) for family in families}
    unkind = {int(row[0]) for row in rows if not row[1]}
    assert unkind == {0, failures.UNWRITTEN, failures.BROKEN_PIPE}


def test_every_command_is_listed_in_the_order_of_help() -> None:
    text = (DOCS / "reference" / "cli.md").read_text()
    listed = re.findall(r"^\| `([a-z]+)[ `]", text.split("## Exit codes")[0], re.MULTILINE)
    assert listed == [command.callback.__name__ for command in app.registered_commands if command.callback]


def options(command: str) -> set[str]:
    """The long options of a command, by its own help."""
    from typer.testing import CliRunner

    shown = CliRunner().invoke(app, [command, "--help"]).output
    return set(re.findall(r"(--[a-z-]+)", shown)) - {"--help"}


def test_every_option_of_every_command_is_listed() -> None:
    for line in (DOCS / "reference" / "cli.md").read_text().split("## Exit codes")[0].splitlines():
        command = re.match(r"\| `([a-z]+)[ `]", line)
        if command:
            assert options(command[1]) == set(re.findall(r"--[a-z-]+", line)), line


def code(text: str) -> list[str]:
    """Fenced blocks, without what only a reader of one language needs."""
    return re.findall(r"^```[a-z]*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def test_the_two_readmes_are_in_step() -> None:
    english, chinese = ((ROOT / name).read_text() for name in ("README.md", "README.zh.md"))
    levels = [re.findall(r"^(#+) ", text, re.MULTILINE) for text in (english, chinese)]
    assert levels[0] == levels[1]
    assert code(english) == code(chinese)

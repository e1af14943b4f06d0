"""Eight processes promote different versions to one target at once, round after round."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "registry" / "deploy"))
sys.path.insert(0, str(Path(__file__).parents[1] / "registry"))

import deploy_scene as scene
from records import registered

from shipway.registry.config.load import load_text
from shipway.registry.config.project import Project
from shipway.registry.deploy.site import Site
from shipway.registry.ledger.events import Event
from shipway.registry.nouns import ModelRef
from shipway.registry.verbs.promote import promote

PROCESSES = 8
RUNNER = Path(__file__).with_name("race_runner.py")
CONFIG = """
project: race
store: {store}
targets:
  one: {{kind: jetson-ort}}
environments:
  prod:
    one: {{to: "{to}", keep: 3}}
"""


class Runner:
    """``race_runner.py`` as a process of its own, in the project's folder."""

    def __init__(self, root: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, RUNNER],
            cwd=root,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "SHIPWAY_MIRROR": "off"},
        )

    def aim(self, *arguments: str) -> None:
        """Tell it what to run, and wait until it stands at the start."""
        self._tell(json.dumps(arguments))
        assert self._hear() == "ready"

    def start(self) -> None:
        self._tell("go")

    def end(self) -> int:
        code, told = json.loads(self._hear())
        assert code in (0, 7), told
        return int(code)

    def close(self) -> None:
        self._process.communicate()

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def _hear(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


@contextlib.contextmanager
def runners(root: Path) -> Iterator[list[Runner]]:
    with contextlib.ExitStack() as stack:
        made = [Runner(root) for _ in range(PROCESSES)]
        for one in made:
            stack.callback(one.close)
        yield made


@pytest.fixture
def project(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.setenv("SHIPWAY_MIRROR", "off")
    if request.param == "folder":
        text = CONFIG.format(store="store", to="out")
    else:
        server: Any = request.getfixturevalue("real_s3")
        store = f'{{to: "s3://{server.bucket}/store", endpoint: "{server.endpoint}"}}'
        text = CONFIG.format(store=store, to=f"s3://{server.bucket}/out")
    (tmp_path / "deploy.yaml").write_text(text)
    return load_text(text, tmp_path)


@pytest.mark.parametrize(
    ("project", "rounds"),
    [
        ("folder", 4),
        pytest.param("folder", 50, marks=pytest.mark.real),
        pytest.param("S3", 50, marks=pytest.mark.real),
    ],
    indirect=["project"],
)
def test_serials_have_no_gaps_and_no_doubles(
    project: Project, rounds: int, request: pytest.FixtureRequest, record_counts: Callable[[str, int], None]
) -> None:
    """And the pointer names the last winner, and losers end with 7 having changed nothing."""
    for number in range(1, 2 * PROCESSES + 2):
        registered(project.store, number)
        promote(project, ModelRef("ocr", number), "prod")  # so that the race is not about building
    before = 2 * PROCESSES + 1
    won = lost = 0
    with runners(project.root) as processes:
        for turn in range(rounds):
            # Never those of the round before: what is live already would be no deployment.
            versions = range(1 + PROCESSES * (turn % 2), 1 + PROCESSES * (turn % 2 + 1))
            there = releases(project)
            for one, version in zip(processes, versions, strict=True):
                one.aim("promote", f"ocr/{version}", "--to", "prod", "--json")
            for one in processes:
                one.start()
            ends = dict(zip(versions, [one.end() for one in processes], strict=True))
            winners = {version for version, end in ends.items() if end == 0}
            assert winners, "somebody wins"
            fresh = newest(project, before)
            assert [event.started.serial for event in fresh] == list(range(before + len(winners), before, -1))
            assert {event.outcome for event in fresh} == {"live"}
            assert {event.started.version for event in fresh} == winners
            # A loser's release is there only if it was before: most are not, for few are kept.
            assert releases(project) <= there | {event.started.release for event in fresh}
            last = fresh[0].started
            assert scene.pointers(project) == {"one": (last.serial, last.version)}
            before += len(winners)
            won, lost = won + len(winners), lost + len(ends) - len(winners)
    scene.assert_live_is_whole(project)
    scene.assert_ledger_is_sound(project)  # all of it: every serial from 1, one outcome each
    assert lost > 0
    where = request.node.callspec.params["project"]
    if where == "folder":
        scene.assert_nothing_left(project)
    record_counts(f"races of {PROCESSES} processes for a target in {where}: rounds", rounds)
    record_counts(f"races of {PROCESSES} processes for a target in {where}: won", won)
    record_counts(f"races of {PROCESSES} processes for a target in {where}: lost, with exit 7", lost)


def releases(project: Project) -> set[str]:
    """What is at the destination."""
    return set(Site(project, "prod").delivery(scene.place("one")).releases())


def newest(project: Project, after: int) -> list[Event]:
    """What the ledger has of serials above ``after``, the newest first."""
    found = []
    for event in Site(project, "prod").ledger.events(scene.place("one")):
        if event.started.serial <= after:
            break
        found.append(event)
    return found

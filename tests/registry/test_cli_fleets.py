"""What people see of fleets, and how they are asked."""

from __future__ import annotations

import io
import os
import pty
import re
import select
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from shipway.registry.cli import fleet_views
from shipway.registry.cli.output import Block, print_blocks
from shipway.registry.cli.progress import asking
from shipway.registry.config.load import load_text
from shipway.registry.deploy.execute import Deployment
from shipway.registry.errors import ConfigError
from shipway.registry.ledger.events import Ended, HostEnd, Standing
from shipway.registry.nouns import Digest
from shipway.registry.observe import SILENT
from shipway.registry.units import parse_duration
from shipway.registry.verbs.status import HostStatus, TargetStatus


def text(blocks: Iterable[Block]) -> str:
    stream = io.StringIO()
    print_blocks(blocks, stream)
    return stream.getvalue()


def deployment(hosts: int, failed: Iterable[int] = ()) -> Deployment:
    ends = [
        HostEnd(f"line-{n}", "failed", "no room", 5, 1.0) if n in failed else HostEnd(f"line-{n}", "live")
        for n in range(hosts)
    ]
    return Deployment("prod", "jetson", 3, "ocr", 2, Digest.of(b"b"), "live", 0, 1.0, tuple(ends))


def test_up_to_twenty_hosts_are_listed_and_of_more_those_that_failed() -> None:
    few = text(fleet_views.outcome(deployment(20, {3})))
    assert few.count("line-") == 20
    assert "19 of 20 hosts serve it." in few
    many = text(fleet_views.outcome(deployment(21, {3, 7})))
    assert re.findall(r"^line-\d+", many, re.MULTILINE) == ["line-3", "line-7"]
    assert "19 of 21 hosts serve it. The same 'promote' of ocr/2 brings the others along later." in many
    assert text(fleet_views.outcome(deployment(21))).strip() == "jetson: 21 of 21 hosts serve it."
    assert text(fleet_views.outcome(deployment(0))) == ""


def test_status_of_a_fleet_in_words() -> None:
    hosts = {f"line-{n}": HostStatus(2, f"line-{n} lags") for n in range(25)}
    hosts |= {f"line-{n}": HostStatus(3) for n in range(25, 200)}
    one = TargetStatus(healthy=True, hosts=hosts)
    assert fleet_views.state(one) == "healthy (175 of 200 hosts)"
    assert fleet_views.state(TargetStatus()) == "NOT HEALTHY"
    notes = list(fleet_views.problems(one))
    assert notes[0] == "line-0 lags"
    assert notes[-1] == "and 5 more hosts (--json has all)"
    assert len(notes) == 21


def test_outcomes_keep_hosts_and_older_ones_are_read() -> None:
    ended = Ended(3, "live", "2026-01-01", Standing(3, 2), hosts=(HostEnd("a", "failed", "why", 5, 0.25),))
    document = ended.to_json()
    assert Ended.from_json(document) == ended
    del document["hosts"]
    assert Ended.from_json(document).hosts == ()


# questions


def test_yes_answers_and_where_nobody_sits_nobody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    assert asking(SILENT, yes=False) is None
    ask = asking(SILENT, yes=True)
    assert ask is not None
    assert ask("Go on?")


ASK = """
from shipway.registry.cli.progress import asking, observing
with observing(quiet=False) as observer, observer.phase("promote", 3):
    print(asking(observer, yes=False)("Go on with wave 2?"))
"""


@pytest.mark.parametrize(
    ("typed", "answer"), [("y\n", "True"), ("yes\n", "True"), ("\n", "False"), ("no\n", "False")]
)
def test_somebody_at_a_terminal_is_asked(typed: str, answer: str) -> None:
    ours, theirs = pty.openpty()
    try:
        os.write(ours, typed.encode())
        done = subprocess.run(
            [sys.executable, "-c", ASK], stdin=theirs, stderr=theirs, stdout=subprocess.PIPE, timeout=60
        )
        assert done.stdout.decode().strip() == answer
        said = b""
        while b"Go on with wave 2? [y/N]" not in said:  # after the echo of what was typed
            assert select.select([ours], [], [], 30)[0], said
            said += os.read(ours, 4096)
    finally:
        os.close(ours)
        os.close(theirs)


# deploy.yaml

HEAD = """project: p
targets: {t: {kind: jetson-ort}}
environments:
  e:
    t: {to: 'ssh://d@{host}/opt', hosts: [a], """


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ("failures: -1", "failures: must be a number of hosts (0) or a share of them (5%)"),
        ("failures: 101%", "failures: must be a number of hosts"),
        ("failures: true", "failures: must be a number of hosts"),
        ("pause: soon", "pause: must be a time"),
        ("pause: -1", "pause: must be a time"),
        ("confirm: maybe", "confirm: "),
    ],
)
def test_keys_of_waves_that_make_no_sense(keys: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"deploy\.yaml:5: ") as caught:
        load_text(f"{HEAD}{keys}}}\n", tmp_path)
    assert message in str(caught.value)


def test_keys_of_waves_are_for_hosts(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="confirm, failures, pause: for ssh:// destinations only"):
        load_text(
            "project: p\ntargets: {t: {kind: jetson-ort}}\n"
            "environments: {e: {t: {to: ./out, failures: 1, pause: 1, confirm: true}}}\n",
            tmp_path,
        )


def test_keys_of_waves_are_read(tmp_path: Path) -> None:
    project = load_text(f"{HEAD}failures: 5%, pause: 10m, confirm: true}}\n", tmp_path)
    placement = project.config.environments["e"].targets["t"]
    assert (placement.failures, placement.pause, placement.confirm) == ("5%", 600.0, True)
    assert parse_duration("1.5h") == 5400.0

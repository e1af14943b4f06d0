"""``make corpus`` on a few models, and what its table may call ok."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent


@pytest.fixture
def verdicts(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(HERE))
    import verdicts

    return verdicts


def measured(**other: Any) -> dict[str, Any]:
    return {"name": "y", "max_abs": 1e-7, "scale": 2.0, "flat": False, **other}


def link(*outputs: dict[str, Any], passed: bool = True) -> dict[str, Any]:
    return {"passed": passed, "outputs": list(outputs), "notes": []}


@pytest.mark.parametrize(
    ("outputs", "why"),
    [
        ((), "no output was measured"),
        ((measured(max_abs=float("inf")),), "no finite numbers"),
        ((measured(scale=float("nan")),), "no finite numbers"),
        ((measured(flat=True), measured(flat=True)), "so flat"),
    ],
)
def test_ok_needs_a_measured_number(
    verdicts: ModuleType, outputs: tuple[dict[str, Any], ...], why: str
) -> None:
    with pytest.raises(verdicts.UnmeasuredError, match=why):
        verdicts.Verdict("ok", outputs=outputs)


@pytest.mark.parametrize(
    ("links", "why"),
    [
        ((), "without a link"),
        ((link(measured(), passed=False),), "link that failed"),
        ((link(measured(max_abs=float("inf"))),), "no finite numbers"),
        ((link(),), "no output was measured"),
    ],
)
def test_a_row_is_not_ok_without_a_link_that_register_measured(
    verdicts: ModuleType, links: tuple[dict[str, Any], ...], why: str
) -> None:
    good = verdicts.Verdict("ok", outputs=(measured(),))
    with pytest.raises(verdicts.UnmeasuredError, match=why):
        verdicts.Row("net", "dense", "3.3.1", plain=good, shipway=good, links=links)


def test_a_flat_output_beside_another_is_told(verdicts: ModuleType) -> None:
    verdict = verdicts.Verdict("ok", outputs=(measured(), measured(name="z", flat=True)))
    assert verdict.flat == ["z"]


def test_what_another_toolchain_converts_and_shipway_does_not_is_named(verdicts: ModuleType) -> None:
    good, bad = verdicts.Verdict("ok", outputs=(measured(),)), verdicts.Verdict("refused", "no")
    row = verdicts.Row("net", "dense", "3.3.1", plain=bad, shipway=bad, public={"3.2.2 + 2.0.1": good})
    assert row.missed_by_shipway == ["3.2.2 + 2.0.1"]


def test_a_verdict_is_told_as_what_the_user_would_see(verdicts: ModuleType) -> None:
    wrong = verdicts.Verdict("numbers wrong", outputs=(measured(max_abs=0.5),))
    assert wrong.cell == "numbers wrong by 5.0e-01 of 2.0e+00"
    assert verdicts.Verdict("crashed", "crashed: ended by SIGABRT\nits log").cell == "crashed (SIGABRT)"
    assert verdicts.Verdict("does not load", "Concat").cell == "saved, does not load"


SAID: dict[str, Any] = {"toolchain": "t", "repairs": [{"rule": "r", "count": 1}], "links": [link(measured())]}


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ({}, "ok"),
        ({"error": {"exit": 5}}, "exit 5"),
        ({"repairs": []}, "ok, converted otherwise"),
        ({"toolchain": "u"}, "ok, converted otherwise"),
        ({"links": [link(measured(flat=True))]}, "every output is so flat that a constant would pass"),
    ],
)
def test_what_register_without_samples_came_to(
    verdicts: ModuleType, other: dict[str, Any], told: str
) -> None:
    assert verdicts.of_bare(SAID, {**SAID, **other}) == told


@pytest.mark.parametrize("links", [[], [link(measured(), passed=False)]])
def test_without_samples_too_nothing_is_registered_unmeasured(
    verdicts: ModuleType, links: list[dict[str, Any]]
) -> None:
    with pytest.raises(verdicts.UnmeasuredError, match="without a link that passed"):
        verdicts.of_bare(SAID, {**SAID, "links": links})


@pytest.mark.real
def test_the_table_of_two_models(tmp_path: Path) -> None:
    """One that converts as it is and one that only repairs bring over, saved by both Paddles, for real."""
    command = [sys.executable, HERE / "table.py", "--only", "lenet", "--only", "if-mean"]
    places = ["--work", tmp_path / "work", "--json", tmp_path / "out.json", "--markdown", tmp_path / "out.md"]
    done = subprocess.run([*command, *places], capture_output=True, text=True, timeout=1500)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = {
        (row["model"], row["saved_by"]): row
        for row in json.loads((tmp_path / "out.json").read_text())["rows"]
    }
    assert set(rows) == {(model, saver) for model in ("lenet", "if-mean") for saver in ("2.6.2", "3.3.1")}
    for (model, saver), row in rows.items():
        assert row["shipway"]["verdict"] == "ok"
        assert row["shipway"]["max_abs"] <= 1e-5 + 1e-5 * row["shipway"]["scale"]
        assert row["plain"]["verdict"] == ("ok" if model == "lenet" else "crashed")
        assert row["without_samples"] == ("ok" if saver == "3.3.1" else "")
        assert row["repairs"] == ([] if model == "lenet" else ["mean-of-all x1"])
    page = (tmp_path / "out.md").read_text()
    assert "| if-mean | crashed (SIGABRT) | ok | 3.2.2 + 2.0.1 | mean-of-all x1 |" in page
    assert "plain paddle2onnx 1 of 2, shipway 2 of 2" in page
    assert "shipway without samples 2." in " ".join(page.split())
    again = subprocess.run([*command, *places], capture_output=True, text=True, timeout=1500)
    assert "registered" not in again.stderr
    assert "register:" not in again.stderr  # what is there is kept

"""The benchmark's own bookkeeping: what is compared, and that a row that fails costs no other its figures."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

import figures
import measure
import run as bench
import serve
from scene import Group, settle


def contest(*subjects: measure.Subject, wrong: str = "", warm: bool = True) -> measure.Contest:
    def verify() -> None:
        if wrong:
            raise measure.FailedError(wrong)

    return measure.Contest("floor", lambda: 2.0, subjects, verify, rounds=3, warm=warm)


def test_the_ratio_is_the_median_of_neighbours_without_the_first_round() -> None:
    times = iter([100.0, 2.0, 4.0, 9.0])
    (result,) = measure.compare(contest(measure.Subject("row", 2.0, lambda: next(times))))
    assert result.subject == (2.0, 4.0, 9.0)
    assert result.ratios == (1.0, 2.0, 4.5)
    assert (result.ratio, result.verdict) == (2.0, "met")
    assert result.to_json()["spread"] == [1.0, 4.5]


def test_a_row_over_its_limit_misses() -> None:
    (result,) = measure.compare(contest(measure.Subject("row", 0.9, lambda: 2.0), warm=False))
    assert result.verdict == "missed"


def test_what_was_left_wrong_spoils_the_verdict_and_keeps_the_figures() -> None:
    (result,) = measure.compare(contest(measure.Subject("row", 9.0, lambda: 1.0), wrong="digests differ"))
    assert result.verdict == "failed"
    assert "digests differ" in result.problem
    assert result.ratio == 0.5


def test_a_subject_that_fails_half_way_keeps_what_was_measured() -> None:
    count = itertools.count()

    def measured() -> float:
        if next(count) == 2:
            raise measure.FailedError("no room")
        return 1.0

    (result,) = measure.compare(contest(measure.Subject("row", 9.0, measured)))
    assert (result.subject, result.verdict) == ((1.0,), "failed")


def test_a_group_that_can_not_be_made_costs_no_other_its_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(work: Path) -> Iterator[measure.Contest]:
        raise measure.FailedError("no server")
        yield

    def good(work: Path) -> Iterator[measure.Contest]:
        assert work.is_dir()
        yield contest(measure.Subject("good row", 9.0, lambda: 1.0))

    groups = (Group(broken, ("broken row",)), Group(good, ("good row",)))
    monkeypatch.setattr(bench, "LOCAL", groups)
    monkeypatch.setattr(bench, "REMOTE", ())
    found = list(bench.results(tmp_path, ""))
    assert [(result.name, result.verdict) for result in found] == [
        ("all of broken", "failed"),
        ("good row", "met"),
    ]
    assert [result.name for result in bench.results(tmp_path, "good")] == ["good row"]
    assert not list(tmp_path.iterdir())
    for result in found:
        assert len(bench.cells(result)) == len(bench.COLUMNS)


def test_figures_replace_the_last_ones_and_nothing_else(tmp_path: Path) -> None:
    (result,) = measure.compare(contest(measure.Subject("row", 9.0, lambda: 1.0)))
    page = tmp_path / "page.md"
    page.write_text(f"before\n{bench.BEGIN}\nold\n{bench.END}\nafter\n")
    for _ in range(2):
        figures.insert(page, bench.markdown([result], 90.0))
    text = page.read_text()
    assert text.startswith(f"before\n{bench.BEGIN}\n")
    assert text.endswith(f"{bench.END}\nafter\n")
    assert "old" not in text
    assert text.count("| row | floor | 1 s | 2 s | 0.500 |") == 1
    page.write_text("no place")
    with pytest.raises(ValueError, match="has no line"):
        figures.insert(page, "begin\nend")


def test_a_process_that_fails_is_told_with_what_it_said(tmp_path: Path) -> None:
    with pytest.raises(measure.FailedError, match=r"(?s)ended with 3.*these words"):
        measure.run(["sh", "-c", "echo these words; exit 3"], tmp_path)


def test_the_largest_size_is_the_processs_own(tmp_path: Path) -> None:
    ballast = bytearray(400_000_000)
    ballast[::4096] = b"x" * len(ballast[::4096])
    assert measure.peak([sys.executable, "-c", "pass"], tmp_path) < 100_000_000
    assert measure.peak([sys.executable, "-c", "b'x' * 200_000_000"], tmp_path) > 200_000_000


@pytest.mark.parametrize("binary", [False, True])
def test_a_servers_answer_with_other_numbers_is_noticed(binary: bool) -> None:
    right = np.array([[1.0, 2.0], [3.0, -4.0]], np.float32)

    def said(values: np.ndarray) -> str:
        output = {"name": "y", "datatype": "FP32", "shape": list(values.shape)}
        data = {} if binary else {"data": values.reshape(-1).tolist()}
        head = json.dumps({"outputs": [{**output, **data}]}).encode()
        return serve.wrong(
            head + (values.tobytes() if binary else b""), str(len(head)) if binary else None, right
        )

    assert said(right) == ""
    assert said(right + np.float32(1e-6)) == ""  # a rounding
    assert "off by 0.001" in said(right + np.float32(1e-3))
    assert "off by nan" in said(right * np.float32("nan"))
    assert "shape (4,)" in said(right.reshape(-1))


def test_what_a_command_leaves_at_work_is_waited_for(tmp_path: Path) -> None:
    run = ["sh", "-c", "(sleep 1; echo done > late) >/dev/null 2>&1 &"]
    measure.run(run, tmp_path)
    settle(tmp_path)
    assert (tmp_path / "late").read_text() == "done\n"

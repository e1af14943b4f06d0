"""``make matrix``'s bookkeeping: no row costs another, and no end but success is quiet."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

import figures
import matrix
import matrix_page as page
from matrix_page import KINDS, Cell
from measure import FailedError

BENCHMARKS = Path(matrix.__file__).parent
GOOD = Cell("rec", "mobile-ort", "fp32", True, "CPU", 2e-7, 3e-7, 3.5, 10_928_000, 10_820_700)


def test_a_row_that_fails_costs_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def registered(work: Path, home: Path, name: str) -> str:
        if name == "broken":
            raise FailedError("register: exit 4")
        return "int8 fails its gate: {}" if name == "delicate" else ""

    def checked(work: Path, name: str, kind: str, precision: str) -> Cell:
        if kind == "browser-wasm":
            raise ValueError("Chromium has gone")
        return Cell(name, kind, precision, True, "CPU", 0.0, 0.0, 1.0, 110, 100)

    monkeypatch.setattr(matrix, "registered", registered)
    monkeypatch.setattr(matrix, "checked", checked)
    found = list(matrix.results(tmp_path, ["broken", "delicate", "good"]))
    assert [(cell.model, cell.precision, cell.kind) for cell in found] == [
        (name, precision, kind)
        for name in ("broken", "delicate", "good")
        for precision in ("fp32", "int8")
        for kind in KINDS
    ]
    verdicts = [cell.verdict for cell in found]
    good = ["passed", "passed", "passed", "failed"]
    assert verdicts == ["failed"] * 8 + good + ["refused"] * 4 + good * 2
    assert "ValueError: Chromium has gone" in page.told(found[11])
    assert len(page.bad(found)) == 8 + 3


@pytest.mark.parametrize(
    ("cell", "verdict"),
    [
        (GOOD, "passed"),
        (Cell("rec", "mobile-ort", "fp32", False, "CPU", None, None, 1.0, 10, 5), "wrong numbers"),
        (Cell("rec", "mobile-ort", "fp32", True, "CPU", 0.0, 0.0, 1.0, 300_001, 100_000), "too heavy"),
        (Cell("rec", "mobile-ort", "fp32", True, "CPU", 0.0, 0.0, 1.0, 20_300_000, 20_000_000), "passed"),
        (
            Cell("rec", "browser-wasm", "fp32", True, "wasm", 0.0, 0.0, 1.0, 900_000, 500_000, 300_000),
            "passed",
        ),
        (
            Cell("rec", "browser-wasm", "fp32", True, "wasm", 0.0, 0.0, 1.0, 900_000, 300_000, 300_000),
            "too heavy",
        ),
    ],
)
def test_a_bundle_must_be_right_and_light(cell: Cell, verdict: str) -> None:
    assert cell.verdict == verdict
    assert cell.to_json()["verdict"] == verdict
    assert (cell in page.bad([cell])) is (verdict != "passed")


def test_the_floor_is_the_model_and_the_runtime_and_no_copy_of_them() -> None:
    paths = (
        "model.onnx",
        "model.onnx.data",
        "ort/ort.wasm.min.js",
        "model.onnx.br",
        "ort/a.wasm.br",
        "page.js",
    )
    assert [path for path in paths if matrix._floor(path, "model.onnx")] == list(paths[:3])


def test_figures_replace_the_last_ones_in_a_document(tmp_path: Path) -> None:
    refused = [Cell("rec", kind, "int8", problem="int8 fails", refused=True) for kind in KINDS]
    document = tmp_path / "matrix.md"
    document.write_text(f"before\n{page.BEGIN}\nstale\n{page.END}\nafter\n")
    for _ in range(2):
        figures.insert(document, page.markdown([GOOD, *refused], 90.0, 0.25))
    text = document.read_text()
    assert text.startswith(f"before\n{page.BEGIN}\n")
    assert text.endswith(f"{page.END}\nafter\n")
    assert "stale" not in text
    assert text.count("| rec | fp32 | not measured | not measured | 2.0e-07 (3.0e-07) | not measured |") == 1
    assert "| rec | fp32 | not measured | not measured | 3.50 | not measured |" in text
    assert "| 10,928 (+107) |" in text
    assert "| rec | fp32 | not measured | not measured | none | not measured |" in text
    assert text.count("| rec | int8 | refused | refused | refused | refused |") == 4
    assert "load average was 0.2" in text


_DRIVER = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever runs the tests may have it ignored
sys.path.insert(0, sys.argv.pop(1))
import matrix
from matrix_page import Cell

def results(work, names):
    yield Cell("rec", "mobile-ort", "fp32", True, "CPU", 0.0, 0.0, 1.0, 110, 100)
    print("one is there", flush=True)
    {then}

matrix.results = results
sys.exit(matrix.main())
"""


@pytest.mark.parametrize(
    ("then", "sent", "said"),
    [
        ("return", None, "nobody said why"),
        ("raise GeneratorExit", None, "GeneratorExit"),
        ("raise OSError(28, 'No space left on device')", None, "No space left on device"),
        ("time.sleep(60)", signal.SIGTERM, "ended by SIGTERM"),
        ("time.sleep(60)", signal.SIGHUP, "ended by SIGHUP"),
        ("time.sleep(60)", signal.SIGINT, "KeyboardInterrupt"),
        ("time.sleep(60)", signal.SIGKILL, ""),
    ],
)
def test_an_early_end_is_loud_and_keeps_what_was_measured(
    tmp_path: Path, then: str, sent: signal.Signals | None, said: str
) -> None:
    argv = [
        sys.executable,
        "-c",
        _DRIVER.format(then=then),
        BENCHMARKS,
        "--only",
        "rec",
        "--json",
        "found.json",
    ]
    with subprocess.Popen(argv, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == "one is there\n"
        if sent is not None:
            run.send_signal(sent)
        printed = run.stdout.read()
        code = run.wait(30)
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["complete"] is False
    assert (found["planned"], len(found["rows"])) == (8, 1)
    if sent is signal.SIGKILL:
        assert code == -signal.SIGKILL  # nothing can be said by then; the file says it
        return
    assert code == 2
    assert "ENDED EARLY, after 1 of 8 rows" in printed
    assert said in printed.splitlines()[-1]


def test_a_command_that_hangs_or_dies_ends_with_all_that_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(FailedError, match=r"(?s)exit -11.*these words"):
        matrix.command(["sh", "-c", "echo these words >&2; kill -SEGV $$"], tmp_path)
    for seconds in (0.3, 3.0, 30.0):  # as long as this machine takes to start the child
        monkeypatch.setattr(matrix, "LONGEST", seconds)
        with pytest.raises(FailedError, match="took more than"):
            matrix.command(["sh", "-c", "sleep 60 & echo $! > child; wait"], tmp_path)
        if (tmp_path / "child").exists() and (tmp_path / "child").read_text().endswith("\n"):
            break
    assert _gone(int((tmp_path / "child").read_text()))
    with pytest.raises(FailedError, match="exit 0"):  # without the line that was to come
        matrix.command(["true"], tmp_path)
    assert matrix.command(["sh", "-c", "echo noise; echo '{\"passed\": true}'"], tmp_path)[1] == {
        "passed": True
    }


def _gone(process: int) -> bool:
    """Within half a minute: a signal takes its time on a busy machine."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        time.sleep(0.02)
    return False


def test_of_several_checks_all_must_pass_and_the_quickest_is_told() -> None:
    """In a process, as the matrix asks it."""
    program = """
import json, sys
sys.path.insert(0, sys.argv[1])
import matrix_runs
def checks(bundle, classes):
    for passed, took in json.loads(sys.argv[2]):
        yield {"passed": passed, "p50_ms": took}
matrix_runs.RUNTIMES["shelf"] = (checks, 3)
print(json.dumps(matrix_runs.check("shelf", None, None)))
"""
    for reports, expected in (
        ([[True, 3.0], [True, 1.0], [True, 2.0]], {"passed": True, "p50_ms": 1.0}),
        ([[False, None], [True, 1.0], [True, 2.0]], {"passed": False, "p50_ms": 1.0}),
    ):
        argv = [sys.executable, "-c", program, BENCHMARKS, json.dumps(reports)]
        done = subprocess.run(argv, check=True, capture_output=True, text=True)
        assert json.loads(done.stdout.splitlines()[-1]) == expected

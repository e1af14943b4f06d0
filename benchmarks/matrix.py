"""``make matrix``: models by target kinds: numbers, provider, latency, and a bundle's weight over its floor.

    python benchmarks/matrix.py [--only MODEL] [--json FILE] [--markdown FILE]

Each model is registered and bundled by the command line, as a user does, in fp32 and, where that passes its
gate, in int8. ``shipway verify`` holds each bundle's digests and runs its own check here. The figures
are of more checks on the kind's own runtime (``matrix_runs``, a process of its own), and all must pass. The
floor is the bytes of the model and of a runtime that the bundle itself holds (ONNX Runtime Web; the other
kinds install theirs). Brotli copies of them, for web servers, are counted apart. What else there is must be
under 2 % of the floor, or under 200 kB.

A row that fails costs no other its figures. The JSON file is written anew after each, and says ``complete``
only where all rows that were planned are in it. Exit: 0 all is well, 1 some row is not, 2 ended early.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import figures
import matrix_page as page
from matrix_page import KINDS, Cell
from measure import FailedError
from rich.console import Console

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "demo"))
import models  # noqa: E402

SHIPWAY = Path(sys.executable).parent / "shipway"
PRECISIONS = ("fp32", "int8")
REAL = tuple(f"ppocr-{name}" for name in models.NAMES)
CORPUS = ("mobilenet-v3-small", "bert")  # a model of paddle.vision, a transformer
WRONG_NUMBERS = 5  # shipway's exit code
COPY = ".br"
LONGEST = 900.0  # seconds that the checks of one bundle may take


def command(argv: Sequence[str | Path], cwd: Path, allowed: tuple[int, ...] = (0,)) -> tuple[int, Any]:
    """Run it; its exit code and the JSON that it printed. Raises FailedError with what it said otherwise.

    It has a session of its own, which ends with it: nothing that it started is left behind.
    """
    with subprocess.Popen(
        argv,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            printed, said = process.communicate(timeout=LONGEST)
        except BaseException as error:
            os.killpg(process.pid, signal.SIGKILL)
            if isinstance(error, subprocess.TimeoutExpired):
                raise FailedError(f"{_words(argv)} took more than {LONGEST:.0f} s") from error
            raise
    lines = printed.splitlines()
    if process.returncode not in allowed or (process.returncode == 0 and not lines):
        raise FailedError(f"{_words(argv)}: exit {process.returncode}\n{(printed + said)[-3000:].strip()}")
    return process.returncode, json.loads(
        printed if printed.startswith("{") else lines[-1]
    ) if lines else None


def _words(argv: Sequence[str | Path]) -> str:
    return " ".join(str(word) for word in argv[1:])


def shipway(home: Path, *arguments: str | Path, allowed: tuple[int, ...] = (0,)) -> tuple[int, Any]:
    return command([SHIPWAY, *arguments, "--json"], home, allowed)


def configuration(precisions: tuple[str, ...]) -> str:
    # The machine that makes the table may have no GPU: the table says which provider was in use.
    allowed = {"server-tensorrt": ", allow_missing: true", "jetson-ort": ", allow_missing: true"}
    lines = [
        f"  {kind}-{p}: {{kind: {kind}, precision: {p}{allowed.get(kind, '')}}}"
        for kind in KINDS
        for p in precisions
    ]
    head = ["project: matrix", "registry: sqlite:///.shipway/mlflow.db", "store: .shipway/store", "targets:"]
    return "\n".join([*head, *lines, "environments: {}", ""])


def source(work: Path, name: str) -> list[str | Path]:
    """What follows ``register``: one of the real models, or what the corpus' script makes."""
    if name in REAL:
        return [models.fetch() / models.NAMES[name.removeprefix("ppocr-")]]
    made = work / "corpus" / name
    script = HERE.parent / "tests" / "corpus" / "make.py"
    subprocess.run(
        [sys.executable, script, "--out", made.parent, "--only", name],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    samples = work / "samples" / name
    samples.mkdir(parents=True)
    for path in made.glob("inputs-*.npz"):
        path.rename(samples / path.name)
    return [made, "--samples", samples]


def registered(work: Path, home: Path, name: str) -> str:
    """Register a model in both precisions, or in fp32 alone: then what the gate says of int8."""
    what = source(work, name)
    (home / "deploy.yaml").write_text(configuration(PRECISIONS))
    code, said = shipway(home, "register", *what, "--name", name, allowed=(0, WRONG_NUMBERS))
    if code == 0:
        return ""
    (home / "deploy.yaml").write_text(configuration(("fp32",)))
    shipway(home, "register", *what, "--name", name)
    return f"int8 fails its gate: {json.dumps(said)[:2000]}"


def results(work: Path, names: Sequence[str]) -> Iterator[Cell]:
    """A cell for each model, precision and kind, whatever happens to the others."""
    home = work / "home"
    home.mkdir()
    for name in names:
        print(f"measuring: {name}", file=sys.stderr)
        problem = refusal = ""
        try:
            refusal = registered(work, home, name)
        except Exception as error:
            problem = _told(error)
        for precision in PRECISIONS:
            for kind in KINDS:
                if problem or (refusal and precision == "int8"):
                    yield Cell(name, kind, precision, problem=problem or refusal, refused=not problem)
                else:
                    yield attempted(work, name, kind, precision)


def attempted(work: Path, name: str, kind: str, precision: str) -> Cell:
    try:
        return checked(work, name, kind, precision)
    except Exception as error:
        return Cell(name, kind, precision, problem=_told(error))


def checked(work: Path, name: str, kind: str, precision: str) -> Cell:
    """Build the bundle and check it: its digests and its own check here, then on the kind's runtime."""
    home, out = work / "home", work / "out" / f"{name}-{kind}-{precision}"
    shipway(home, "bundle", f"{name}/1", "--target", f"{kind}-{precision}", "--out", out)
    code, _ = shipway(home, "verify", out, allowed=(0, WRONG_NUMBERS))
    bundle = json.loads((out / "bundle.json").read_text())
    size = sum(file["size"] for file in bundle["files"]) + (out / "bundle.json").stat().st_size
    floor = sum(file["size"] for file in bundle["files"] if _floor(file["path"], bundle["graph"]))
    copies = sum(file["size"] for file in bundle["files"] if file["path"].endswith(COPY))
    if code != 0:
        return Cell(name, kind, precision, provider="none", size=size, floor=floor, copies=copies)
    runtimes = [sys.executable, HERE / "matrix_runs.py", kind, out, work / "classes"]
    _, found = command(runtimes, work)
    return Cell(
        *(name, kind, precision, found["passed"], found["provider"]),
        *(found["max_abs"], found["max_rel"], found["p50_ms"], size, floor, copies),
    )


def _floor(path: str, graph: str) -> bool:
    """Whether a file is the model (its graph and the data beside it) or a runtime, as they are."""
    return path.startswith((graph, "ort/")) and not path.endswith(COPY)


def _told(error: BaseException) -> str:
    return str(error) if isinstance(error, FailedError) else f"{type(error).__name__}: {error}"


def _end(number: int, _: FrameType | None) -> None:
    raise SystemExit(f"ended by {signal.Signals(number).name}")


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="", help="models whose name holds this word")
    parser.add_argument("--json", type=Path, default=Path("build/matrix.json"), help="where the figures go")
    parser.add_argument("--markdown", type=Path, help="a document whose figures are to be replaced")
    arguments = parser.parse_args()
    os.environ["SHIPWAY_MIRROR"] = "off"
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _end)
    names = [name for name in (*REAL, *CORPUS) if arguments.only in name]
    planned = len(names) * len(PRECISIONS) * len(KINDS)
    measured: list[Cell] = []
    load, began, ended = os.getloadavg()[0], time.monotonic(), ""

    def keep() -> None:
        head = {"machine": figures.machine(), "seconds": round(time.monotonic() - began), "load": load}
        whole = {"complete": len(measured) == planned, "planned": planned, "ended": ended}
        document = {**head, **whole, "rows": [cell.to_json() for cell in measured]}
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(document, indent=2) + "\n")

    keep()
    try:
        with tempfile.TemporaryDirectory(prefix="shipway-matrix-") as work:
            for cell in results(Path(work), names):
                measured.append(cell)
                keep()
                print(page.told(cell), file=sys.stderr)
    except BaseException as error:  # whatever it is, a signal too: what was measured is told
        traceback.print_exc()
        ended = _told(error) or type(error).__name__
    seconds = time.monotonic() - began
    keep()
    Console(width=170).print(page.table(measured))
    for cell in page.bad(measured):
        print(f"{page.told(cell).strip()}\n{cell.problem}")
    good = len(measured) - len(page.bad(measured))
    print(f"{good} of {planned} bundles are as they should be. It took {seconds / 60:.1f} minutes.")
    if len(measured) < planned:
        print(f"ENDED EARLY, after {len(measured)} of {planned} rows: {ended or 'nobody said why'}")
        return 2
    if arguments.markdown is not None:
        figures.insert(arguments.markdown, page.markdown(measured, seconds, load))
    return 1 if good < planned else 0


if __name__ == "__main__":
    sys.exit(main())

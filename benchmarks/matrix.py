"""``make matrix``: models by target kinds: numbers, provider, latency, and a bundle's weight over its floor.

    python benchmarks/matrix.py [--only MODEL] [--json FILE]

Each model is registered and bundled by the command line, as a user does, in fp32 and, where that passes its
gate, in int8. ``shipway verify`` holds each bundle's digests and runs its own check here. The figures are of
a second check, on the kind's own runtime (``matrix_runs``), and both must pass. The floor is the bytes of the
model and of a runtime that the bundle itself holds (ONNX Runtime Web; the other kinds install theirs). What
is over the floor must be under 2 % of it, or under 200 kB.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "demo")]
import models  # noqa: E402
from matrix_runs import Runtimes  # noqa: E402

SHIPWAY = Path(sys.executable).parent / "shipway"
KINDS = ("server-tensorrt", "jetson-ort", "mobile-ort", "browser-wasm")
CORPUS = ("mobilenet-v3-small", "bert")  # a model of paddle.vision, a transformer
WRONG_NUMBERS = 5  # shipway's exit code
SHARE, BYTES = 0.02, 200_000  # what a bundle may weigh over its floor: either


@dataclass(frozen=True)
class Cell:
    """One bundle, checked. Sizes in bytes, ``p50`` in milliseconds, ``max_rel`` over the output's scale."""

    model: str
    kind: str
    precision: str
    passed: bool
    provider: str
    max_abs: float | None
    max_rel: float | None
    p50: float
    size: int
    floor: int

    @property
    def overhead(self) -> int:
        return self.size - self.floor

    @property
    def light(self) -> bool:
        return self.overhead < max(SHARE * self.floor, BYTES)


def configuration(precisions: tuple[str, ...]) -> str:
    lines = [f"  {kind}-{p}: {{kind: {kind}, precision: {p}}}" for kind in KINDS for p in precisions]
    head = ["project: matrix", "registry: sqlite:///.shipway/mlflow.db", "store: .shipway/store", "targets:"]
    return "\n".join([*head, *lines, "environments: {}", ""])


def shipway(home: Path, *arguments: str | Path, allowed: tuple[int, ...] = (0,)) -> tuple[int, Any]:
    """Run a command; its exit code and its JSON. A code not allowed ends the run with what it said."""
    done = subprocess.run([SHIPWAY, *arguments, "--json"], cwd=home, capture_output=True, text=True)
    if done.returncode not in allowed:
        sys.exit(
            f"shipway {' '.join(map(str, arguments))}: exit {done.returncode}\n{done.stdout}{done.stderr}"
        )
    return done.returncode, json.loads(done.stdout) if done.stdout else None


def sources(work: Path, only: str) -> Iterator[tuple[str, list[str | Path]]]:
    """Names, and what follows ``register``: the real models, then what the corpus' script makes."""
    real = models.fetch()
    for name, path in models.NAMES.items():
        if only in f"ppocr-{name}":
            yield f"ppocr-{name}", [real / path]
    script = HERE.parent / "tests" / "corpus" / "make.py"
    for name in CORPUS:
        if only in name:
            made = [sys.executable, str(script), "--out", str(work / "corpus"), "--only", name]
            subprocess.run(made, check=True, stdout=subprocess.DEVNULL)
            folder = work / "corpus" / name
            samples = work / "samples" / name
            samples.mkdir(parents=True)
            for path in folder.glob("inputs-*.npz"):
                path.rename(samples / path.name)
            yield name, [folder, "--samples", samples]


def cells(home: Path, name: str, what: list[str | Path], runtimes: Runtimes) -> Iterator[Cell]:
    """Register a model in both precisions, or in one where int8 fails its gate, and check its bundles."""
    precisions: tuple[str, ...] = ("fp32", "int8")
    (home / "deploy.yaml").write_text(configuration(precisions))
    code, told = shipway(home, "register", *what, "--name", name, allowed=(0, WRONG_NUMBERS))
    if code == WRONG_NUMBERS:
        print(f"{name}: int8 fails its gate: {json.dumps(told)[:2000]}", file=sys.stderr)
        precisions = ("fp32",)
        (home / "deploy.yaml").write_text(configuration(precisions))
        shipway(home, "register", *what, "--name", name)
    for precision in precisions:
        for kind in KINDS:
            out = home / "out" / f"{name}-{kind}-{precision}"
            shipway(home, "bundle", f"{name}/1", "--target", f"{kind}-{precision}", "--out", out)
            yield checked(home, name, kind, precision, out, runtimes)


def checked(home: Path, name: str, kind: str, precision: str, out: Path, runtimes: Runtimes) -> Cell:
    code, _ = shipway(home, "verify", out, allowed=(0, WRONG_NUMBERS))
    found = runtimes(kind, out) if code == 0 else {"passed": False}
    bundle = json.loads((out / "bundle.json").read_text())
    size = sum(file["size"] for file in bundle["files"]) + (out / "bundle.json").stat().st_size
    floor = sum(file["size"] for file in bundle["files"] if _floor(file["path"], bundle["graph"]))
    return Cell(
        name,
        kind,
        precision,
        found["passed"],
        found.get("provider", "none"),
        found.get("max_abs"),
        found.get("max_rel"),
        found.get("p50_ms", 0.0),
        size,
        floor,
    )


def _floor(path: str, graph: str) -> bool:
    """Whether a file is the model (its graph and the data beside it) or a runtime, compressed forms too."""
    return path.startswith((graph, "ort/"))


def table(measured: list[Cell]) -> Table:
    view = Table(title="models by target kinds; sizes in kB")
    for column in ("model", "kind", "precision", "provider"):
        view.add_column(column)
    for column in ("max abs", "of scale", "p50 ms", "bundle", "floor", "over it", "share"):
        view.add_column(column, justify="right")
    view.add_column("verdict")
    for cell in measured:
        verdict = "passed" if cell.passed and cell.light else "too heavy" if cell.passed else "wrong numbers"
        view.add_row(
            *(cell.model, cell.kind, cell.precision, cell.provider),
            *(f"{value:.1e}" if value is not None else "none" for value in (cell.max_abs, cell.max_rel)),
            f"{cell.p50:.1f}",
            *(f"{value / 1e3:,.1f}" for value in (cell.size, cell.floor, cell.overhead)),
            f"{cell.overhead / cell.floor:.1%}",
            verdict,
        )
    return view


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="", help="models whose name holds this word")
    parser.add_argument(
        "--json", type=Path, default=Path("build/matrix.json"), help="where to write the figures"
    )
    arguments = parser.parse_args()
    os.environ["SHIPWAY_MIRROR"] = "off"
    measured: list[Cell] = []
    with tempfile.TemporaryDirectory(prefix="shipway-matrix-") as name, Runtimes() as runtimes:
        work = Path(name)
        home = work / "home"
        home.mkdir()
        for model, what in sources(work, arguments.only):
            print(f"measuring: {model}", file=sys.stderr)
            measured += cells(home, model, what, runtimes)
    Console(width=150).print(table(measured))
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    rows = [{**asdict(cell), "overhead": cell.overhead, "light": cell.light} for cell in measured]
    arguments.json.write_text(json.dumps(rows, indent=2) + "\n")
    bad = [cell for cell in measured if not (cell.passed and cell.light)]
    print(f"{len(measured) - len(bad)} of {len(measured)} bundles passed and are light")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())

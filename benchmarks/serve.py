"""The bundle's server against ONNX Runtime called in a loop, on PP-OCRv4 rec, in one run.

    python benchmarks/serve.py [--threads 1] [--rounds 20] [--against NAME=PORT[/json]]...

Loop and server take turns (A B A C A B A C ...), each for the same seconds with the same number of threads
for a run; a ratio is of neighbours. Requests carry tensors as bytes (``/json``: as JSON text, for servers
that know no bytes) over two connections that are kept open. Clients and protocol have a core to themselves
only where there are more cores than threads. ``--against`` names servers that run already: benchmarks/servers
has two.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "demo"))
import models  # noqa: E402
from measure import FailedError  # noqa: E402

CONNECTIONS = 2
SECONDS = 1.0
KEPT = 10  # one answer in so many is held against the loop's
CLOSE = 1e-5  # of the output's scale
X = np.random.default_rng(0).standard_normal((1, 3, 48, 320)).astype("<f4")
OUTPUT = "fetch_name_0"
TENSOR: dict[str, Any] = {"name": "x", "datatype": "FP32", "shape": list(X.shape)}
CONFIG = """\
project: serve
registry: sqlite:///.shipway/mlflow.db
store: .shipway/store
targets:
  server: {{kind: server-tensorrt, providers: [cpu], threads: {threads}}}
environments: {{}}
"""


def bundle(work: Path, threads: int) -> Path:
    """The server bundle of PP-OCRv4 rec, made by the command line."""
    home = work / "home"
    home.mkdir(parents=True, exist_ok=True)
    (home / "deploy.yaml").write_text(CONFIG.format(threads=threads))
    shipway = Path(sys.executable).parent / "shipway"
    source = models.fetch() / models.NAMES["rec"]
    out = home / f"threads-{threads}"
    for command in (
        ["register", source, "--name", "rec"],
        ["bundle", "rec/1", "--target", "server", "--out", out],
    ):
        subprocess.run([shipway, "--quiet", *command], cwd=home, check=True, stdout=subprocess.DEVNULL)
    return out


@contextmanager
def served(folder: Path) -> Iterator[int]:
    """The bundle's server; gives its port."""
    argv = [sys.executable, "-B", "serve.py", "--port", "0"]
    with subprocess.Popen(argv, cwd=folder, stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout is not None
            yield int(child.stdout.readline().split("/v2/")[0].rpartition(":")[2])
        finally:
            child.terminate()


def runner(folder: Path) -> Any:
    """The bundle's own runner of its model."""
    sys.path.insert(0, str(folder))
    from runner import Model

    return Model(str(folder))


def loop(model: Any) -> Callable[[], float]:
    """Runs a second of ONNX Runtime called in a loop, by the bundle's own runner."""

    def rate() -> float:
        count, began = 0, time.perf_counter()
        while time.perf_counter() < began + SECONDS:
            model.run({"x": X})
            count += 1
        return count / (time.perf_counter() - began)

    return rate


def request(as_json: bool) -> tuple[bytes, dict[str, str]]:
    """Body and headers of an inference request (binary tensor extension, or plain JSON)."""
    if as_json:
        body = json.dumps({"id": "1", "inputs": [{**TENSOR, "data": X.reshape(-1).tolist()}]}).encode()
        return body, {"Content-Type": "application/json"}
    tensor = {**TENSOR, "parameters": {"binary_data_size": X.nbytes}}
    wanted = {"name": OUTPUT, "parameters": {"binary_data": True}}
    head = json.dumps({"id": "1", "inputs": [tensor], "outputs": [wanted]}).encode()
    sizes = {"Inference-Header-Content-Length": str(len(head)), "Content-Type": "application/octet-stream"}
    return head + X.tobytes(), sizes


def decoded(content: bytes, header: str | None) -> np.ndarray[Any, Any]:
    """An answer's output. ``header``: its Inference-Header-Content-Length, where tensors came as bytes."""
    head = json.loads(content[: int(header)] if header else content)
    (output,) = head["outputs"]
    values = np.frombuffer(content[int(header) :], "<f4") if header else np.array(output["data"], "<f4")
    return values.reshape(output["shape"])


def wrong(content: bytes, header: str | None, right: np.ndarray[Any, Any]) -> str:
    """What is wrong with an answer's numbers, or nothing: two runs of a model may differ by a rounding."""
    found = decoded(content, header)
    if found.shape != right.shape:
        return f"an output of shape {found.shape}, not {right.shape}"
    gap = float(np.abs(found - right).max())
    return "" if gap <= CLOSE * float(np.abs(right).max()) else f"numbers that are off by {gap:.2g}"


def clients(port: int, right: np.ndarray[Any, Any], as_json: bool = False) -> Callable[[], float]:
    """Answers a second that a server gives; one that is no 200, or not ``right``, raises FailedError.

    One answer in ``KEPT`` is held against ``right``, when the clock has stopped.
    """
    body, headers = request(as_json)

    def rate() -> float:
        counts = [0] * CONNECTIONS
        failures: list[str] = []
        kept: list[tuple[bytes, str | None]] = []
        began = time.perf_counter()

        def ask(number: int) -> None:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            while time.perf_counter() < began + SECONDS and not failures:
                connection.request("POST", "/v2/models/rec/infer", body, headers)
                answer = connection.getresponse()
                content = answer.read()
                if answer.status != 200:
                    failures.append(f"{answer.status}: {content[:300]!r}")
                elif counts[number] % KEPT == 0:
                    kept.append((content, answer.headers["Inference-Header-Content-Length"]))
                counts[number] += 1
            connection.close()

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(CONNECTIONS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        took = time.perf_counter() - began
        failures += [said for one in kept if (said := wrong(*one, right))]
        if failures:
            raise FailedError(f"port {port} answered {failures[0]}")
        if not kept:
            raise FailedError(f"port {port} gave no answer in {SECONDS:g} s")
        return sum(counts) / took

    return rate


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of one run")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--against", action="append", default=[], metavar="NAME=PORT[/json]")
    parser.add_argument("--bundle", type=Path, help="a bundle made earlier, in place of a new one")
    arguments = parser.parse_args()
    os.environ["SHIPWAY_MIRROR"] = "off"
    with tempfile.TemporaryDirectory(prefix="shipway-serve-") as name:
        folder = arguments.bundle or bundle(Path(name), arguments.threads)
        model = runner(folder)
        baseline, right = loop(model), np.asarray(model.run({"x": X})[OUTPUT])
        with served(folder) as port:
            subjects = {"shipway": clients(port, right)}
            for given in arguments.against:
                label, _, where = given.partition("=")
                number, _, form = where.partition("/")
                subjects[label] = clients(int(number), right, form == "json")
            for rate in (baseline, *subjects.values()):
                rate()
            loops: list[float] = []
            ratios: dict[str, list[float]] = {label: [] for label in subjects}
            for _ in range(arguments.rounds):
                for label, rate in subjects.items():
                    loops.append(baseline())
                    ratios[label].append(rate() / loops[-1])
    print(
        f"ONNX Runtime in a loop, {arguments.threads} thread(s): {statistics.median(loops):.1f} runs a second"
    )
    for label, found in ratios.items():
        middle = statistics.median(found)
        print(f"{label:10} {middle:.3f} of it ({min(found):.3f} to {max(found):.3f}, {len(found)} rounds)")


if __name__ == "__main__":
    main()

"""A bundle's golden check on the runtime that its kind is for, as far as this machine has it.

    python benchmarks/matrix_runs.py KIND BUNDLE CLASSES

Prints one line of JSON. A process checks one bundle: one that crashes takes no other with it.

server-tensorrt: the bundle's own server, asked by tritonclient. jetson-ort: ``check.py`` in the arm64 Debian
that ``tools/install-real-parts.sh`` makes, under qemu. mobile-ort: the bundle's Kotlin on the JVM.
browser-wasm: the bundle's page in headless Chromium. The tests' own scenes do the work.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import math
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.request import urlopen

TESTS = Path(__file__).resolve().parent.parent / "tests"
sys.path[:0] = [str(TESTS / "shared"), str(TESTS / "ssh"), str(TESTS / "targets" / "kinds")]

import numpy as np  # noqa: E402
import tritonclient.http as triton  # noqa: E402
from arm64_hosts import inside  # noqa: E402
from browser_scene import PATIENCE, launched, report_of, served  # noqa: E402
from jvm_scene import Kotlin, compiled  # noqa: E402
from server_scene import serving  # noqa: E402

Report = dict[str, Any]
TYPES = {"float32": "FP32", "float16": "FP16", "int64": "INT64", "int32": "INT32", "bool": "BOOL"}


def by_the_server(bundle: Path, classes: Path) -> Iterator[Report]:
    manifest = json.loads((bundle / "bundle.json").read_text())
    golden = _golden(bundle)
    with serving(bundle) as server, triton.InferenceServerClient(server.host) as client:

        def run(inputs: dict[str, Any]) -> dict[str, Any]:
            answer = client.infer(manifest["model"]["name"], list(_tensors(inputs)))
            names = [output["name"] for output in answer.get_response()["outputs"]]
            return {name: answer.as_numpy(name) for name in names}

        while True:
            report: Report = golden.check(run, str(bundle / "golden"), manifest["check"]["tolerance"])
            with urlopen(f"{server.address}/metrics") as answer:
                metrics = answer.read().decode()
            yield {**report, "provider": metrics.split('provider="', 1)[1].split('"', 1)[0]}


def by_the_board(bundle: Path, classes: Path) -> Iterator[Report]:
    while True:
        yield json.loads(inside(bundle, "python3", "-B", "check.py").splitlines()[-1])


def by_the_jvm(bundle: Path, classes: Path) -> Iterator[Report]:
    """Of the first bundle the Kotlin is compiled; that of others differs in constants that no check reads."""
    if classes.is_dir():
        kotlin = Kotlin(classes)
    else:
        unfinished = Path(tempfile.mkdtemp(dir=classes.parent))
        compiled(bundle, unfinished)
        kotlin = Kotlin(unfinished.rename(classes))
    while True:
        yield kotlin("check", bundle, code=None)


def by_chromium(bundle: Path, classes: Path) -> Iterator[Report]:
    with launched() as browser, served(bundle) as site:
        while True:
            page = browser.new_page()
            page.set_default_timeout(PATIENCE)
            page.goto(f"{site.url}/index.html")
            yield report_of(page)
            page.close()


RUNTIMES = {
    "server-tensorrt": (by_the_server, 3),
    "jetson-ort": (by_the_board, 1),  # qemu's times are no board's, and it takes long
    "mobile-ort": (by_the_jvm, 3),
    "browser-wasm": (by_chromium, 3),
}
"""Kind to what checks a bundle again and again there, and how often it is asked to."""


def check(kind: str, bundle: Path, classes: Path) -> Report:
    """The check's report: of several the quickest, passed where all of them did."""
    checks, times = RUNTIMES[kind]
    with closing(checks(bundle, classes)) as running:
        reports = list(itertools.islice(running, times))
    quickest = min(reports, key=lambda report: report.get("p50_ms") or math.inf)
    return {**quickest, "passed": all(report["passed"] for report in reports)}


def _golden(bundle: Path) -> Any:
    spec = importlib.util.spec_from_file_location("golden", bundle / "golden.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _tensors(inputs: dict[str, Any]) -> Iterator[Any]:
    for name, array in inputs.items():
        tensor = triton.InferInput(name, list(array.shape), TYPES[str(array.dtype)])
        tensor.set_data_from_numpy(np.ascontiguousarray(array))
        yield tensor


if __name__ == "__main__":
    print(json.dumps(check(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))))

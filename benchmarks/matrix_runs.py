"""A bundle's golden check on the runtime that its kind is for, as far as this machine has it.

server-tensorrt: the bundle's own server, asked by tritonclient. jetson-ort: ``check.py`` in the arm64 Debian
that ``tools/install-real-parts.sh`` makes, under qemu. mobile-ort: the bundle's Kotlin on the JVM.
browser-wasm: the bundle's page in headless Chromium. The tests' own scenes do the work.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.request import urlopen

TESTS = Path(__file__).resolve().parent.parent / "tests"
sys.path[:0] = [str(TESTS / "ssh"), str(TESTS / "targets" / "kinds")]

import numpy as np  # noqa: E402
import tritonclient.http as triton  # noqa: E402
from arm64_hosts import inside  # noqa: E402
from browser_scene import PATIENCE, launched, report_of, served  # noqa: E402
from jvm_scene import Kotlin, compiled  # noqa: E402
from server_scene import serving  # noqa: E402

Report = dict[str, Any]
TYPES = {"float32": "FP32", "float16": "FP16", "int64": "INT64", "int32": "INT32", "bool": "BOOL"}


class Runtimes:
    """Called with a kind and a bundle's folder: what the golden check reports there. A context manager.

    The Kotlin of the first bundle is compiled; that of the others differs in constants that no check reads.
    """

    def __enter__(self) -> Runtimes:
        self._stack = ExitStack()
        self._classes = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
        self._kotlin: Kotlin | None = None
        self._browser = self._stack.enter_context(launched())
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def __call__(self, kind: str, bundle: Path) -> Report:
        return {
            "server-tensorrt": self._server,
            "jetson-ort": self._board,
            "mobile-ort": self._phone,
            "browser-wasm": self._page,
        }[kind](bundle)

    def _server(self, bundle: Path) -> Report:
        manifest = json.loads((bundle / "bundle.json").read_text())
        golden = _golden(bundle)
        with serving(bundle) as server, triton.InferenceServerClient(server.host) as client:

            def run(inputs: dict[str, Any]) -> dict[str, Any]:
                answer = client.infer(manifest["model"]["name"], list(_tensors(inputs)))
                names = [output["name"] for output in answer.get_response()["outputs"]]
                return {name: answer.as_numpy(name) for name in names}

            report: Report = golden.check(run, str(bundle / "golden"), manifest["check"]["tolerance"])
            with urlopen(f"{server.address}/metrics") as answer:
                metrics = answer.read().decode()
        return {**report, "provider": metrics.split('provider="', 1)[1].split('"', 1)[0]}

    def _board(self, bundle: Path) -> Report:
        report: Report = json.loads(inside(bundle, "python3", "-B", "check.py").splitlines()[-1])
        return report

    def _phone(self, bundle: Path) -> Report:
        if self._kotlin is None:
            self._kotlin = compiled(bundle, self._classes)
        report: Report = self._kotlin("check", bundle, code=None)
        return report

    def _page(self, bundle: Path) -> Report:
        page = self._browser.new_page()
        page.set_default_timeout(PATIENCE)
        try:
            with served(bundle) as site:
                page.goto(f"{site.url}/index.html")
                report: Report = report_of(page)
        finally:
            page.close()
        return report


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

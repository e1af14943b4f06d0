"""``browser-wasm`` in a real browser: Chromium opens pages that post what they saw back to the test."""

from __future__ import annotations

import functools
import http.server
import json
import queue
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.real

SHOWN = """<!doctype html><iframe src="/releases/r1/index.html"></iframe><script type="module">
const frame = document.querySelector("iframe");
while (!frame.contentWindow.report) await new Promise((done) => setTimeout(done, 50));
const verdict = frame.contentDocument.getElementById("verdict").textContent;
const rows = [...frame.contentDocument.querySelectorAll("#outputs tr")].map((row) => row.textContent);
const seen = { report: frame.contentWindow.report, verdict, rows, isolated: crossOriginIsolated };
await fetch("/seen", { method: "POST", body: JSON.stringify(seen) });
</script>"""

FOLLOWED = """<!doctype html><script type="module">
import { loadCurrent } from "/releases/r1/model.js";
const x = { data: Float32Array.of(1, 2, 3, 4), dims: [1, 4] };
async function once() {
  const model = await loadCurrent("/current.json");
  const { y } = await model.run({ x });
  const seen = { version: model.bundle.model.version, y: [...y.data], verified: model.verified };
  return await (await fetch("/seen", { method: "POST", body: JSON.stringify(seen) })).text();
}
while ((await once()) === "again");
</script>"""


class Site:
    """Serves ``root``; each page's POST lands in ``seen`` and is answered by what ``after`` returns."""

    def __init__(self, root: Path, *, isolated: bool = False) -> None:
        self.root = root
        self.isolated = isolated
        self.seen: queue.Queue[Any] = queue.Queue()
        self.after: Callable[[], str] = lambda: ""


class Handler(http.server.SimpleHTTPRequestHandler):
    def __init__(self, site: Site, *arguments: Any) -> None:
        self.site = site
        super().__init__(*arguments, directory=str(site.root))

    def end_headers(self) -> None:
        if self.site.isolated:
            self.send_header("Cross-Origin-Opener-Policy", "same-origin")
            self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        super().end_headers()

    def do_POST(self) -> None:
        self.site.seen.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        answer = self.site.after().encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def opened(site: Site, page: str, profile: Path) -> Iterator[None]:
    """Chromium at ``page`` of the site, as long as the block runs."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    assert chromium, "tools/install-real-parts.sh installs Chromium"
    handler = functools.partial(Handler, site)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://localhost:{server.server_address[1]}/{page}"
        argv = [
            chromium,
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            f"--user-data-dir={profile}",
            url,
        ]
        with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as browser:
            try:
                yield
            finally:
                browser.terminate()
                server.shutdown()


@pytest.mark.parametrize("isolated", [True, False])
def test_the_page_shows_a_passed_check(tiny: Any, tmp_path: Path, isolated: bool) -> None:
    site = Site(tmp_path / "site", isolated=isolated)
    tiny.export("browser-wasm", site.root / "releases" / "r1")
    (site.root / "shown.html").write_text(SHOWN)
    with opened(site, "shown.html", tmp_path / "profile"):
        seen = site.seen.get(timeout=60)
    assert seen["report"]["passed"] is True
    assert seen["report"]["max_abs"] <= 1e-6
    assert seen["report"]["provider"] == "wasm"
    assert seen["isolated"] is isolated
    assert seen["verdict"].startswith("Passed")
    assert len(seen["rows"]) == 1
    assert seen["rows"][0].startswith("y")


def test_the_page_refuses_a_damaged_model(tiny: Any, tmp_path: Path) -> None:
    site = Site(tmp_path / "site")
    tiny.export("browser-wasm", site.root / "releases" / "r1")
    graph = site.root / "releases" / "r1" / "model.onnx"
    graph.write_bytes(graph.read_bytes()[:-1] + b"\0")
    (site.root / "shown.html").write_text(SHOWN)
    with opened(site, "shown.html", tmp_path / "profile"):
        seen = site.seen.get(timeout=60)
    assert seen["report"]["passed"] is False
    assert seen["verdict"].startswith("model.onnx is damaged")


def test_a_page_follows_a_promotion_and_a_rollback(make_version: Callable[..., Any], tmp_path: Path) -> None:
    site = Site(tmp_path / "site")
    expected = {}
    for number in (1, 2):
        weights = np.abs(np.random.default_rng(number).normal(size=(4, 3))).astype(np.float32)
        made = make_version(version=number, weights=weights, golden_weights=weights)
        made.export("browser-wasm", site.root / "releases" / f"r{number}")
        expected[number] = np.array([1, 2, 3, 4], np.float32) @ weights

    def point(number: int) -> None:
        (site.root / "current.json").write_text(json.dumps({"path": f"releases/r{number}/"}))

    order = [2, 1]

    def deploy_next() -> str:
        if not order:
            return ""
        point(order.pop(0))
        return "again"

    point(1)
    site.after = deploy_next
    (site.root / "followed.html").write_text(FOLLOWED)
    with opened(site, "followed.html", tmp_path / "profile"):
        for number in (1, 2, 1):
            seen = site.seen.get(timeout=60)
            assert seen["version"] == number
            assert seen["verified"] is True
            np.testing.assert_allclose(seen["y"], expected[number], rtol=1e-6)

"""A destination's folder over HTTP, and headless Chromium to look at it."""

from __future__ import annotations

import functools
import http.server
import json
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

from shipway.targets.manifest import Manifest
from shipway.targets.steps import Pointer, Release

PATIENCE = 60_000  # milliseconds, for a busy machine


@dataclass
class Site:
    """A destination's folder and how it is served; ``asked`` are the paths that reached the server."""

    root: Path
    headers: dict[str, str] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    url: str = ""
    stop: Callable[[], None] = lambda: None

    def release(self, made: Any, **options: Any) -> Manifest:
        manifest: Manifest = made.build("browser-wasm", **options)
        made.export("browser-wasm", self.root / "releases" / manifest.release_id, **options)
        return manifest

    def point(self, manifest: Manifest, serial: int) -> None:
        release = Release(manifest)
        pointer = Pointer(
            "prod", "web", serial, manifest.model, manifest.version, release.bundle, manifest.release_id
        )
        (self.root / "current.json").write_text(json.dumps(pointer.to_json()))

    def page(self, manifest: Manifest) -> str:
        return f"{self.url}/releases/{manifest.release_id}/index.html"


class Handler(http.server.SimpleHTTPRequestHandler):
    def __init__(self, site: Site, *arguments: Any) -> None:
        self.site = site
        super().__init__(*arguments, directory=str(site.root))

    def end_headers(self) -> None:
        # What works without a network must not owe it to the browser's own cache.
        for name, value in {"Cache-Control": "no-store", **self.site.headers}.items():
            self.send_header(name, value)
        super().end_headers()

    def do_GET(self) -> None:
        self.site.asked.append(self.path)
        super().do_GET()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def served(root: Path) -> Iterator[Site]:
    site = Site(root)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, site))
    server.daemon_threads = True
    server.block_on_close = False
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def stop() -> None:
        server.shutdown()
        server.server_close()

    site.url, site.stop = f"http://localhost:{server.server_address[1]}", stop
    yield site
    site.stop()


@contextmanager
def launched() -> Iterator[Browser]:
    program = shutil.which("chromium") or shutil.which("google-chrome")
    assert program, "tools/install-real-parts.sh installs Chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


def report_of(page: Page) -> Any:
    """What the golden check of a bundle's page found."""
    page.wait_for_function("window.report !== undefined")
    return page.evaluate("window.report")

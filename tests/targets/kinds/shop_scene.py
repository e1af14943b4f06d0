"""A destination's folder over HTTP, as updaters on phones see it, with faults to inject."""

from __future__ import annotations

import functools
import http.server
import json
import threading
import time
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shipway.targets.steps import Pointer, Release


@dataclass
class Shop:
    """A destination over HTTP that misbehaves: ``faults`` says what happens to paths by their end."""

    root: Path
    faults: dict[str, str] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def release(self, made: Any) -> Any:
        manifest = made.build("mobile-ort")
        home = self.root / "releases" / manifest.release_id
        if not home.exists():
            made.export("mobile-ort", home)
        return manifest

    def point(self, manifest: Any, serial: int) -> None:
        bundle = Release(manifest).bundle
        pointer = Pointer(
            "prod", "mobile", serial, manifest.model, manifest.version, bundle, manifest.release_id
        )
        (self.root / "current.json").write_text(json.dumps(pointer.to_json()))


class Counter(http.server.BaseHTTPRequestHandler):
    """Answers for a Shop."""

    def __init__(self, shop: Shop, *arguments: Any) -> None:
        self.shop = shop
        super().__init__(*arguments)

    def do_GET(self) -> None:
        path = urllib.parse.unquote(self.path)
        self.shop.asked.append(path)
        fault = next((fault for end, fault in self.shop.faults.items() if path.endswith(end)), "")
        file = self.shop.root / path.lstrip("/")
        if fault == "refuse" or not file.is_file():
            self.send_error(503 if fault else 404)
            return
        content = file.read_bytes()
        sent = {
            "truncate": content[: len(content) // 2],
            "stall": content[: len(content) // 2],
            "corrupt": bytes([content[0] ^ 1]) + content[1:],
            "pad": content + b"\0" * 1000,
        }.get(fault, content)
        self.send_response(200)
        self.send_header("Content-Length", str(max(len(content), len(sent))))
        self.end_headers()
        if fault == "drip":
            self._drip(content)
            return
        self.wfile.write(sent)
        self.wfile.flush()
        if fault == "stall":
            time.sleep(120)

    def _drip(self, content: bytes) -> None:
        """Never silent for long, and never done in time."""
        try:
            for byte in content:
                self.wfile.write(bytes([byte]))
                self.wfile.flush()
                time.sleep(0.2)
        except OSError:
            pass  # the client has had enough

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def served(shop: Shop) -> Iterator[str]:
    handler = functools.partial(Counter, shop)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/current.json"
        server.shutdown()

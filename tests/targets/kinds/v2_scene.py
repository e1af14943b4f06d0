"""A server of the Open Inference Protocol in a few lines, with Triton's conventions and faults to inject.

It shares no code with shipway's own server: it serves ``relu(x @ weights)`` as JSON, several versions at
once, knows nothing of bundles, and answers requests that name no version with the highest one.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np


@dataclass
class Scene:
    """What the server serves (weights by version) and how it misbehaves."""

    versions: dict[int, np.ndarray[Any, Any]]
    extensions: tuple[str, ...] = ()
    slow_s: float = 0.0
    busy: int = 0  # inference requests that are still to be answered with 503
    unready: int = 0  # questions about readiness that are still to be answered with 400
    change: Any = None  # called with the answer's JSON; what it returns is sent in its place
    raw: bytes | None = None  # sent in place of any answer to an inference request
    hang_up: bool = False  # in the middle of the answer
    asked: list[dict[str, Any]] = field(default_factory=list)
    address: str = ""


@contextmanager
def serving_v2(scene: Scene) -> Iterator[Scene]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        disable_nagle_algorithm = True

        def log_message(self, *_: Any) -> None:
            pass

        def do_GET(self) -> None:
            parts = self.path.strip("/").split("/")[1:]
            if not parts:
                self.answer(200, {"name": "scene", "version": "1", "extensions": scene.extensions})
            elif parts == ["health", "ready"]:
                self.answer(200 if scene.unready <= 0 else 400)
            elif parts[:2] != ["models", "tiny"]:
                self.answer(400, {"error": "unknown model"})
            elif parts[2:] == []:
                self.answer(200, {"name": "tiny", "versions": [str(number) for number in scene.versions]})
            elif parts[2] == "versions" and parts[4:] == ["ready"]:
                scene.unready -= 1
                self.answer(200 if scene.unready < 0 and int(parts[3]) in scene.versions else 400)
            elif parts[2] == "versions" and parts[4:] == ["config"]:
                self.answer(200, {"name": "tiny", "backend": "onnxruntime", "max_batch_size": 8})
            else:
                self.answer(404)

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            scene.asked.append(body)
            time.sleep(scene.slow_s)
            if scene.busy > 0:
                scene.busy -= 1
                self.answer(503, {"error": "queue full"})
                return
            (tensor,) = body["inputs"]
            version = max(scene.versions)
            x = np.array(tensor["data"], np.float32).reshape(tensor["shape"])
            y = np.maximum(x @ scene.versions[version], 0)
            output = {"name": "y", "datatype": "FP32", "shape": list(y.shape), "data": y.reshape(-1).tolist()}
            answer = {"model_name": "tiny", "model_version": str(version), "outputs": [output]}
            self.answer(200, scene.change(answer) if scene.change else answer, scene.raw)

        def answer(self, status: int, document: Any = None, raw: bytes | None = None) -> None:
            body = b"" if document is None else json.dumps(document).encode()
            body = raw if raw is not None else body
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if scene.hang_up and self.command == "POST":
                self.wfile.write(body[:10])
                self.close_connection = True
                return
            self.wfile.write(body)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        scene.address = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield scene
        finally:
            server.shutdown()
            thread.join()

"""An HTTP proxy that breaks things on order: what a bad network or a sick service does to a client.

Tests of anything that talks HTTP may use it: put it in front of a real server and plan faults. Every request
is recorded with what happened to it, so that a test can count requests and bytes.
"""

from __future__ import annotations

import http.client
import re
import socket
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

_PER_HOP = frozenset({"connection", "keep-alive", "proxy-connection", "transfer-encoding", "expect"})
_CHUNK = 1 << 16


@dataclass
class Fault:
    """What to do to requests whose method, path (query included) and Range match, ``times`` times.

    ``status``: answer with it at once, the server never hears of the request. ``drop``: the connection ends,
    and the server never hears of it either, as where it is dead. ``lose``: the server does what
    was asked, but its answer is cut off before the first byte. ``cut``: the answer ends after so many bytes
    of its body. ``corrupt``: that byte of the answer's body is flipped. ``spoil``: that byte of the request's
    body is flipped on its way to the server. ``delay``: seconds before anything is done; what still waits
    when the proxy ends is dropped. ``rate``: bytes per second of the answer's body. ``strip``: a header of
    the request that the server never sees. ``skip``: matching requests to let pass first. ``each``: every
    request that differs by method, path or range is struck once.
    """

    method: str = ".*"
    path: str = ".*"
    range: str = ""  # what the Range header holds
    times: int = 1
    skip: int = 0
    each: bool = False
    status: int = 0
    code: str = "InternalError"  # the S3 error code in the body of a ``status`` answer
    drop: bool = False
    lose: bool = False
    cut: int | None = None
    corrupt: int | None = None
    spoil: int | None = None
    delay: float = 0.0
    rate: float = 0.0
    strip: str = ""
    hits: int = 0  # how often it struck
    struck: set[tuple[str, str, str]] = field(default_factory=set)

    def strikes(self, method: str, path: str, span: str) -> bool:
        if not (re.fullmatch(self.method, method) and re.search(self.path, path) and self.range in span):
            return False
        if self.skip > 0:
            self.skip -= 1
            return False
        if self.each:
            if (method, path, span) in self.struck:
                return False
            self.struck.add((method, path, span))
        elif self.hits >= self.times:
            return False
        self.hits += 1
        return True


@dataclass
class Request:
    """One request as it went through: body sizes in bytes; ``status`` 0 where the client got no answer."""

    method: str
    path: str
    sent: int
    headers: dict[str, str]
    status: int = 0
    received: int = 0
    fault: Fault | None = None


@dataclass
class _State:
    upstream: tuple[str, int]
    faults: list[Fault] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    over: threading.Event = field(default_factory=threading.Event)


class FaultProxy:
    """``with FaultProxy(host, port) as proxy``: listens on ``proxy.url`` and forwards to ``host:port``."""

    def __init__(self, host: str, port: int) -> None:
        self._state = _State((host, port))
        state = self._state

        class Handler(_Handler):
            shared = state

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def requests(self) -> list[Request]:
        """Every request so far, in the order of arrival."""
        with self._state.lock:
            return list(self._state.requests)

    def plan(self, **what: Any) -> Fault:
        """Add a ``Fault``. The first planned one that strikes a request is what happens to it."""
        fault = Fault(**what)
        with self._state.lock:
            self._state.faults.append(fault)
        return fault

    def forget(self) -> None:
        """Start over: no faults planned, nothing recorded."""
        with self._state.lock:
            self._state.faults.clear()
            self._state.requests.clear()

    def __enter__(self) -> FaultProxy:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._state.over.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    shared: _State
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else every answer waits 40 ms for the client's delayed ACK

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except (ConnectionError, TimeoutError):
            self.close_connection = True  # the client went away

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        seen = Request(self.command, self.path, len(body), dict(self.headers.items()))
        with self.shared.lock:
            self.shared.requests.append(seen)
            what = (seen.method, seen.path, self.headers.get("Range", ""))
            seen.fault = next((fault for fault in self.shared.faults if fault.strikes(*what)), None)
        fault = seen.fault or Fault()
        if self.shared.over.wait(fault.delay) or fault.drop:
            self._hang_up()
            return
        if fault.status:
            self._refuse(seen, fault)
            return
        if fault.spoil is not None:
            body = _flipped(body, fault.spoil)
        answer, data = self._forward(body, fault.strip)
        if fault.lose:
            self._hang_up()
            return
        seen.status = answer.status
        self._answer(seen, fault, answer, data)

    do_GET = do_PUT = do_POST = do_PATCH = do_HEAD = do_DELETE = _serve

    def _refuse(self, seen: Request, fault: Fault) -> None:
        text = f"<Error><Code>{fault.code}</Code><Message>planned by the test</Message></Error>"
        data = b"" if seen.method == "HEAD" else text.encode()
        seen.status = fault.status
        self.send_response(fault.status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _forward(self, body: bytes, strip: str) -> tuple[http.client.HTTPResponse, bytes]:
        host, port = self.shared.upstream
        upstream = http.client.HTTPConnection(host, port, timeout=60)
        try:
            upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in (*_PER_HOP, strip.lower()):
                    upstream.putheader(
                        name, value
                    )  # Host too, as the client wrote it: it is part of signatures
            upstream.endheaders(body)
            answer = upstream.getresponse()
            return answer, answer.read()
        finally:
            upstream.close()

    def _answer(self, seen: Request, fault: Fault, answer: http.client.HTTPResponse, data: bytes) -> None:
        if fault.corrupt is not None:
            data = _flipped(data, fault.corrupt)
        self.send_response_only(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in (*_PER_HOP, "content-length"):
                self.send_header(name, value)
        length = answer.getheader("Content-Length") or "0" if seen.method == "HEAD" else str(len(data))
        self.send_header("Content-Length", length)
        self.end_headers()
        allowed = data if fault.cut is None else data[: fault.cut]
        for start in range(0, len(allowed), _CHUNK):
            self.wfile.write(allowed[start : start + _CHUNK])
            seen.received += len(allowed[start : start + _CHUNK])
            if fault.rate:
                time.sleep(min(_CHUNK, len(allowed) - start) / fault.rate)
        if len(allowed) < len(data):
            self._hang_up()

    def _hang_up(self) -> None:
        self.close_connection = True
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: requests are recorded instead."""


def _flipped(data: bytes, at: int) -> bytes:
    return data if at >= len(data) else data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]

"""A small client of the Open Inference Protocol, version 2, over REST: enough to ask whether a server works.

https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md; tensors
travel as bytes where the server says that it takes them
(https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md), else as
JSON, which can't say NaN. Standard library alone: promote runs where NumPy need not be.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import math
import socket
import struct
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from shipway.registry.nouns import Json

_FORMATS = {  # protocol's name of a dtype and struct's format of one element, by NumPy's name
    "bool": ("BOOL", "?"),
    "float16": ("FP16", "e"),
    "float32": ("FP32", "f"),
    "float64": ("FP64", "d"),
    "int8": ("INT8", "b"),
    "int16": ("INT16", "h"),
    "int32": ("INT32", "i"),
    "int64": ("INT64", "q"),
    "uint8": ("UINT8", "B"),
    "uint16": ("UINT16", "H"),
    "uint32": ("UINT32", "I"),
    "uint64": ("UINT64", "Q"),
}
_MOST = 1 << 28  # bytes of an answer: more than any slice of golden outputs has
_CUT = "Inference-Header-Content-Length"  # bytes of JSON before the tensors' own bytes


class Unanswered(Exception):
    """The server gave no answer, or one that is none of the protocol's; the message says which."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor on its way. ``data``: little endian, C order, bool as one byte. ``dtype``: NumPy's name."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    data: bytes

    def values(self, stride: int = 1) -> tuple[float, ...]:
        """Every ``stride``-th element, flattened."""
        return unpack(self.dtype, self.data, stride)


def unpack(dtype: str, data: bytes, stride: int = 1) -> tuple[float, ...]:
    """Elements 0, ``stride``, 2 * ``stride``, ... of raw little-endian ``data``."""
    code = _FORMATS[dtype][1]
    size = struct.calcsize(f"<{code}")
    if stride > 1:
        data = b"".join(data[at : at + size] for at in range(0, len(data), size * stride))
    return struct.unpack(f"<{len(data) // size}{code}", data)


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def ok(self) -> bool:
        return self.status == 200

    def json(self) -> Json:
        """The body as an object; empty where it is something else."""
        try:
            found = json.loads(self.body)
        except (ValueError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}

    def __str__(self) -> str:
        error = self.json().get("error")
        return f"HTTP {self.status}" + (f": {str(error)[:500]}" if error else "")


@dataclass(frozen=True, slots=True)
class Inferred:
    """What an inference gave: the version that answered, if the server says so, and its outputs by name."""

    version: str | None
    outputs: Mapping[str, Tensor]


class Client:
    """One kept-alive connection to the server at ``url``. ``timeout``: seconds until an answer is whole.

    Connecting, and a TLS handshake, may take as long again each.
    """

    def __init__(self, url: str, timeout: float) -> None:
        parts = urlsplit(url)
        sort = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._connection = sort(parts.hostname or "", parts.port, timeout=timeout)
        self._base = parts.path.rstrip("/")
        self._timeout = timeout

    def get(self, path: str) -> Answer:
        """Raises Unanswered."""
        return self._ask("GET", path, None, {})

    def close(self) -> None:
        self._connection.close()

    def takes_bytes(self) -> bool:
        """Whether tensors may travel as bytes. Raises Unanswered."""
        return "binary_tensor_data" in (self.get("/v2").json().get("extensions") or ())

    def infer(self, path: str, request: Request) -> Answer:
        """Send a prepared request. Raises Unanswered."""
        return self._ask("POST", path, request.body, request.headers)

    def _ask(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> Answer:
        late = threading.Event()
        try:
            if self._connection.sock is None:
                self._connection.connect()
            with _shut(self._connection.sock, self._timeout, late):
                self._connection.request(method, self._base + path, body, dict(headers))
                answer = self._connection.getresponse()
                content = answer.read(_MOST + 1)
                if answer.length and len(content) <= _MOST:  # which reading so many bytes does not tell
                    raise http.client.IncompleteRead(content, answer.length)
                answer.close()
        except (OSError, http.client.HTTPException) as error:
            self.close()  # what is left of this answer must not be taken for the next one
            raise Unanswered(_reason(TimeoutError() if late.is_set() else error)) from error
        if late.is_set() or len(content) > _MOST:
            self.close()
            raise Unanswered(
                "no answer in time" if late.is_set() else f"an answer of more than {_MOST} bytes"
            )
        return Answer(answer.status, {name.lower(): text for name, text in answer.getheaders()}, content)


@contextlib.contextmanager
def _shut(connected: socket.socket, seconds: float, late: threading.Event) -> Iterator[None]:
    """End the connection when time is up: a socket's own timeout begins anew with each byte that comes."""

    def end() -> None:
        late.set()
        with contextlib.suppress(OSError):
            socket.socket.shutdown(connected, socket.SHUT_RDWR)  # also below TLS

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    text = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return text or type(error).__name__


@dataclass(frozen=True, slots=True)
class Request:
    """An inference request, made once and sent many times."""

    body: bytes
    headers: Mapping[str, str]


def request(inputs: Sequence[Tensor], *, binary: bool) -> Request:
    """Ask for all outputs; tensors as bytes in both directions where ``binary``."""
    entries: list[dict[str, Any]] = []
    for tensor in inputs:
        entry = {
            "name": tensor.name,
            "datatype": _FORMATS[tensor.dtype][0],
            "shape": list(tensor.shape),
        }
        extra = (
            {"parameters": {"binary_data_size": len(tensor.data)}} if binary else {"data": tensor.values()}
        )
        entries.append({**entry, **extra})
    document = {"inputs": entries, **({"parameters": {"binary_data_output": True}} if binary else {})}
    text = json.dumps(document).encode()
    if not binary:
        return Request(text, {"Content-Type": "application/json"})
    headers = {"Content-Type": "application/octet-stream", _CUT: str(len(text))}
    return Request(b"".join([text, *(tensor.data for tensor in inputs)]), headers)


def inferred(answer: Answer) -> Inferred:
    """Read the answer to an inference request. Raises Unanswered where it is none."""
    try:
        cut = int(answer.headers.get(_CUT.lower(), len(answer.body)))
        document, at = json.loads(answer.body[:cut]), cut
        outputs = {}
        for entry in document["outputs"]:
            dtype = next(name for name, (v2, _) in _FORMATS.items() if v2 == entry["datatype"])
            size = entry.get("parameters", {}).get("binary_data_size")
            if size is None:
                code = _FORMATS[dtype][1]
                values = [bool(value) if code == "?" else value for value in _flat(entry["data"])]
                data = struct.pack(f"<{len(values)}{code}", *values)
            else:
                data, at = answer.body[at : at + size], at + size
            if math.prod(entry["shape"]) * struct.calcsize(f"<{_FORMATS[dtype][1]}") != len(data):
                raise ValueError(f"{len(data)} bytes for {entry['name']} of shape {entry['shape']}")
            outputs[entry["name"]] = Tensor(entry["name"], dtype, tuple(entry["shape"]), data)
        version = document.get("model_version")
    except (
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        StopIteration,
        RecursionError,
        struct.error,
    ) as error:
        raise Unanswered(f"an answer that is none of the protocol's ({error!r})") from error
    return Inferred(str(version) if version is not None else None, outputs)


def _flat(data: Json) -> list[Json]:
    """The protocol allows nested rows beside the flat list."""
    if not any(isinstance(item, list) for item in data):
        return list(data)
    return [value for item in data for value in _flat(item)]

"""The gate ``url``: against the bundle's own server, and against one with Triton's conventions and faults."""

from __future__ import annotations

import contextlib
import itertools
import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from server_scene import call, serving, weights_of
from v2_scene import Scene, serving_v2

from shipway.registry.config.load import load_text
from shipway.registry.config.project import Project
from shipway.registry.errors import DeliveryError
from shipway.registry.nouns import ModelRef, Tolerance
from shipway.registry.store.store import Store
from shipway.registry.verbs.promote import promote
from shipway.registry.verbs.rollback import rollback
from shipway.targets.deliveries import gates_url, v2_client
from shipway.targets.deliveries.v2_client import Answer, Tensor, Unanswered
from shipway.targets.manifest import Manifest
from shipway.targets.steps import Gate, Release

CONFIG = """
project: gate
store: made/store
targets:
  server: {{kind: server-tensorrt, providers: [cpu], threads: {threads}}}
environments:
  prod:
    server: {{to: live, gate: {gate}}}
"""
V1, V2 = ModelRef("tiny", version=1), ModelRef("tiny", version=2)


@pytest.fixture(autouse=True)
def _no_mirror(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHIPWAY_MIRROR", "off")


@pytest.fixture
def project(make_in: Callable[..., Any], tmp_path: Path) -> Callable[..., Project]:
    """Versions 1 and 2 in a store, the first of them live; gives projects that differ in their gate."""
    for number in (1, 2):
        weights = weights_of(number)
        make_in(tmp_path / "made", version=number, weights=weights, golden_weights=weights)

    def at(gate: str = "{}", threads: int = 0) -> Project:
        return load_text(CONFIG.format(gate=gate, threads=threads), tmp_path)

    promote(at(), V1, "prod")
    return at


def live(root: Path) -> tuple[int, Path]:
    pointer = json.loads((root / "live/current.json").read_text())
    return pointer["version"], root / "live" / pointer["path"].strip("/")


@pytest.fixture
def own_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time passes for the gate only while it pauses, and that at once: a slow machine changes nothing."""
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    clock = SimpleNamespace(monotonic=lambda: now[0], sleep=sleep, perf_counter=time.perf_counter)
    monkeypatch.setattr(gates_url, "time", clock)


# the bundle's own server


def test_a_server_that_follows_passes(project: Callable[..., Project], tmp_path: Path) -> None:
    _, folder = live(tmp_path)
    with serving(folder, "--root", tmp_path / "live", "--follow", "0.1") as server:
        gated = project(f"{{url: '{server.address}', p95_ms: 60000, timeout_s: 120}}")
        promote(gated, V2, "prod")
        assert live(tmp_path)[0] == 2
        assert json.loads(call(f"{server.address}/v2/models/tiny")[1])["versions"] == ["2"]
        counted = b'shipway_inference_requests_total{model="tiny",status="200",version="2"} 101'
        assert counted in sorted_labels(call(f"{server.address}/metrics")[1])
        rollback(gated, "prod")
        assert live(tmp_path)[0] == 1
        assert json.loads(call(f"{server.address}/v2/models/tiny")[1])["versions"] == ["1"]


def sorted_labels(metrics: bytes) -> bytes:
    """Each sample with its labels in the order of their names."""
    lines = []
    for line in metrics.splitlines():
        name, brace, rest = line.partition(b"{")
        labels, _, value = rest.rpartition(b"}")
        lines.append(name + brace + b",".join(sorted(labels.split(b","))) + b"}" + value if brace else line)
    return b"\n".join(lines)


@pytest.mark.usefixtures("own_time")
def test_a_server_of_the_old_release_does_not_pass(project: Callable[..., Project], tmp_path: Path) -> None:
    _, folder = live(tmp_path)
    with serving(folder) as server:
        url = server.address
        with pytest.raises(DeliveryError, match="does not serve tiny/2") as caught:
            promote(project(f"{{url: '{url}', timeout_s: 30}}"), V2, "prod")
        assert caught.value.why == "It serves version 1 of tiny."
        assert "--follow" in caught.value.remedy
        assert live(tmp_path) == (1, folder)
        # The same version in another bundle is told apart as well, and the server's own passes.
        with pytest.raises(DeliveryError, match="does not serve tiny/1") as caught:
            promote(project(f"{{url: '{url}', timeout_s: 30}}", threads=1), V1, "prod")
        assert caught.value.why.startswith("It serves that version from another bundle (sha256:")
        judge(manifest_of(folder), url, project().store)
    with pytest.raises(DeliveryError) as caught:
        promote(project(f"{{url: '{url}', timeout_s: 30}}"), V2, "prod")
    assert caught.value.why == "It gives no answer: Connection refused."
    assert live(tmp_path) == (1, folder)


def test_a_server_with_wrong_numbers_does_not_pass(
    project: Callable[..., Project], make_in: Callable[..., Any], tmp_path: Path
) -> None:
    made = {"weights": weights_of(3) * 1.01, "golden_weights": weights_of(3)}
    make_in(tmp_path / "made", version=3, **made)
    _, folder = live(tmp_path)
    following = ("--root", tmp_path / "live", "--follow", "0.1", "--unproved")
    with serving(folder, *following) as server:
        gate = f"{{url: '{server.address}', timeout_s: 120}}"
        with pytest.raises(DeliveryError, match="gives other numbers than tiny/3") as caught:
            promote(project(gate), ModelRef("tiny", version=3), "prod")
    assert caught.value.why.startswith("y is off by ")
    assert live(tmp_path) == (1, folder)


# a server of somebody else's


def manifest_of(folder: Path) -> Manifest:
    return Manifest.from_bytes((folder / "bundle.json").read_bytes())


def judge(manifest: Manifest, url: str, store: Store, host: str = "", **options: Any) -> None:
    """Hold the server at ``url`` against ``manifest``, golden inputs from the store."""
    gates_url.judge(Gate(Release(manifest), "url", {"url": url, **options}), store.open, host)


@pytest.fixture(scope="module")
def made(make_in: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    weights = weights_of(1)
    return make_in(tmp_path_factory.mktemp("gate"), weights=weights, golden_weights=weights)


@pytest.fixture(scope="module")
def manifest(made: Any) -> Manifest:
    found: Manifest = made.build("server-tensorrt", providers=["cpu"])
    return found


@pytest.fixture(scope="module")
def store(made: Any) -> Store:
    found: Store = made.store
    return found


def test_triton_s_conventions_pass(manifest: Manifest, store: Store) -> None:
    with serving_v2(Scene({1: weights_of(1)})) as scene:
        judge(manifest, scene.address, store, p95_ms=60000)
        judge(manifest, scene.address.replace("127.0.0.1", "{host}"), store, host="127.0.0.1")
        assert len(scene.asked) == 1 + 100 + 1
        assert scene.asked[0]["inputs"][0]["shape"] == [2, 4]


def test_what_is_not_ready_or_busy_is_asked_again(manifest: Manifest, store: Store) -> None:
    with serving_v2(Scene({1: weights_of(1)}, unready=2, busy=2)) as scene:
        judge(manifest, scene.address, store)
        assert (scene.unready, scene.busy) == (-1, 0)


@pytest.mark.usefixtures("own_time")
@pytest.mark.parametrize(
    ("faults", "what", "why"),
    [
        ({"unready": 99}, "does not serve tiny/1", "It is not ready (HTTP 400)."),
        ({"busy": 99}, "does not serve tiny/1", "no time for the golden inputs (HTTP 503: queue full)"),
        ({"versions": {2: weights_of(1)}}, "does not serve tiny/1", "It serves version 2 of tiny."),
        (
            {"versions": {1: weights_of(1), 2: weights_of(2)}},
            "does not serve tiny/1",
            "Requests that name no version are answered by version 2.",
        ),
        ({"versions": {1: weights_of(2)}}, "other numbers than tiny/1", "y is off by"),
        ({"versions": {1: weights_of(1) * np.nan}}, "other numbers than tiny/1", "y is off by nan"),
        ({"raw": b"<html>"}, "does not serve tiny/1", "none of the protocol's"),
        ({"raw": b'{"outputs": [{"name": "y"}]}'}, "does not serve tiny/1", "none of the protocol's"),
        ({"hang_up": True}, "does not serve tiny/1", "It gives no answer: IncompleteRead"),
        ({"change": lambda a: {**a, "outputs": []}}, "other numbers", "y is missing; it gives nothing"),
        (
            {"change": lambda a: {**a, "outputs": [{**a["outputs"][0], "shape": [3, 2]}]}},
            "other numbers",
            "y has the shape [3, 2], not [2, 3]",
        ),
    ],
)
def test_each_fault_is_named(
    manifest: Manifest, store: Store, faults: dict[str, Any], what: str, why: str
) -> None:
    with (
        serving_v2(Scene(**{"versions": {1: weights_of(1)}, **faults})) as scene,
        pytest.raises(DeliveryError, match=what) as caught,
    ):
        judge(manifest, scene.address, store, timeout_s=30)
    assert why in caught.value.why
    assert caught.value.remedy


def test_a_slow_server_does_not_pass(manifest: Manifest, store: Store) -> None:
    with serving_v2(Scene({1: weights_of(1)}, slow_s=0.02)) as scene:
        with pytest.raises(DeliveryError, match="too slow: 6 of 6 requests were not answered within 10 ms"):
            judge(manifest, scene.address, store, p95_ms=10)
        assert len(scene.asked) == 1 + 6


@pytest.mark.parametrize("late", [5, 6])
def test_five_of_a_hundred_may_be_late(late: int) -> None:
    fast, slow = (3.0, Answer(200, {}, b"")), (50.0, Answer(200, {}, b""))
    timed = itertools.chain([fast] * (100 - late), [slow] * late)
    if late <= gates_url.LATE:
        gates_url.hurry("http://x", timed, 40)
    else:
        with pytest.raises(DeliveryError, match="6 of 100"):
            gates_url.hurry("http://x", timed, 40)


def test_what_the_server_refuses_counts_as_late() -> None:
    with pytest.raises(DeliveryError, match="6 of 6") as caught:
        gates_url.hurry("http://x", [(1.0, Answer(503, {}, b'{"error": "full"}'))] * 6, 40)
    assert "HTTP 503: full" in caught.value.why


def test_a_server_that_stops_in_the_middle_is_told(manifest: Manifest, store: Store) -> None:
    scene = Scene({1: weights_of(1)})

    def stop(answer: Any) -> Any:
        scene.hang_up = len(scene.asked) > 3
        return answer

    scene.change = stop
    with (
        serving_v2(scene),
        pytest.raises(DeliveryError, match="stopped answering in the middle of the gate"),
    ):
        judge(manifest, scene.address, store, p95_ms=60000)


def test_a_bundle_without_a_readable_golden_slice_is_told(manifest: Manifest, tmp_path: Path) -> None:
    def gone(_: object) -> Path:
        return tmp_path / "not there"

    gate = Gate(Release(manifest), "url", {"url": "http://127.0.0.1:9"})
    with pytest.raises(DeliveryError, match=r"golden slice of tiny/1 can't be read") as caught:
        gates_url.judge(gate, gone)
    assert "not there" in caught.value.why


# the wire

DTYPES = [
    "bool",
    "float16",
    "float32",
    "float64",
    *(f"{u}int{b}" for u in ("", "u") for b in (8, 16, 32, 64)),
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("binary", [True, False])
def test_every_dtype_travels_as_it_is(dtype: str, binary: bool) -> None:
    array = np.array([[0, 1, 1], [1, 0, 3]]).astype(dtype)
    sent = Tensor("x", dtype, array.shape, array.tobytes())
    asked = v2_client.request([sent], binary=binary)
    # What was asked is turned into an answer, as a server that echoes would.
    cut = int(asked.headers.get("Inference-Header-Content-Length", len(asked.body)))
    document = json.loads(asked.body[:cut])
    document["outputs"] = document.pop("inputs")
    text = json.dumps(document).encode()
    headers = {"inference-header-content-length": str(len(text))} if binary else {}
    found = v2_client.inferred(Answer(200, headers, text + asked.body[cut:]))
    assert found.outputs == {"x": sent}
    assert found.outputs["x"].values(2) == tuple(array.reshape(-1)[::2].tolist())


def test_nested_rows_are_flattened() -> None:
    output = {"name": "y", "datatype": "FP32", "shape": [2, 2], "data": [[1, 2], [3, 4]]}
    found = v2_client.inferred(Answer(200, {}, json.dumps({"outputs": [output]}).encode()))
    assert found.version is None
    assert found.outputs["y"].values() == (1.0, 2.0, 3.0, 4.0)


def test_bytes_that_are_too_few_are_no_answer_to_pass() -> None:
    output = {"name": "y", "datatype": "FP32", "shape": [2], "parameters": {"binary_data_size": 8}}
    text = json.dumps({"outputs": [output]}).encode()
    headers = {"inference-header-content-length": str(len(text))}
    with pytest.raises(Unanswered):
        v2_client.inferred(Answer(200, headers, text + struct.pack("<f", 1.0)))


def test_outputs_are_thinned_as_the_golden_ones() -> None:
    values = np.arange(10, dtype=np.float32)
    given = {"y": Tensor("y", "float32", (10,), values.tobytes())}
    wanted = gates_url.Expected("y", (10,), tuple(values[::3].tolist()), 3, 9.0)
    assert gates_url.differences(given, [wanted], Tolerance(0, 0)) == []
    off = gates_url.Expected("y", (10,), tuple((values[::3] + 0.5).tolist()), 3, 9.0)
    assert gates_url.differences(given, [off], Tolerance(0.1, 0.01)) == ["y is off by 0.5; 0.19 is allowed"]


def test_nobody_listens_on_a_host_of_the_url() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        client = v2_client.Client(f"http://127.0.0.1:{taken.getsockname()[1]}/base", 1)
        with pytest.raises(Unanswered, match="Connection refused"):
            client.get("/v2")


@contextlib.contextmanager
def answering(*pieces: bytes, pause: float = 0.0) -> Iterator[str]:
    """A server that answers whatever it is asked with the pieces, one after the other."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connected, _ = listener.accept()
            with connected, contextlib.suppress(OSError):
                connected.recv(1 << 16)
                for piece in pieces:
                    connected.sendall(piece)
                    time.sleep(pause)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread.join()


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\nX: ",
        b"HTTP/1.1 200 OK\r\nContent-Length: 400\r\n\r\n",
        b"HTTP/1.0 200 OK\r\n\r\n",
    ],
)
def test_an_answer_that_drips_is_none(head: bytes) -> None:
    """No pause is as long as the time that it has, all of them together are longer."""
    with answering(head, *[b" "] * 40, pause=0.05) as url:
        client = v2_client.Client(url, 0.3)
        with pytest.raises(Unanswered, match="no answer in time"):
            client.get("/v2")


@pytest.mark.parametrize("length", [b"Content-Length: 4000\r\n", b""])
def test_an_answer_without_end_is_none(length: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(v2_client, "_MOST", 1000)
    with answering(b"HTTP/1.1 200 OK\r\n" + length + b"\r\n", b" " * 4000) as url:
        client = v2_client.Client(url, 30)
        with pytest.raises(Unanswered, match="more than 1000 bytes"):
            client.get("/v2")


def test_an_answer_that_is_cut_is_none() -> None:
    with answering(b"HTTP/1.1 200 OK\r\nContent-Length: 400\r\n\r\n", b"{}") as url:
        client = v2_client.Client(url, 30)
        with pytest.raises(Unanswered, match="IncompleteRead"):
            client.get("/v2")

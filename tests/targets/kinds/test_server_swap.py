"""``server-tensorrt`` under load: releases swapped, queues that fill, a graceful end."""

from __future__ import annotations

import gzip
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
from ports import free_port
from server_scene import Server, X, call, expected, infer_body, serving, weights_of

from shipway.registry.config.load import load_text
from shipway.registry.config.project import Project
from shipway.registry.nouns import ModelRef
from shipway.registry.verbs.promote import promote
from shipway.registry.verbs.rollback import rollback

CONFIG = """
project: swap
store: made/store
targets:
  server: {kind: server-tensorrt, providers: [cpu]}
environments:
  prod:
    server: {to: live}
"""


@pytest.fixture
def project(make_in: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Two versions in a store, the first of them live in a folder."""
    monkeypatch.setenv("SHIPWAY_MIRROR", "off")
    for number in (1, 2):
        weights = weights_of(number)
        make_in(tmp_path / "made", version=number, weights=weights, golden_weights=weights)
    found = load_text(CONFIG, tmp_path)
    promote(found, ModelRef.parse("tiny/1"), "prod")
    return found


def live_folder(project: Project) -> Path:
    root: Path = project.root / "live"
    return root / json.loads((root / "current.json").read_text())["path"].strip("/")


@dataclass
class Traffic:
    """What clients saw: the versions that answered, in order of asking, and everything that went wrong."""

    seen: list[tuple[float, str]] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def versions_since(self, moment: float) -> set[str]:
        return {version for asked, version in self.seen if asked > moment}

    def wait_for(self, version: str) -> None:
        """Until the last forty answers were of ``version``."""
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            if sum(answered == version for _, answered in self.seen[-40:]) == 40 or self.wrong:
                return
            time.sleep(0.01)
        raise AssertionError(f"version {version} never answered")


@contextmanager
def load_on(server: Server, clients: int = 3) -> Iterator[Traffic]:
    """Clients that ask without a pause and hold each answer against the version that it names."""
    traffic, done = Traffic(), threading.Event()

    def ask() -> None:
        with triton.InferenceServerClient(server.host) as client:
            tensor = triton.InferInput("x", [2, 4], "FP32")
            tensor.set_data_from_numpy(X)
            while not done.is_set():
                asked = time.monotonic()
                try:
                    answer = client.infer("tiny", [tensor])
                    version = answer.get_response()["model_version"]
                    wanted = expected(weights_of(int(version)))
                    np.testing.assert_allclose(answer.as_numpy("y"), wanted, rtol=0, atol=1e-6)
                except Exception as error:
                    traffic.wrong.append(f"{type(error).__name__}: {error}")
                else:
                    traffic.seen.append((asked, version))

    threads = [threading.Thread(target=ask) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield traffic
    finally:
        done.set()
        for thread in threads:
            thread.join()


def test_a_promote_and_a_rollback_under_load_fail_no_request(project: Project) -> None:
    root = project.root / "live"
    with serving(live_folder(project), "--root", root) as server, load_on(server) as traffic:
        traffic.wait_for("1")
        for version in "21212121":
            if version == "2":
                promote(project, ModelRef.parse("tiny/2"), "prod")
            else:
                rollback(project, "prod")
            assert call(f"{server.address}/v2/repository/models/tiny/load", b"")[0] == 200
            loaded = time.monotonic()
            traffic.wait_for(version)
            # What is asked after a load is answered by the new model alone.
            assert traffic.versions_since(loaded) == {version}
    assert traffic.wrong == []
    assert len(traffic.seen) > 100


def test_a_server_that_follows_its_destination_swaps_by_itself(project: Project) -> None:
    root = project.root / "live"
    arguments = ("--root", root, "--follow", "0.05")
    with serving(live_folder(project), *arguments) as server, load_on(server) as traffic:
        traffic.wait_for("1")
        promote(project, ModelRef.parse("tiny/2"), "prod")
        traffic.wait_for("2")
        rollback(project, "prod")
        traffic.wait_for("1")
    assert traffic.wrong == []


def test_a_board_s_service_swaps_by_itself(
    make_in: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Started by the unit's own line, in place of which there is this Python and a free port."""
    monkeypatch.setenv("SHIPWAY_MIRROR", "off")
    for number in (1, 2):
        weights = weights_of(number)
        make_in(tmp_path / "made", version=number, weights=weights, golden_weights=weights)
    kind = f"{{kind: jetson-ort, providers: [cpu], root: '{tmp_path}/live', follow: 1}}"
    found = load_text(CONFIG.replace("{kind: server-tensorrt, providers: [cpu]}", kind), tmp_path)
    promote(found, ModelRef.parse("tiny/1"), "prod")
    unit = (live_folder(found) / "shipway.service").read_text()
    (line,) = [line for line in unit.splitlines() if line.startswith("ExecStart=")]
    *start, program = shlex.split(line.removeprefix("ExecStart="))[:3]
    arguments = shlex.split(line)[3:]
    assert (start, program) == (["/usr/bin/python3", "-s"], f"{tmp_path}/live/current/serve.py")
    arguments[arguments.index("--port") + 1] = "0"
    with serving(live_folder(found), *arguments) as server, load_on(server) as traffic:
        traffic.wait_for("1")
        promote(found, ModelRef.parse("tiny/2"), "prod")
        traffic.wait_for("2")
        rollback(found, "prod")
        traffic.wait_for("1")
    assert traffic.wrong == []


def test_what_gives_wrong_numbers_here_does_not_take_over(
    make_version: Callable[..., Any], tmp_path: Path
) -> None:
    root = tmp_path / "live"
    make_version().export("server-tensorrt", root / "releases" / "good")
    wrong = make_version(version=2, weights=np.abs(weights_of(2)), golden_weights=np.abs(weights_of(1)))
    wrong.export("server-tensorrt", root / "releases" / "wrong")

    (root / "current.json").write_text(json.dumps({"path": "releases/good/"}))
    with serving(root / "releases" / "good", "--root", root) as server:
        (root / "current.json").write_text(json.dumps({"path": "releases/wrong/"}))
        status, answer, _ = call(f"{server.address}/v2/repository/models/tiny/load", b"")
        assert status == 400
        assert "tiny/2: wrong numbers on CPUExecutionProvider" in json.loads(answer)["error"]
        assert call(f"{server.address}/v2/models/tiny/versions/1/infer", infer_body())[0] == 200
        assert (
            'shipway_model_loads_total{outcome="failed"} 1' in call(f"{server.address}/metrics")[1].decode()
        )

    argv = [sys.executable, "-B", "serve.py", "--port", "0"]
    done = subprocess.run(
        argv, cwd=root / "releases" / "wrong", capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert "wrong numbers" in done.stderr
    with serving(root / "releases" / "wrong", "--unproved") as server:
        assert call(f"{server.address}/v2/models/tiny/infer", infer_body())[0] == 200


def test_the_port_answers_before_the_model_is_there(tiny: Any, tmp_path: Path) -> None:
    """Engines take minutes to build: until then the server is alive, not ready, and refuses with 503."""
    root = tmp_path / "live"
    tiny.export("server-tensorrt", root / "releases" / "one")
    os.mkfifo(root / "current.json")  # reading it waits until somebody writes
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    argv = [sys.executable, "-B", "serve.py", "--port", str(port), "--root", str(root)]
    with subprocess.Popen(argv, cwd=root / "releases" / "one", stdout=subprocess.PIPE, text=True) as child:
        try:
            _wait_for_port(port)
            assert call(f"{address}/v2/health/live")[0] == 200
            assert call(f"{address}/v2/health/ready")[0] == 503
            assert call(f"{address}/v2/models/tiny/infer", infer_body())[0] == 503
            assert call(f"{address}/metrics")[0] == 200
            (root / "current.json").write_text(json.dumps({"path": "releases/one/"}))
            assert child.stdout is not None
            assert child.stdout.readline().startswith(address)
            assert call(f"{address}/v2/health/ready")[0] == 200
        finally:
            child.terminate()


def test_the_first_promotion_finds_a_server_that_waits_for_it(project: Project) -> None:
    """A gate asks a server that follows the destination before anything was live there, and later."""
    port = free_port()
    gated = CONFIG.replace("live}", f"next, gate: {{url: 'http://127.0.0.1:{port}', timeout_s: TIME}}}}")
    root = project.root / "next"
    argv = [sys.executable, "-B", "serve.py", "--port", str(port), "--root", str(root), "--follow", "0.001"]
    with subprocess.Popen(argv, cwd=live_folder(project), stderr=subprocess.PIPE, text=True) as child:
        try:
            assert child.stderr is not None
            assert child.stderr.readline() == f"nothing is live in {root} yet\n"
            promote(load_text(gated.replace("TIME", "120"), project.root), ModelRef.parse("tiny/1"), "prod")
            pointer = (root / "current.json").read_bytes()
            for _ in range(300):  # a first release that is taken back, at any moment of a look
                (root / "current.json").unlink()
                time.sleep(0.0005)
                (root / "new").write_bytes(pointer)
                (root / "new").rename(root / "current.json")
            (root / "current.json").unlink()
            assert call(f"http://127.0.0.1:{port}/v2/models/tiny/versions/1/ready")[0] == 200
        finally:
            child.terminate()
        assert child.stderr.read() == ""


def _wait_for_port(port: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError("the server never listened")


def _slow_body() -> bytes:
    """A request that keeps the server busy for a while: much JSON."""
    rows = 20_000
    return infer_body(shape=[rows, 4], data=[0.25] * (rows * 4))


def _pending(server: Server) -> int:
    text = call(f"{server.address}/metrics")[1].decode()
    (line,) = [line for line in text.splitlines() if line.startswith("shipway_inference_pending ")]
    return int(line.split()[1])


def test_a_full_queue_refuses_and_the_server_lives(tiny: Any, tmp_path: Path) -> None:
    tiny.export("server-tensorrt", tmp_path / "out")
    body = _slow_body()
    with serving(tmp_path / "out", "--queue", "1") as server, ThreadPoolExecutor(12) as pool:
        url = f"{server.address}/v2/models/tiny/infer"
        statuses = list(pool.map(lambda _: call(url, body)[0], range(36)))
        assert set(statuses) == {200, 503}
        assert _pending(server) == 0
        assert call(url, infer_body())[0] == 200


def test_requests_under_way_are_answered_after_sigterm(tiny: Any, tmp_path: Path) -> None:
    tiny.export("server-tensorrt", tmp_path / "out")
    body = _slow_body()
    with serving(tmp_path / "out") as server, ThreadPoolExecutor(8) as pool:
        url = f"{server.address}/v2/models/tiny/infer"
        answers = [pool.submit(call, url, body) for _ in range(8)]
        deadline = time.monotonic() + 120
        while _pending(server) < 3:
            assert time.monotonic() < deadline
            answers += [pool.submit(call, url, body) for answer in answers[-8:] if answer.done()]
        # Asked in this order: what is done by then is not under way any more.
        under_way = sum(answer.done() for answer in answers) + _pending(server)
        server.process.send_signal(signal.SIGTERM)
        statuses = [_status(answer) for answer in answers]
        assert server.process.wait(120) in (0, -signal.SIGTERM)
    assert statuses.count(200) >= under_way


def _status(answer: Any) -> int:
    """The HTTP status, or 0 where the connection came too late."""
    try:
        status: int = answer.result()[0]
    except OSError:
        return 0
    return status


def test_a_small_request_that_unpacks_to_a_huge_one_is_refused(tiny: Any, tmp_path: Path) -> None:
    tiny.export("server-tensorrt", tmp_path / "out")
    bomb = gzip.compress(bytes(300_000_000), 1)
    with serving(tmp_path / "out") as server:
        url = f"{server.address}/v2/models/tiny/infer"
        assert call(url, bomb, Content_Encoding="gzip")[0] == 413
        assert call(url, infer_body())[0] == 200


def test_a_client_that_goes_away_is_counted_and_nothing_else(tiny: Any, tmp_path: Path) -> None:
    tiny.export("server-tensorrt", tmp_path / "out")
    with serving(tmp_path / "out") as server:
        host, _, port = server.host.partition(":")
        with socket.create_connection((host, int(port))) as gone:
            gone.sendall(b"POST /v2/models/tiny/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
            while _pending(server) != 1:
                time.sleep(0.01)
        while _pending(server) != 0:
            time.sleep(0.01)
        metrics = call(f"{server.address}/metrics")[1].decode()
        assert 'shipway_inference_requests_total{model="tiny",status="499",version="1"} 1' in metrics
        assert call(f"{server.address}/v2/models/tiny/infer", infer_body())[0] == 200


def test_threads_may_be_told_to_the_server(tiny: Any, tmp_path: Path) -> None:
    tiny.export("server-tensorrt", tmp_path / "out", threads=2)
    with serving(tmp_path / "out", "--threads", "1", "--instances", "2") as server:
        assert call(f"{server.address}/v2/models/tiny/infer", infer_body())[0] == 200
        threads = len(list(Path(f"/proc/{server.process.pid}/task").iterdir()))
    with serving(tmp_path / "out") as server:
        assert call(f"{server.address}/v2/models/tiny/infer", infer_body())[0] == 200
        more = len(list(Path(f"/proc/{server.process.pid}/task").iterdir()))
    assert more == threads + 1  # ONNX Runtime's thread beside the one that asks

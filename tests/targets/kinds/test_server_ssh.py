"""The bundle's server on a host, under load: promoted over SSH by a patch, rolled back by one rename."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

sys.path.insert(0, str(Path(__file__).parents[2] / "ssh"))

from server_scene import serving, weights_of
from ssh_hosts import USER, Wire, make_key, running
from test_server_swap import load_on

from shipway.registry.config.load import load_text
from shipway.registry.nouns import File, ModelRef
from shipway.registry.verbs.promote import promote
from shipway.registry.verbs.rollback import rollback

CONFIG = """
project: swap
store: made/store
targets:
  server: {{kind: server-tensorrt, providers: [tensorrt, cpu], allow_missing: true}}
environments:
  prod:
    server: {{to: "ssh://{user}@127.0.0.1:{port}{root}", ssh: {{known_hosts: known_hosts, keys: [key]}}}}
"""


BALLAST = 2_000_000  # bytes that both versions share, so that there is something to patch


def add_ballast(made: Any) -> None:
    """Make the stored version's graph that much larger; nothing uses what is added."""
    path = made.store.open(made.version.variants[0].files[0])
    model = onnx.load(path)
    shared = np.random.default_rng(0).normal(size=BALLAST // 4).astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(shared, "ballast"))
    data = model.SerializeToString()
    files = (File("model.onnx", made.store.add_bytes(data), len(data)),)
    variants = (replace(made.version.variants[0], files=files),)
    made.store.put_version(replace(made.version, variants=variants))


@pytest.mark.real
def test_clients_of_a_server_on_a_host_see_no_failure(
    make_in: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHIPWAY_MIRROR", "off")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    for number in (1, 2):
        weights = weights_of(number)
        add_ballast(make_in(tmp_path / "made", version=number, weights=weights, golden_weights=weights))
    key, root = make_key(tmp_path / "key"), tmp_path / "host" / "root"
    with running(tmp_path / "host", key) as host, Wire(host.port) as wire:
        (tmp_path / "known_hosts").write_text(host.known(wire.port))
        text = CONFIG.format(user=USER, port=wire.port, root=root)
        project = load_text(text, tmp_path)
        plan = promote(project, ModelRef.parse("tiny/1"), "prod").plan
        assert "run python3 engines.py (have TensorRT build its engines)" in [str(t.step) for t in plan.tasks]
        server = serving(root / "current", "--root", root, "--follow", "0.05")
        with server as running_server, load_on(running_server) as traffic:
            traffic.wait_for("1")
            for most in (BALLAST // 4, 20_000):  # the second time it is there already
                (done,) = promote(load_text(text, tmp_path), ModelRef.parse("tiny/2"), "prod").deployments
                assert done.bytes_sent < most
                traffic.wait_for("2")
                before = wire.sent
                rollback(load_text(text, tmp_path), "prod")
                assert wire.sent - before < 65_536
                traffic.wait_for("1")
        assert traffic.wrong == []
        assert len(traffic.seen) > 100

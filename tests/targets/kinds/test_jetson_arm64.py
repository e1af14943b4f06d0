"""``jetson-ort`` on an arm64 host over SSH: the preflight, the golden check, a promotion and a rollback.

The host is Debian 12 with Python 3.11 under qemu-user (``arm64_hosts``). It is no board: JetPack 6 has Python
3.10 and a GPU, and what the preflight reads of a board is made up here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from arm64_hosts import arm64_host, told
from server_scene import weights_of
from ssh_hosts import Host, make_key

from shipway.registry.config.load import load_text
from shipway.registry.config.project import Project
from shipway.registry.errors import DeliveryError
from shipway.registry.nouns import ModelRef
from shipway.registry.verbs.promote import promote
from shipway.registry.verbs.rollback import rollback

pytestmark = pytest.mark.real

CONFIG = """
project: boards
store: made/store
targets:
  jetson: {{kind: jetson-ort, jetpack: "6.1", allow_missing: true, {options}}}
environments:
  prod:
    jetson:
      to: {url}
      ssh: {{known_hosts: known_hosts, keys: [{key}]}}
      gate: {{check: true}}
"""

XAVIER = "# R35 (release), REVISION: 4.1, GCID: 33958178, BOARD: t186ref, EABI: aarch64"
NVPMODEL = '#!/bin/sh\n[ "$1" = -q ] && printf "NV Power Mode: 15W\\n2\\n"\n'


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_key(tmp_path_factory.mktemp("keys") / "client")


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, key: Path) -> Iterator[Host]:
    """An arm64 host that does not call itself a Jetson."""
    with arm64_host(tmp_path_factory.mktemp("plain"), key) as host:
        yield host


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory, key: Path) -> Iterator[Host]:
    """One that calls itself a Xavier with JetPack 5, in a mode of little power."""
    files = {"etc/nv_tegra_release": XAVIER, "usr/sbin/nvpmodel": NVPMODEL}
    with arm64_host(tmp_path_factory.mktemp("board"), key, files) as host:
        yield host


@pytest.fixture
def project(
    make_in: Callable[..., Any], key: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Project]:
    """A project with two versions, whose boards are ``host``, by options of the target."""
    monkeypatch.setenv("SHIPWAY_MIRROR", "off")
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    for number in (1, 2):
        weights = weights_of(number)
        make_in(tmp_path / "made", version=number, weights=weights, golden_weights=weights)

    def written(host: Host, options: str = "") -> Project:
        (tmp_path / "known_hosts").write_text(host.known())
        return load_text(CONFIG.format(url=host.url, key=key, options=options), tmp_path)

    return written


def test_a_bundle_goes_live_there_and_back(plain: Host, project: Callable[..., Project], key: Path) -> None:
    made = project(plain)
    for version in (1, 2):
        outcome = promote(made, ModelRef.parse(f"tiny/{version}"), "prod")
        assert outcome.deployments[0].outcome == "live"
        steps = [str(task.step) for task in outcome.plan.tasks]
        assert steps[0].startswith("preflight of tiny-")
        assert steps.index("run python3 engines.py (have TensorRT build its engines)") < steps.index(
            "gate digests"
        )
    rollback(made, "prod")
    assert (plain.root / "current" / "bundle.json").is_file()
    verdict = told(plain, key, f"cd {plain.root}/current && python3 -B check.py")
    assert verdict["passed"] is True
    assert verdict["provider"] == "CPUExecutionProvider"
    assert verdict["missing"] == ["TensorrtExecutionProvider", "CUDAExecutionProvider"]
    assert verdict["max_abs"] <= 1e-6
    engines = told(plain, key, f"cd {plain.root}/current && python3 -B engines.py")
    assert engines == {"built": False, "why": "this ONNX Runtime has no TensorRT"}
    asked = told(plain, key, f"cd {plain.root}/current && python3 -B preflight.py")
    assert asked["passed"] is True
    assert (asked["board"]["machine"], asked["board"]["l4t"]) == ("aarch64", None)
    assert asked["board"]["runtime"] == "onnxruntime 1.20.0"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            "",
            ["Jetson Linux is 35.4; JetPack 6.1 has 36.4", "Python is 3.11; the runtime's wheel is for"],
        ),
        ("power_mode: MAXN", ["the power mode is 15W; MAXN is wanted"]),
        ("workspace: 900GB", ["MB of memory are free; 900000 MB are wanted"]),
    ],
)
def test_a_board_that_does_not_fit_is_sent_nothing(
    board: Host, project: Callable[..., Project], options: str, said: list[str]
) -> None:
    with pytest.raises(DeliveryError, match=r"tiny/1 \(jetson-ort\) does not fit 127\.0\.0\.1") as caught:
        promote(project(board, options), ModelRef.parse("tiny/1"), "prod")
    assert all(one in caught.value.why for one in said)
    assert not board.root.exists()


def test_no_board_is_refused_where_that_is_wanted(plain: Host, project: Callable[..., Project]) -> None:
    before = sorted(plain.root.glob("releases/*"))
    with pytest.raises(DeliveryError, match="does not fit") as caught:
        promote(project(plain, "board: true, port: 8123"), ModelRef.parse("tiny/2"), "prod")
    assert caught.value.why == "this is no Jetson: /etc/nv_tegra_release is not there"
    assert sorted(plain.root.glob("releases/*")) == before

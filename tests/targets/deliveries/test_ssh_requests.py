"""What a delivery asks of a host for a step, and how often. The host is a list of answers, without SSH."""

from __future__ import annotations

from pathlib import Path

import pytest

from shipway.registry.errors import DeliveryError
from shipway.registry.nouns import Digest, File, Json, Tolerance
from shipway.targets.deliveries.ssh import SshDelivery
from shipway.targets.deliveries.ssh_address import Address, Patience, SshOptions
from shipway.targets.deliveries.ssh_link import Source
from shipway.targets.deliveries.ssh_session import Session
from shipway.targets.manifest import Manifest
from shipway.targets.steps import Point, Pointer, Release, Seal

FILE = File("model/graph.onnx", Digest.of(b"graph"), 5)
RELEASE = Release(
    Manifest(
        kind="jetson-ort",
        model="ocr",
        version=1,
        model_digest=Digest.of(b"model"),
        precision="fp32",
        files=(FILE,),
        inputs=(),
        outputs=(),
        opset=17,
        ir=8,
        tolerance=Tolerance(1e-5, 1e-5),
        check=("python3", "check.py"),
        graph=FILE.path,
    )
)


class Told(Session):
    """A host that gives these answers, by what is asked; each answer once, the last one for ever."""

    def __init__(self, **answers: list[Json]) -> None:
        super().__init__(Address.parse("ssh://box/opt"), SshOptions(), Patience())
        self._answers = answers
        self.asked: list[str] = []

    def ask(self, request: Json) -> Json:
        self.asked.append(request["do"])
        answers = self._answers[request["do"]]
        return answers.pop(0) if len(answers) > 1 else answers[0]

    def send(self, request: Json, source: Source, size: int, *, ask_first: bool = False) -> Json:
        return self.ask(request)


def delivery(tmp_path: Path, session: Told) -> SshDelivery:
    (tmp_path / "graph").write_bytes(b"graph")
    found = SshDelivery(session.address, lambda _: tmp_path / "graph")
    found.session = session
    return found


def test_what_is_wrong_on_the_host_s_disk_is_sent_again_and_looked_at(tmp_path: Path) -> None:
    session = Told(seal=[{"wrong": [FILE.path]}, {"wrong": [FILE.path]}, {}], receive=[{}])
    delivery(tmp_path, session).perform(Seal(RELEASE))
    assert session.asked == ["seal", "receive", "seal", "receive", "seal"]


def test_nothing_is_sent_that_nobody_looks_at_any_more(tmp_path: Path) -> None:
    session = Told(seal=[{"wrong": [FILE.path]}], receive=[{}])
    with pytest.raises(DeliveryError, match=r"model/graph.onnx came out wrong at ssh://box/opt"):
        delivery(tmp_path, session).perform(Seal(RELEASE))
    assert session.asked[-1] == "seal"


def test_nothing_can_fail_once_the_pointer_has_moved(tmp_path: Path) -> None:
    """What is live is undone where a step fails: what only tidies up must not make it fail."""
    pointer = Pointer("prod", "jetson", 1, "ocr", 1, RELEASE.bundle, RELEASE.id)
    session = Told(pointer=[{"pointer": None}], point=[{"size": 5}], clear=[{"error": "busy", "pid": "7"}])
    assert delivery(tmp_path, session).perform(Point(pointer)) == 5
    assert session.asked == ["pointer", "point"]

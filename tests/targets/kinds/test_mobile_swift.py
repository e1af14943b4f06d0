"""``mobile-ort``'s Swift, compiled with the real compiler and run on Linux (``swift_scene``).

Foundation on Linux has no ``timeoutIntervalForResource``: that a download which drips ends is not tried here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from shop_scene import Shop, served
from swift_scene import Swift, compiled

from shipway.registry.nouns import File, Variant

pytestmark = pytest.mark.real

X = np.array([[1, 2, 3, 4]], np.float32)
WEIGHTS = {
    number: np.abs(np.random.default_rng(number).normal(size=(4, 3))).astype("f4") for number in (1, 2)
}


@pytest.fixture(scope="module")
def swift(tmp_path_factory: pytest.TempPathFactory, make_in: Callable[..., Any]) -> Swift:
    folder = tmp_path_factory.mktemp("swift")
    make_in(folder / "made").export("mobile-ort", folder / "out", threads=1)
    return compiled(folder / "out", folder / "built")


def test_the_numbers_are_those_of_the_original_model(
    swift: Swift, make_version: Callable[..., Any], tmp_path: Path
) -> None:
    made = make_version(weights=WEIGHTS[1], golden_weights=WEIGHTS[1], external=True)
    made.export("mobile-ort", tmp_path / "out")
    x = np.random.default_rng(3).normal(size=(5, 4)).astype(np.float32)
    (tmp_path / "x").write_bytes(x.tobytes())
    assert swift(tmp_path, "run", "out/model.onnx", "x", "x", "y", 5, 4) == {"shape": [5, 3]}
    found = np.frombuffer((tmp_path / "y").read_bytes(), np.float32).reshape(5, 3)
    np.testing.assert_allclose(found, np.maximum(x @ WEIGHTS[1], 0), rtol=0, atol=1e-6)


def test_no_provider_is_replaced_in_silence(swift: Swift, tiny: Any, tmp_path: Path) -> None:
    tiny.export("mobile-ort", tmp_path / "out")
    told = swift(tmp_path, "open", "out/model.onnx", "XNNPACK", "CPU")
    assert told == {"provider": "CPU", "missing": ["XNNPACK"]}
    assert swift(tmp_path, "open", "out/model.onnx", "CPU") == {"provider": "CPU", "missing": []}
    refused = swift(tmp_path, "open", "out/model.onnx", "XNNPACK")["refused"]
    assert 'the model opens on none of ["XNNPACK"]: XNNPACK: ' in refused


def test_wrong_inputs_are_named(swift: Swift, tiny: Any, tmp_path: Path) -> None:
    tiny.export("mobile-ort", tmp_path / "out")
    missing, unknown, shape = swift(tmp_path, "misuse", "out/model.onnx")["said"]
    assert missing == "input x is missing"
    assert unknown == "the model has no input z"
    assert "index: 1 Got: 3 Expected: 4" in shape


def test_all_sources_compile_whatever_the_names(make_version: Callable[..., Any], tmp_path: Path) -> None:
    hostile = "x\"; \\(print()) ${1} $HOME \\ \n % ' é 文 */ //"
    made = make_version(input_name=hostile, output_name=f"out {hostile}", batch=2, name="A.b_c--d")
    made.export("mobile-ort", tmp_path / "out", providers=["xnnpack"])
    swift = compiled(tmp_path / "out", tmp_path / "built")
    (tmp_path / "x").write_bytes(np.ones((2, 4), np.float32).tobytes())
    assert swift(tmp_path, "run", "out/model.onnx", "x", hostile, "y", 2, 4) == {"shape": [2, 3]}


@dataclass
class Phone:
    """An app whose updater looks at a shop; its model is in ``work / "phone"``."""

    swift: Swift
    shop: Shop
    work: Path
    url: str

    def update(self, patience: int = 20_000, deadline: int = 60_000) -> Any:
        """Milliseconds. What the installed model computes is right, whatever has happened."""
        self.shop.asked.clear()
        answer = self.swift(self.work, "update", self.url, "phone", patience, deadline)
        if answer["now"] is not None:
            expected = np.maximum(X @ WEIGHTS[answer["now"]["version"]], 0)
            np.testing.assert_allclose([answer["now"]["y"]], expected, rtol=1e-5)
        return answer


@pytest.fixture
def phone(swift: Swift, tmp_path: Path) -> Iterator[Phone]:
    shop = Shop(tmp_path / "shop")
    shop.root.mkdir()
    with served(shop) as url:
        yield Phone(swift, shop, tmp_path, url)


@pytest.fixture
def versions(phone: Phone, make_version: Callable[..., Any]) -> tuple[Any, Any]:
    """Manifests of two versions in the shop."""
    first, second = (
        phone.shop.release(make_version(version=number, weights=weights, golden_weights=weights))
        for number, weights in WEIGHTS.items()
    )
    return first, second


def test_the_updater_follows_a_promotion_and_a_rollback(phone: Phone, versions: tuple[Any, Any]) -> None:
    first, second = versions
    steps = [
        (first, 1, "installed"),
        (first, 1, "unchanged"),
        (second, 2, "installed"),
        (first, 3, "installed"),
    ]
    for manifest, serial, how in steps:
        phone.shop.point(manifest, serial)
        answer = phone.update()
        assert (answer["how"], answer["why"]) == (how, "")
        assert (answer["now"]["serial"], answer["now"]["version"]) == (serial, manifest.version)
    # The rolled back version was here still: of it bundle.json at most was sent again.
    assert not any("model.onnx" in path for path in phone.shop.asked)
    phone.shop.point(first, 4)  # the same bundle, deployed again
    assert phone.update()["now"]["serial"] == 4


FAULTS = {
    "truncate": "NSURLErrorDomain Code=-1 ",
    "stall": "NSURLErrorDomain Code=-1001 ",  # timed out
    "corrupt": "damaged",
    "pad": "damaged",
    "refuse": "503",
}
PATIENCE = {"stall": 1000}  # milliseconds; the shop stalls for five seconds


@pytest.mark.parametrize("fault", FAULTS)
def test_the_old_model_stays_when_a_download_goes_wrong(
    phone: Phone, versions: tuple[Any, Any], fault: str
) -> None:
    first, second = versions
    phone.shop.point(first, 1)
    phone.update()
    phone.shop.point(second, 2)
    for path in ("model.onnx", "bundle.json"):
        phone.shop.faults = {path: fault}
        answer = phone.update(PATIENCE.get(fault, 20_000))
        assert answer["how"] == "kept"
        assert re.search(FAULTS[fault], answer["why"]), answer["why"]
        assert (answer["now"]["serial"], answer["now"]["version"]) == (1, 1)
    phone.shop.faults = {}
    assert phone.update()["now"]["version"] == 2


@pytest.mark.parametrize("fault", FAULTS)
def test_the_old_model_stays_when_the_pointer_goes_wrong(
    phone: Phone, versions: tuple[Any, Any], fault: str
) -> None:
    first, second = versions
    phone.shop.point(first, 1)
    phone.update()
    phone.shop.point(second, 2)
    phone.shop.faults = {"current.json": fault}
    answer = phone.update(PATIENCE.get(fault, 20_000))
    assert answer["how"] == "kept"
    assert answer["why"]
    assert answer["now"]["version"] == 1


def test_an_older_serial_is_refused(phone: Phone, versions: tuple[Any, Any]) -> None:
    first, second = versions
    phone.shop.point(second, 7)
    phone.update()
    phone.shop.point(first, 6)
    answer = phone.update()
    assert answer["how"] == "kept"
    assert answer["why"] == "the server names serial 6, older than 7"
    assert (answer["now"]["serial"], answer["now"]["version"]) == (7, 2)


def closed(made: Any) -> Any:
    """``made`` with an operator set that the runtime has never heard of; every digest is right."""
    model = onnx.load(made.store.open(made.version.variants[0].files[0]))
    model.opset_import[0].version = 99
    data = model.SerializeToString()
    file = File("model.onnx", made.store.add_bytes(data), len(data))
    made.version = replace(made.version, variants=(Variant("fp32", (file,)),))
    return made


def test_a_model_that_does_not_open_is_never_swapped_in(
    phone: Phone, versions: tuple[Any, Any], make_version: Callable[..., Any]
) -> None:
    first, _ = versions
    phone.shop.point(first, 1)
    phone.update()
    phone.shop.point(phone.shop.release(closed(make_version(version=3))), 2)
    answer = phone.update()
    assert answer["how"] == "kept"
    assert "opens on none of" in answer["why"]
    assert answer["now"]["version"] == 1


def test_a_model_of_another_interface_is_refused(
    phone: Phone, versions: tuple[Any, Any], make_version: Callable[..., Any]
) -> None:
    first, _ = versions
    phone.shop.point(first, 1)
    phone.update()
    phone.shop.point(phone.shop.release(make_version(version=3, input_name="image")), 2)
    answer = phone.update()
    assert answer["how"] == "kept"
    assert answer["why"] == 'the release has other inputs: ["image:float32"]'
    assert not any("model.onnx" in path for path in phone.shop.asked)


def test_a_model_damaged_on_the_phone_is_not_used_and_comes_again(
    phone: Phone, versions: tuple[Any, Any]
) -> None:
    first, _ = versions
    phone.shop.point(first, 1)
    phone.update()
    graph = phone.work / "phone" / "releases" / first.digest.hex / "model.onnx"
    graph.write_bytes(graph.read_bytes()[:-1] + b"\0")
    phone.shop.faults = {"model.onnx": "refuse"}
    assert phone.update()["now"] is None
    phone.shop.faults = {}
    assert phone.update()["now"]["version"] == 1


def test_of_two_updates_at_once_one_stands_back(phone: Phone, versions: tuple[Any, Any]) -> None:
    first, _ = versions
    phone.shop.point(first, 1)
    said = phone.swift(phone.work, "together", phone.url, "phone", 20_000)["said"]
    assert said == ["another update is running", "done"]
    assert phone.update()["now"]["version"] == 1


def test_what_came_in_vain_does_not_pile_up(
    phone: Phone, versions: tuple[Any, Any], make_version: Callable[..., Any]
) -> None:
    first, second = versions
    phone.shop.point(first, 1)
    phone.update()
    for serial in (2, 3):
        refused = phone.shop.release(closed(make_version(version=serial)))
        phone.shop.point(refused, serial)
        assert "opens on none of" in phone.update()["why"]
    kept = {path.name for path in (phone.work / "phone" / "releases").iterdir()}
    assert kept == {first.digest.hex, refused.digest.hex}
    phone.shop.point(second, 4)
    phone.shop.faults = {"model.onnx": "truncate"}
    assert phone.update()["how"] == "kept"
    assert (phone.work / "phone" / "coming").is_dir()
    phone.shop.point(first, 5)
    assert phone.update()["how"] == "unchanged"
    assert not (phone.work / "phone" / "coming").exists()

"""``mobile-ort``'s updaters, in Kotlin and in Swift, against a local server that misbehaves.

Foundation on Linux has no ``timeoutIntervalForResource``: that a download which drips ends is tried in Kotlin
alone.
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

from shipway.registry.nouns import File, Variant

pytestmark = pytest.mark.real

X = np.array([[1, 2, 3, 4]], np.float32)
WEIGHTS = {
    number: np.abs(np.random.default_rng(number).normal(size=(4, 3))).astype("f4") for number in (1, 2)
}


@dataclass
class Phone:
    """An app whose updater looks at a shop."""

    driver: Callable[..., Any]  # a command of jvm/Main.kt or swift/Main.swift, on the app's folder
    shop: Shop
    folder: Path

    def update(self, patience: int = 20_000, deadline: int = 60_000) -> Any:
        """Milliseconds. What the installed model computes is right, whatever has happened."""
        self.shop.asked.clear()
        answer = self.driver("update", patience, deadline)
        if answer["now"] is not None:
            expected = np.maximum(X @ WEIGHTS[answer["now"]["version"]], 0)
            np.testing.assert_allclose([answer["now"]["y"]], expected, rtol=1e-5)
        return answer


@pytest.fixture(params=["kotlin", "swift"])
def phone(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Phone]:
    app = request.getfixturevalue(request.param)
    name = "a phone's folder"
    shop = Shop(tmp_path / "shop")
    shop.root.mkdir()
    with served(shop) as url:
        drivers = {
            "kotlin": lambda command, *more: app(command, url, tmp_path / name, *more),
            "swift": lambda command, *more: app(tmp_path, command, url, name, *more),
        }
        yield Phone(drivers[request.param], shop, tmp_path / name)


kotlin_alone = pytest.mark.parametrize("phone", ["kotlin"], indirect=True)


@pytest.fixture
def versions(phone: Phone, make_version: Callable[..., Any]) -> tuple[Any, Any]:
    """Manifests of two versions in the shop: the first is installed (serial 1), the second live (2)."""
    first, second = (
        phone.shop.release(make_version(version=number, weights=weights, golden_weights=weights))
        for number, weights in WEIGHTS.items()
    )
    phone.shop.point(first, 1)
    assert phone.update()["how"] == "installed"
    phone.shop.point(second, 2)
    return first, second


def closed(made: Any) -> Any:
    """``made`` with an operator set that the runtime has never heard of; every digest is right."""
    model = onnx.load(made.store.open(made.version.variants[0].files[0]))
    model.opset_import[0].version = 99
    data = model.SerializeToString()
    file = File("model.onnx", made.store.add_bytes(data), len(data))
    made.version = replace(made.version, variants=(Variant("fp32", (file,)),))
    return made


def test_the_updater_follows_a_promotion_and_a_rollback(phone: Phone, versions: tuple[Any, Any]) -> None:
    first, second = versions
    steps = [(first, 1, "unchanged"), (second, 2, "installed"), (first, 3, "installed")]
    for manifest, serial, how in steps:
        phone.shop.point(manifest, serial)
        answer = phone.update()
        assert (answer["how"], answer["why"]) == (how, "")
        assert (answer["now"]["serial"], answer["now"]["version"]) == (serial, manifest.version)
    # The rolled back version was here still: nothing of it was sent again.
    assert phone.shop.asked == ["/current.json"]
    phone.shop.point(first, 4)  # the same bundle, deployed again
    assert phone.update()["now"]["serial"] == 4
    assert not (phone.folder / "coming" / second.digest.hex).exists()


def test_only_what_a_phone_needs_is_downloaded_and_nothing_twice(
    phone: Phone, make_version: Callable[..., Any]
) -> None:
    asset = "assets/names #1?%41+ é文.txt"
    first, second = (
        phone.shop.release(
            make_version(
                version=number,
                weights=weights,
                golden_weights=weights,
                assets=[(asset.removeprefix("assets/"), b"cat\ndog\n")],
            )
        )
        for number, weights in WEIGHTS.items()
    )
    phone.shop.point(first, 1)
    assert phone.update()["how"] == "installed"
    needed = {file.path for file in first.files if file.path.startswith(("golden/", "assets/", "model.onnx"))}
    home = f"/releases/{first.release_id}/"
    assert set(phone.shop.asked) == {"/current.json", f"{home}bundle.json", *(home + path for path in needed)}
    phone.shop.point(second, 2)
    assert phone.update()["how"] == "installed"
    same = {file.path for file in second.files if first.file(file.path) == file}
    assert asset in same
    assert not any(asked.endswith(tuple(same)) for asked in phone.shop.asked)


FAULTS = {
    "truncate": "incomplete|Premature EOF|bundle.json is damaged|NSURLErrorDomain Code=-1 ",
    "stall": "timed out|NSURLErrorDomain Code=-1001 ",
    "corrupt": "damaged",
    "pad": "larger than|damaged",
    "refuse": "503",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_old_model_stays_when_a_download_goes_wrong(
    phone: Phone, versions: tuple[Any, Any], fault: str
) -> None:
    for path in ("model.onnx", "bundle.json"):
        phone.shop.faults = {path: fault}
        answer = phone.update(patience=2000 if fault == "stall" else 20_000)
        assert answer["how"] == "kept"
        assert re.search(FAULTS[fault], answer["why"]), answer["why"]
        assert (answer["now"]["serial"], answer["now"]["version"]) == (1, 1)
    phone.shop.faults = {}
    assert phone.update()["now"]["version"] == 2


def keeps_the_old_model_whatever_the_pointer_does(phone: Phone, fault: str) -> None:
    phone.shop.faults = {"current.json": fault}
    answer = phone.update(patience=2000, deadline=2000)  # that it is to be kept is sure, whatever is slow
    assert answer["how"] == "kept"
    assert answer["why"]
    assert answer["now"]["version"] == 1


@pytest.mark.parametrize("fault", FAULTS)
def test_the_old_model_stays_when_the_pointer_goes_wrong(
    phone: Phone, versions: tuple[Any, Any], fault: str
) -> None:
    keeps_the_old_model_whatever_the_pointer_does(phone, fault)


@kotlin_alone
def test_the_old_model_stays_when_the_pointer_drips(phone: Phone, versions: tuple[Any, Any]) -> None:
    keeps_the_old_model_whatever_the_pointer_does(phone, "drip")


def test_an_older_serial_is_refused(phone: Phone, versions: tuple[Any, Any]) -> None:
    first, second = versions
    phone.shop.point(second, 7)
    phone.update()
    phone.shop.point(first, 6)
    answer = phone.update()
    assert answer["how"] == "kept"
    assert answer["why"] == "the server names serial 6, older than 7"
    assert (answer["now"]["serial"], answer["now"]["version"]) == (7, 2)


@kotlin_alone
def test_a_model_with_wrong_numbers_is_never_swapped_in(
    phone: Phone, versions: tuple[Any, Any], make_version: Callable[..., Any]
) -> None:
    wrong = make_version(version=3, weights=WEIGHTS[2] * np.float32(1.01), golden_weights=WEIGHTS[2])
    phone.shop.point(phone.shop.release(wrong), 2)
    answer = phone.update()
    assert answer["how"] == "kept"
    assert "numbers are wrong" in answer["why"]
    assert answer["now"]["version"] == 1


def test_a_model_that_does_not_open_is_never_swapped_in_and_does_not_pile_up(
    phone: Phone, versions: tuple[Any, Any], make_version: Callable[..., Any]
) -> None:
    first, second = versions
    for serial in (2, 3, 4):
        refused = phone.shop.release(closed(make_version(version=serial)))
        phone.shop.point(refused, serial)
        answer = phone.update()
        assert answer["how"] == "kept"
        assert "opens on none of" in answer["why"]
        assert answer["now"]["version"] == 1
    kept = {path.name for path in (phone.folder / "releases").iterdir()}
    assert kept == {first.digest.hex, refused.digest.hex}
    phone.update()  # it is tried again, and not downloaded again
    assert phone.shop.asked == ["/current.json"]
    phone.shop.point(second, 5)
    phone.shop.faults = {"model.onnx": "truncate"}
    assert phone.update()["how"] == "kept"
    assert (phone.folder / "coming").is_dir()
    phone.shop.point(first, 6)
    assert phone.update()["how"] == "unchanged"
    assert not (phone.folder / "coming").exists()


@pytest.mark.parametrize("side", ["input", "output"])
def test_a_model_of_another_interface_is_refused(
    phone: Phone, versions: tuple[Any, Any], make_version: Callable[..., Any], side: str
) -> None:
    other = phone.shop.release(make_version(version=3, **{f"{side}_name": "image"}))
    phone.shop.point(other, 2)
    answer = phone.update()
    assert answer["how"] == "kept"
    assert re.fullmatch(rf'the release has other {side}s: \["?image:float32"?\]', answer["why"])
    assert not any("model.onnx" in path for path in phone.shop.asked)


def test_a_release_without_a_model_is_refused_even_if_it_is_installed(
    phone: Phone, versions: tuple[Any, Any], make_version: Callable[..., Any]
) -> None:
    made = make_version(version=3)
    manifest = made.build("mobile-ort")
    bare = replace(manifest, runtime={**manifest.runtime, "model_files": []})
    home = phone.shop.root / "releases" / bare.release_id
    made.export("mobile-ort", home)
    (home / "bundle.json").write_bytes(bare.to_bytes())
    phone.shop.point(bare, 2)
    answer = phone.update()
    assert answer["how"] == "kept"
    assert re.search("bundle.json (names no model|is wrong)", answer["why"])
    here = phone.folder / "releases" / bare.digest.hex
    (phone.folder / "releases" / versions[0].digest.hex).rename(here)
    (here / "bundle.json").write_bytes(bare.to_bytes())
    (phone.folder / "current.json").write_bytes((phone.shop.root / "current.json").read_bytes())
    assert phone.update()["now"] is None


def test_a_model_damaged_on_the_phone_is_not_used_and_comes_again(
    phone: Phone, versions: tuple[Any, Any]
) -> None:
    first, _ = versions
    phone.shop.point(first, 1)
    graph = phone.folder / "releases" / first.digest.hex / "model.onnx"
    graph.write_bytes(graph.read_bytes()[:-1] + b"\0")
    phone.shop.faults = {"model.onnx": "refuse"}
    assert phone.update()["now"] is None
    phone.shop.faults = {}
    assert phone.update()["now"]["version"] == 1
    asked = [path.rpartition("/")[2] for path in phone.shop.asked]
    assert asked == ["current.json", "bundle.json", "model.onnx"]


def test_of_two_updates_at_once_one_stands_back(phone: Phone, versions: tuple[Any, Any]) -> None:
    phone.shop.faults = {"model.onnx": "stall"}  # so that the other one comes while this one is at it
    assert phone.driver("together", 60_000, 60_000)["why"] == "another update is running"
    phone.shop.faults = {}
    assert phone.update()["now"]["version"] == 2

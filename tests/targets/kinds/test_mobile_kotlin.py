"""``mobile-ort``'s Kotlin, compiled with the real compiler and run on the JVM with ONNX Runtime for Java."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jvm_scene import ANDROID, RUNTIME, Kotlin, compiled, kotlinc, shrunk
from shop_scene import Shop, served

pytestmark = pytest.mark.real

OTHER = np.abs(np.random.default_rng(2).normal(size=(4, 3))).astype(np.float32)


@pytest.fixture(scope="module")
def kotlin(tmp_path_factory: pytest.TempPathFactory, make_in: Callable[..., Any]) -> Kotlin:
    """Everything but the Android-only lines, compiled without Android's classes."""
    folder = tmp_path_factory.mktemp("kotlin")
    make_in(folder / "made").export("mobile-ort", folder / "out")
    return compiled(folder / "out", folder / "classes")


def test_the_numbers_are_those_of_the_original_model(
    kotlin: Kotlin, make_version: Callable[..., Any], tmp_path: Path
) -> None:
    make_version(external=True).export("mobile-ort", tmp_path / "out")
    report = kotlin("check", tmp_path / "out")
    assert report["passed"] is True
    assert report["max_abs"] <= 1e-6
    assert (report["provider"], report["missing"]) == ("CPU", ["XNNPACK"])  # the fall-back is told
    assert report["runs"] >= 3
    assert 0 < report["p50_ms"] <= report["p95_ms"]
    (y,) = report["outputs"]
    assert y["name"] == "y"
    assert y["scale"] > 0


@pytest.mark.parametrize("wrong", [1.01, np.nan])
def test_wrong_numbers_fail(
    kotlin: Kotlin, make_version: Callable[..., Any], tmp_path: Path, wrong: float
) -> None:
    made = make_version(weights=OTHER * np.float32(wrong), golden_weights=OTHER)
    made.export("mobile-ort", tmp_path / "out")
    report = kotlin("check", tmp_path / "out", code=5)
    assert report["passed"] is False
    assert (report["max_abs"] is None) == bool(np.isnan(wrong))


def test_no_provider_is_replaced_in_silence(kotlin: Kotlin, tiny: Any, tmp_path: Path) -> None:
    tiny.export("mobile-ort", tmp_path / "out")
    graph = tmp_path / "out" / "model.onnx"
    assert kotlin("open", graph, "NNAPI", "XNNPACK", "CPU") == {
        "provider": "CPU",
        "missing": ["NNAPI", "XNNPACK"],
    }
    assert kotlin("open", graph, "CPU") == {"provider": "CPU", "missing": []}
    refused = kotlin("open", graph, "NNAPI", "XNNPACK")["refused"]
    assert "opens on none of [NNAPI, XNNPACK]" in refused
    assert "NNAPI: " in refused


def test_wrong_inputs_are_named(kotlin: Kotlin, tiny: Any, tmp_path: Path) -> None:
    tiny.export("mobile-ort", tmp_path / "out")
    missing, unknown, shape = kotlin("misuse", tmp_path / "out" / "model.onnx")
    assert missing == "input x is missing"
    assert unknown == "the model has no input z"
    assert "index: 1 Got: 3 Expected: 4" in shape


def test_all_sources_compile_against_the_oldest_android_whatever_the_names(
    make_version: Callable[..., Any], tmp_path: Path
) -> None:
    hostile = "x\"; ${println()} $HOME \\ \n % ' é 文 */ //"
    made = make_version(input_name=hostile, output_name=f"out {hostile}", batch=2, name="A.b_c--d")
    made.export("mobile-ort", tmp_path / "out", package="com.acme.ocr")
    sources = sorted((tmp_path / "out/android/src/main/kotlin/com/acme/ocr").iterdir())
    assert [path.name for path in sources if "import android." in path.read_text()] == ["Android.kt"]
    kotlinc(sources, tmp_path / "classes", RUNTIME, ANDROID)
    assert (tmp_path / "classes/com/acme/ocr/AndroidModel.class").is_file()


def test_the_module_s_rules_keep_what_a_release_build_would_shrink_away(
    kotlin: Kotlin, tiny: Any, tmp_path: Path
) -> None:
    """By ProGuard, whose rules Android's R8 takes. Without them the native library finds no class."""
    tiny.export("mobile-ort", tmp_path / "out")
    rules = tmp_path / "out" / "android" / "consumer-rules.pro"
    assert shrunk(kotlin, tmp_path / "kept.jar", rules)("check", tmp_path / "out")["passed"] is True
    with pytest.raises(AssertionError, match="UnsatisfiedLinkError"):
        shrunk(kotlin, tmp_path / "bare.jar")("check", tmp_path / "out")


@dataclass
class Phone:
    """An app whose updater looks at a shop."""

    kotlin: Kotlin
    shop: Shop
    folder: Path
    url: str

    def update(self, patience: int = 20_000, deadline: int = 60_000) -> Any:
        """Milliseconds. What the installed model computes is right, whatever has happened."""
        self.shop.asked.clear()
        answer = self.kotlin("update", self.url, self.folder, patience, deadline)
        if answer["now"] is not None:
            assert answer["now"]["check"]["passed"] is True
        return answer


@pytest.fixture
def phone(kotlin: Kotlin, tmp_path: Path) -> Iterator[Phone]:
    shop = Shop(tmp_path / "shop")
    shop.root.mkdir()
    with served(shop) as url:
        yield Phone(kotlin, shop, tmp_path / "a phone's folder", url)


@pytest.fixture
def versions(phone: Phone, make_version: Callable[..., Any]) -> tuple[Any, Any]:
    """Manifests of two versions in the shop."""
    first = make_version()
    second = make_version(version=2, weights=OTHER, golden_weights=OTHER)
    return phone.shop.release(first), phone.shop.release(second)


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
    # The rolled back version was here still: nothing of it was sent again.
    assert phone.shop.asked == ["/current.json"]
    phone.shop.point(first, 4)  # the same bundle, deployed again
    assert phone.update()["now"]["serial"] == 4
    assert not (phone.folder / "coming" / second.digest.hex).exists()


def test_only_what_a_phone_needs_is_downloaded_and_nothing_twice(
    phone: Phone, versions: tuple[Any, Any]
) -> None:
    first, second = versions
    phone.shop.point(first, 1)
    phone.update()
    needed = {file.path for file in first.files if file.path.startswith(("golden/", "assets/", "model.onnx"))}
    home = f"/releases/{first.release_id}/"
    assert set(phone.shop.asked) == {"/current.json", f"{home}bundle.json", *(home + path for path in needed)}
    phone.shop.point(second, 2)
    phone.update()
    same = {file.path for file in second.files if first.file(file.path) == file}
    assert "assets/labels.txt" in same
    assert not any(asked.endswith(tuple(same)) for asked in phone.shop.asked)


FAULTS = {
    "truncate": "incomplete|Premature EOF|bundle.json is damaged",
    "stall": "timed out",
    "corrupt": "damaged",
    "pad": "larger than|damaged",
    "refuse": "503",
}


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
        answer = phone.update(patience=3000 if fault == "stall" else 20_000)
        assert answer["how"] == "kept"
        assert re.search(FAULTS[fault], answer["why"]), answer["why"]
        assert (answer["now"]["serial"], answer["now"]["version"]) == (1, 1)
    phone.shop.faults = {}
    assert phone.update()["now"]["version"] == 2


@pytest.mark.parametrize("fault", [*FAULTS, "drip"])
def test_the_old_model_stays_when_the_pointer_goes_wrong(
    phone: Phone, versions: tuple[Any, Any], fault: str
) -> None:
    first, second = versions
    phone.shop.point(first, 1)
    phone.update()
    phone.shop.point(second, 2)
    phone.shop.faults = {"current.json": fault}
    answer = phone.update(patience=3000, deadline=3000)  # that it is to be kept is sure, whatever is slow
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


def test_a_model_with_wrong_numbers_is_never_swapped_in(
    phone: Phone, versions: tuple[Any, Any], make_version: Callable[..., Any]
) -> None:
    first, _ = versions
    phone.shop.point(first, 1)
    phone.update()
    wrong = phone.shop.release(
        make_version(version=3, weights=OTHER * np.float32(1.01), golden_weights=OTHER)
    )
    phone.shop.point(wrong, 2)
    answer = phone.update()
    assert answer["how"] == "kept"
    assert "numbers are wrong" in answer["why"]
    assert answer["now"]["version"] == 1


def test_a_model_of_another_interface_is_refused(
    phone: Phone, versions: tuple[Any, Any], make_version: Callable[..., Any]
) -> None:
    first, _ = versions
    phone.shop.point(first, 1)
    phone.update()
    other = phone.shop.release(make_version(version=3, input_name="image"))
    phone.shop.point(other, 2)
    answer = phone.update()
    assert answer["how"] == "kept"
    assert answer["why"] == "the release has other inputs: [image:float32]"
    assert not any("model.onnx" in path for path in phone.shop.asked)


def test_a_model_damaged_on_the_phone_is_not_used_and_comes_again(
    phone: Phone, versions: tuple[Any, Any]
) -> None:
    first, _ = versions
    phone.shop.point(first, 1)
    phone.update()
    graph = phone.folder / "releases" / first.digest.hex / "model.onnx"
    graph.write_bytes(graph.read_bytes()[:-1] + b"\0")
    phone.shop.faults = {"model.onnx": "refuse"}
    assert phone.update()["now"] is None
    phone.shop.faults = {}
    assert phone.update()["now"]["version"] == 1
    assert [path.rpartition("/")[2] for path in phone.shop.asked] == [
        "current.json",
        "bundle.json",
        "model.onnx",
    ]


def test_of_two_updates_at_once_one_stands_back(phone: Phone, versions: tuple[Any, Any]) -> None:
    first, second = versions
    phone.shop.point(first, 1)
    phone.update()
    phone.shop.point(second, 2)
    phone.shop.faults = {"model.onnx": "stall"}  # so that the other one comes while this one is at it
    said = phone.kotlin("together", phone.url, phone.folder, 3000, 60_000)
    assert said[0] == "another update is running"
    assert "timed out" in said[1]
    phone.shop.faults = {}
    assert phone.update()["now"]["version"] == 2


def test_what_came_in_vain_does_not_pile_up(
    phone: Phone, versions: tuple[Any, Any], make_version: Callable[..., Any]
) -> None:
    first, second = versions
    phone.shop.point(first, 1)
    phone.update()
    for serial in (2, 3, 4):
        wrong = make_version(version=serial, weights=OTHER * np.float32(serial), golden_weights=OTHER)
        phone.shop.point(refused := phone.shop.release(wrong), serial)
        assert "numbers are wrong" in phone.update()["why"]
    kept = {path.name for path in (phone.folder / "releases").iterdir()}
    assert kept == {first.digest.hex, refused.digest.hex}
    phone.update()  # it is tried again, and not downloaded again
    assert phone.shop.asked == ["/current.json"]
    phone.shop.point(second, 5)
    phone.shop.faults = {"model.onnx": "truncate"}
    phone.update()
    assert (phone.folder / "coming").is_dir()
    phone.shop.point(first, 6)
    assert phone.update()["how"] == "unchanged"
    assert not (phone.folder / "coming").exists()


def test_the_app_s_own_model_is_unpacked_and_an_older_app_s_removed(
    kotlin: Kotlin, make_in: Callable[..., Any], tmp_path: Path
) -> None:
    made = make_in(tmp_path / "made")
    made.export("mobile-ort", tmp_path / "out")
    (tmp_path / "app" / "older").mkdir(parents=True)
    (tmp_path / "app" / "older" / "model.onnx").write_bytes(b"older")
    graph = Path(kotlin("unpack", tmp_path / "app", tmp_path / "out"))
    assert graph.read_bytes() == (tmp_path / "out" / "model.onnx").read_bytes()
    assert list((tmp_path / "app").iterdir()) == [graph.parent]
    (tmp_path / "out" / "model.onnx").unlink()
    assert Path(kotlin("unpack", tmp_path / "app", tmp_path / "out")) == graph  # once is enough

"""``mobile-ort``'s Kotlin, compiled with the real compiler and run on the JVM with ONNX Runtime for Java."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jvm_scene import ANDROID, RUNTIME, Kotlin, kotlinc, shrunk

pytestmark = pytest.mark.real

OTHER = np.abs(np.random.default_rng(2).normal(size=(4, 3))).astype(np.float32)


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


def test_the_app_s_own_model_is_unpacked_once_and_an_older_app_s_removed(
    kotlin: Kotlin, tiny: Any, tmp_path: Path
) -> None:
    tiny.export("mobile-ort", tmp_path / "out")
    content = (tmp_path / "out" / "model.onnx").read_bytes()
    (tmp_path / "app" / "older").mkdir(parents=True)
    (tmp_path / "app" / "older" / "model.onnx").write_bytes(b"older")

    def unpack() -> tuple[Path, int]:
        told = kotlin("unpack", tmp_path / "app", tmp_path / "out")
        return Path(told["graph"]), told["opened"]

    graph, opened = unpack()
    assert (graph.read_bytes(), opened) == (content, 1)  # of two threads one waited
    assert list((tmp_path / "app").iterdir()) == [graph.parent]
    assert unpack() == (graph, 0)
    graph.write_bytes(bytes(len(content)))  # the battery was empty too early
    assert unpack() == (graph, 1)
    assert graph.read_bytes() == content

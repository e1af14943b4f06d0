"""``mobile-ort``'s Swift, compiled with the real compiler and run on Linux (``swift_scene``)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from swift_scene import Swift, compiled, manifest_of

pytestmark = pytest.mark.real

OTHER = np.abs(np.random.default_rng(2).normal(size=(4, 3))).astype(np.float32)


def test_the_numbers_are_those_of_the_original_model(
    swift: Swift, make_version: Callable[..., Any], tmp_path: Path
) -> None:
    made = make_version(weights=OTHER, golden_weights=OTHER, external=True)
    made.export("mobile-ort", tmp_path / "out")
    x = np.random.default_rng(3).normal(size=(5, 4)).astype(np.float32)
    (tmp_path / "x").write_bytes(x.tobytes())
    assert swift(tmp_path, "run", "out/model.onnx", "x", "x", "y", 5, 4) == {"shape": [5, 3]}
    found = np.frombuffer((tmp_path / "y").read_bytes(), np.float32).reshape(5, 3)
    np.testing.assert_allclose(found, np.maximum(x @ OTHER, 0), rtol=0, atol=1e-6)


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


def test_the_package_takes_a_release_of_the_runtime_that_there_is(tiny: Any, tmp_path: Path) -> None:
    """The tags and platforms of github.com/microsoft/onnxruntime-swift-package-manager."""
    there_are = {(1, 19, 2): ("13.0", "11.0"), (1, 20, 0): ("13.0", "11.0"), (1, 24, 2): ("15.0", "14.0")}
    tiny.export("mobile-ort", tmp_path / "out")
    package = manifest_of(tmp_path / "out")
    (dependency,) = package["dependencies"]
    ((bounds,),) = (one["requirement"]["range"] for one in dependency["sourceControl"])
    lower, upper = (tuple(map(int, bounds[bound].split("."))) for bound in ("lowerBound", "upperBound"))
    chosen = max(release for release in there_are if lower <= release < upper)
    platforms = {one["platformName"]: one["version"] for one in package["platforms"]}
    for name, oldest in zip(("ios", "macos"), there_are[chosen], strict=True):
        assert float(platforms[name]) >= float(oldest)

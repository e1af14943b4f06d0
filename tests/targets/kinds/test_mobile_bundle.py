"""``mobile-ort``: the wrappers' sources and the operators that a small runtime needs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from shipway.registry.nouns import Variant
from shipway.targets.mobile_ort import MobileOptions


def test_the_wrappers_know_the_interface(tiny: Any, tmp_path: Path) -> None:
    tiny.export("mobile-ort", tmp_path / "out", package="com.acme.ocr", min_sdk=26, threads=2)
    kotlin = tmp_path / "out" / "android" / "src" / "main" / "kotlin" / "com" / "acme" / "ocr"
    bundle = (kotlin / "Bundle.kt").read_text()
    assert bundle.startswith("package com.acme.ocr\n")
    assert 'Spec("x", "float32", -1, 4),' in bundle
    assert 'Spec("y", "float32", -1, 3),' in bundle
    assert "const val THREADS = 2" in bundle
    assert (kotlin / "Model.kt").read_text().startswith("package com.acme.ocr\n")
    gradle = (tmp_path / "out" / "android" / "build.gradle.kts").read_text()
    assert "defaultConfig { minSdk = 26 }" in gradle
    assert 'implementation("com.microsoft.onnxruntime:onnxruntime-android:1.22.0")' in gradle
    swift = (tmp_path / "out" / "ios" / "Sources" / "ShipwayModel" / "Model.swift").read_text()
    assert '("x", "float32", [-1, 4]),' in swift
    assert "try options.setIntraOpNumThreads(2)" in swift


def test_names_cannot_leave_their_literal_in_kotlin_or_swift(
    make_version: Callable[..., Any], tmp_path: Path
) -> None:
    made = make_version(input_name='x"${1+1}\\(2)\n', batch=2)
    made.export("mobile-ort", tmp_path / "out")
    bundle = (tmp_path / "out/android/src/main/kotlin/shipway/model/Bundle.kt").read_text()
    assert 'Spec("x\\"\\${1+1}\\\\(2)\\n", "float32", 2, 4),' in bundle
    swift = (tmp_path / "out/ios/Sources/ShipwayModel/Model.swift").read_text()
    assert '("x\\"${1+1}\\\\(2)\\n", "float32", [2, 4]),' in swift


def test_the_operators_of_a_small_runtime_are_listed(tiny: Any, tmp_path: Path) -> None:
    tiny.export("mobile-ort", tmp_path / "out")
    lines = (tmp_path / "out" / "required_operators.config").read_text().splitlines()
    assert lines[1:] == ["ai.onnx;17;MatMul,Relu"]


def test_operators_of_a_quantised_graph_are_not_guessed(tiny: Any, tmp_path: Path) -> None:
    fp32 = tiny.version.variants[0]
    int8 = Variant("int8", fp32.files)
    tiny.version = dataclasses.replace(tiny.version, variants=(fp32, int8))
    plain = tiny.build("mobile-ort")
    tiny.model = lambda: dataclasses.replace(type(tiny).model(tiny), variant=int8)
    quantised = tiny.build("mobile-ort", precision="int8")
    assert plain.file("required_operators.config") is not None
    assert quantised.file("required_operators.config") is None
    assert quantised.precision == "int8"


@pytest.mark.parametrize("package", ["", "Acme", "a-b", "a..b", "a;b", "../a"])
def test_a_package_that_kotlin_does_not_take_is_refused(package: str) -> None:
    with pytest.raises(ValidationError):
        MobileOptions.model_validate({"package": package})

"""``mobile-ort``: the wrappers' sources and the operators that a small runtime needs."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from pydantic import ValidationError

from shipway.registry.errors import ConfigError, VerificationError
from shipway.registry.nouns import File, Variant
from shipway.targets import onnx_wire, ort_format
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
    assert re.search(r"^ *minSdk = 26$", gradle, re.MULTILINE)
    assert re.search(r"^ *compileSdk = 35$", gradle, re.MULTILINE)
    assert 'implementation("com.microsoft.onnxruntime:onnxruntime-android:1.22.0")' in gradle
    swift = (tmp_path / "out" / "ios" / "Sources" / "ShipwayModel" / "Model.swift").read_text()
    assert '("x", "float32", [-1, 4]),' in swift
    assert "try options.setIntraOpNumThreads(2)" in swift


def test_the_gradle_module_takes_android_s_plugin_with_and_without_kotlin_built_in(
    tiny: Any, tmp_path: Path
) -> None:
    """9 fails where Kotlin's plugin is applied too, and has no kotlinOptions; 8 needs the plugin."""
    tiny.export("mobile-ort", tmp_path / "out", min_sdk=36)
    gradle = (tmp_path / "out" / "android" / "build.gradle.kts").read_text()
    (plugins,) = re.findall(r"^plugins \{(.*?)^\}", gradle, re.MULTILINE | re.DOTALL)
    assert plugins.split() == ['id("com.android.library")']
    assert (
        'if (extensions.findByName("kotlin") == null) apply(plugin = "org.jetbrains.kotlin.android")'
        in gradle
    )
    assert "kotlinOptions" not in gradle
    assert re.search(r"^ *compileSdk = 36$", gradle, re.MULTILINE)  # never below minSdk
    (rules,) = re.findall(r'consumerProguardFiles\("(.*)"\)', gradle)
    kept = (tmp_path / "out" / "android" / rules).read_text().splitlines()
    assert "-keep class ai.onnxruntime.** { *; }" in kept


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


def test_the_operators_are_those_of_the_precision_in_use(tiny: Any, tmp_path: Path) -> None:
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
        helper.make_node("MatMulInteger", ["q", "w", "z"], ["i"]),
        helper.make_node("Cast", ["i"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("QuickGelu", ["f"], ["y"], domain="com.microsoft"),
    ]
    weights = numpy_helper.from_array(np.ones((4, 3), np.uint8), "w")
    sides = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", None]) for name in "xy"]
    graph = helper.make_graph(nodes, "g", sides[:1], sides[1:], [weights])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    onnx.save_model(helper.make_model(graph, opset_imports=opsets, ir_version=9), tmp_path / "int8.onnx")
    file = File(
        "model.onnx", tiny.store.add_file(tmp_path / "int8.onnx"), (tmp_path / "int8.onnx").stat().st_size
    )
    int8 = Variant("int8", (file,))
    tiny.version = dataclasses.replace(tiny.version, variants=(*tiny.version.variants, int8))
    tiny.model = lambda: dataclasses.replace(type(tiny).model(tiny), variant=int8)
    tiny.export("mobile-ort", tmp_path / "out", precision="int8")
    lines = (tmp_path / "out" / "required_operators.config").read_text().splitlines()
    assert lines[1:] == [
        "ai.onnx;17;Cast,DynamicQuantizeLinear,MatMulInteger",
        "com.microsoft;1;QuickGelu",
    ]


def test_the_runtime_s_own_format_runs_and_lists_its_operators(
    make_version: Callable[..., Any], tmp_path: Path, run_check: Callable[..., Any]
) -> None:
    version = metadata.version("onnxruntime")
    made = make_version(external=True)  # the format holds all weights in one file
    manifest = made.export("mobile-ort", tmp_path / "out", format="ort", runtime_version=version)
    assert manifest.graph == "model.ort"
    assert manifest.runtime["model_files"] == ["model.ort"]
    assert manifest.file("model.onnx") is None
    config = (tmp_path / "out" / "required_operators.config").read_text()
    assert "ai.onnx;13;MatMul" in config
    assert str(tmp_path) not in config
    done = run_check(tmp_path / "out", manifest)
    assert done.code == 0, done.stdout
    assert json.loads(done.stdout)["max_abs"] <= 1e-6


def test_the_runtime_s_own_format_is_measured_before_it_is_shipped(
    tiny: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    version = metadata.version("onnxruntime")
    convert = ort_format.convert

    def shifted(graph: Any) -> tuple[bytes, str]:
        """What an optimisation that is wrong by 1e-3 would write."""
        model = onnx.load(str(next(iter(graph.values()))))
        output = model.graph.output[0].name
        for node in model.graph.node:
            for index, name in enumerate(node.output):
                if name == output:
                    node.output[index] = "unshifted"
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(1e-3, np.float32), "shift"))
        model.graph.node.append(helper.make_node("Add", ["unshifted", "shift"], [output]))
        onnx.save_model(model, tmp_path / "model.onnx")
        return convert({"model.onnx": tmp_path / "model.onnx"})

    def broken(graph: Any) -> tuple[bytes, str]:
        return convert(graph)[0][:-400], ""

    for wrong, says in ((shifted, "max_abs 0.001"), (broken, "ORT model verification failed")):
        monkeypatch.setattr(ort_format, "convert", wrong)
        with pytest.raises(VerificationError, match="does not give the right numbers") as caught:
            tiny.build("mobile-ort", format="ort", runtime_version=version)
        assert says in caught.value.why
        assert "format: onnx" in caught.value.remedy
    monkeypatch.setattr(ort_format, "convert", convert)
    assert tiny.build("mobile-ort", format="ort", runtime_version=version).graph == "model.ort"


def test_the_runtime_s_own_format_is_the_same_each_time(tmp_path: Path) -> None:
    """Twelve operators, which the converter would list by chance."""
    kinds = ("Relu", "Sin", "Tanh", "Exp", "Neg", "Abs", "Sqrt", "Log", "Floor", "Ceil", "Erf", "Cos")
    nodes = [helper.make_node(kind, [f"x{n}"], [f"x{n + 1}"]) for n, kind in enumerate(kinds)]
    sides = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [3]) for name in ("x0", "x12")]
    graph = helper.make_graph(nodes, "g", sides[:1], sides[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save_model(model, tmp_path / "model.onnx")
    made = [ort_format.convert({"model.onnx": tmp_path / "model.onnx"}) for _ in range(3)]
    assert made[0] == made[1] == made[2]


def test_the_runtime_s_own_format_needs_its_release_here(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"needs ONNX Runtime 1\.22\.0 where the bundle is built") as caught:
        tiny.build("mobile-ort", format="ort")
    assert "format: onnx" in caught.value.remedy

    def absent(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", absent)
    with pytest.raises(ConfigError, match="it is not installed") as caught:
        tiny.build("mobile-ort", format="ort")
    assert "pip install onnxruntime==1.22.0" in caught.value.remedy


def test_what_is_no_onnx_file_is_said(tmp_path: Path) -> None:
    for content in (b"\x3a\xff", b"\x3a", b"\x0f", b"\x08"):
        (tmp_path / "broken.onnx").write_bytes(content)
        with pytest.raises(ValueError, match=r"no.* ONNX model"):
            onnx_wire.operators(tmp_path / "broken.onnx")


def test_operators_of_subgraphs_and_functions_are_found(tmp_path: Path) -> None:
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    branches = [
        helper.make_graph([helper.make_node(name, ["x"], ["y"])], name, [], [y]) for name in ("Exp", "Log")
    ]
    nodes = [
        helper.make_node("If", ["c"], ["z"], then_branch=branches[0], else_branch=branches[1]),
        helper.make_node("twice", ["z"], ["out"], domain="own"),
    ]
    sides = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, [1]),
        helper.make_tensor_value_info("c", TensorProto.BOOL, []),
    ]
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, [1])
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("own", 3)]
    twice = helper.make_function(
        "own", "twice", ["a"], ["b"], [helper.make_node("Neg", ["a"], ["b"])], opsets[:1]
    )
    model = helper.make_model(
        helper.make_graph(nodes, "g", sides, [out]), opset_imports=opsets, functions=[twice]
    )
    onnx.save_model(model, tmp_path / "m.onnx")
    assert onnx_wire.operators(tmp_path / "m.onnx") == {
        ("ai.onnx", 18): ["Exp", "If", "Log", "Neg"],
        ("own", 3): ["twice"],
    }


@pytest.mark.parametrize("package", ["", "Acme", "a-b", "a..b", "a;b", "../a"])
def test_a_package_that_kotlin_does_not_take_is_refused(package: str) -> None:
    with pytest.raises(ValidationError):
        MobileOptions.model_validate({"package": package})

"""``register`` by the targets of ``deploy.yaml``: their precisions, and what their runtimes limit."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper
from register_scene import inventory, rows

from shipway.registry.config.load import load_text
from shipway.registry.errors import ConversionError, VerificationError
from shipway.registry.verbs.register import register

Build = Callable[..., onnx.ModelProto]

pytestmark = pytest.mark.usefixtures("scratch")


def targets(precision: str, **convert: object) -> str:
    text = "project: demo\ntargets:\n  web: {kind: browser-wasm, precision: " + precision + "}\n"
    return text + (f"convert: {json.dumps(convert)}\n" if convert else "")


def test_variants_that_targets_ask_for(fresh: Path, tmp_path: Path, mlp: Build) -> None:
    shutil.copytree(fresh, tmp_path / "p")
    onnx.save(mlp(features=64), tmp_path / "net.onnx")
    wanting = load_text(targets("int8"), tmp_path / "p")
    version = register(wanting, tmp_path / "net.onnx", "net").version
    assert [variant.precision for variant in version.variants] == ["fp32", "int8"]
    small, full = version.variant("int8"), version.variant("fp32")
    assert small is not None
    assert full is not None
    assert small.size < 0.6 * full.size
    assert small.links[0].target == "int8"
    assert small.links[0].passed
    assert 0 < small.links[0].outputs[0].max_abs < 0.1
    plain = load_text("project: demo\n", tmp_path / "p")
    fewer = register(plain, tmp_path / "net.onnx", "net")
    assert fewer.created  # another set of precisions, so that bundles stay what they are


def saved_samples(folder: Path, *seeds: int) -> Path:
    folder.mkdir()
    for seed in seeds:
        case = np.random.default_rng(seed).standard_normal((2, 64))
        np.save(folder / f"{seed}.npy", case.astype(np.float32))
    return folder


def test_what_decides_a_variant_makes_another_version(fresh: Path, tmp_path: Path, mlp: Build) -> None:
    """A gate is not passed by what was registered under a wider one, nor by what other samples say."""
    root = tmp_path / "p"
    shutil.copytree(fresh, root)
    model, elsewhere = tmp_path / "net.onnx", tmp_path / "other.onnx"
    onnx.save(mlp(features=64), model)
    onnx.save(mlp(features=64, prefix="exported_again_"), elsewhere)
    samples = [saved_samples(tmp_path / "first", 1, 2, 3), saved_samples(tmp_path / "second", 1, 2, 4)]
    wide, strict = targets("int8"), targets("int8", tolerance_int8={"atol": 0.005, "rtol": 0.01})

    def made(config: str, path: Path = model, given: Path | None = None) -> tuple[int, bool]:
        done = register(load_text(config, root), path, "net", samples=given)
        int8 = done.version.variant("int8")
        assert int8 is not None
        assert int8.links[-1].tolerance == load_text(config, root).config.conversion("net").allowed("int8")
        return done.version.version, done.created

    assert made(wide) == (1, True)
    assert made(strict) == (2, True)
    assert made(wide, given=samples[0]) == (3, True)
    assert made(wide, given=samples[1]) == (4, True)
    for path in (model, elsewhere):
        assert made(wide, path) == (1, False)
        assert made(strict, path) == (2, False)
        assert made(wide, path, samples[0]) == (3, False)
    assert made(wide, elsewhere, samples[1]) == (4, False)


def test_a_variant_that_fails_its_gate_names_the_target(fresh: Path, tmp_path: Path, mlp: Build) -> None:
    shutil.copytree(fresh, tmp_path / "p")
    strict = load_text(targets("int8", tolerance_int8={"atol": 1e-9, "rtol": 0}), tmp_path / "p")
    onnx.save(mlp(features=64), tmp_path / "net.onnx")
    before = inventory(tmp_path / "p")
    with pytest.raises(VerificationError, match="'web' asks for") as caught:
        register(strict, tmp_path / "net.onnx", "net")
    assert "given -> int8" in caught.value.why
    assert "WRONG" in caught.value.why
    assert "precision: fp32" in caught.value.remedy
    assert inventory(tmp_path / "p") == before
    assert rows(strict) == 0


def test_the_runtime_of_a_target_limits_the_opset(fresh: Path, tmp_path: Path, model_file: Path) -> None:
    shutil.copytree(fresh, tmp_path / "p")
    greedy = load_text(targets("fp32", opset=30), tmp_path / "p")
    with pytest.raises(ConversionError, match="'web' runs"):
        register(greedy, model_file, "net")


LATE = "project: demo\ntargets: {box: {kind: jetson-ort, jetpack: '6.1'}}\n"


def test_a_model_newer_than_a_target_runs_names_operator_and_target(
    fresh: Path, tmp_path: Path, mlp: Build
) -> None:
    shutil.copytree(fresh, tmp_path / "p")
    project = load_text(LATE, tmp_path / "p")
    ceiling = project.target("box").limits().opset
    model = mlp(opset=23)
    assert ceiling < 23
    model.graph.node[1].CopyFrom(helper.make_node("Swish", ["net_h"], ["net_r"]))  # in ONNX from opset 24 on
    model.opset_import[0].version = 24
    onnx.save(model, tmp_path / "net.onnx")
    with pytest.raises(ConversionError, match=f"target 'box' runs, which is opset {ceiling}") as caught:
        register(project, tmp_path / "net.onnx", "net")
    assert caught.value.why == "It needs opset 24: Swish (24)."
    assert rows(project) == 0


def test_a_model_that_says_a_higher_opset_than_it_needs(fresh: Path, tmp_path: Path, mlp: Build) -> None:
    shutil.copytree(fresh, tmp_path / "p")
    project = load_text(LATE, tmp_path / "p")
    onnx.save(mlp(opset=23), tmp_path / "net.onnx")
    version = register(project, tmp_path / "net.onnx", "net").version
    assert version.opset == project.target("box").limits().opset
    assert version.passed

"""What holds for every kind, built in or not."""

from __future__ import annotations

import ast
import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from shipway.registry.bundling import StoreWriter
from shipway.registry.errors import IntegrityError, UnsupportedModelError, VerificationError
from shipway.registry.nouns import TensorSpec
from shipway.registry.verbs.verify import verify_bundle
from shipway.targets.base import Target, TargetOptions
from shipway.targets.loader import kinds, load_kind
from shipway.targets.parts import PROVIDERS

HOSTILE = "x\"; rm -rf $HOME `id` ${jndi} </script> \\ | % ' é 文"
each_kind = pytest.mark.parametrize("kind", kinds())


def test_the_built_in_kinds_are_all_there() -> None:
    assert set(kinds()) >= {"server-tensorrt", "jetson-ort", "mobile-ort", "browser-wasm"}


@each_kind
def test_a_kind_keeps_the_contract(kind: str) -> None:
    found = load_kind(kind)
    assert issubclass(found.options, TargetOptions)
    target = found(found.options())
    assert isinstance(target, Target)
    limits = target.limits()
    assert limits.opset >= 17
    assert limits.ir >= 8
    assert limits.why


@each_kind
def test_the_same_inputs_give_the_same_bundle_anywhere(
    kind: str, make_version: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = make_version()
    manifest = first.build(kind)
    monkeypatch.setattr("time.time", lambda: 1.0)
    monkeypatch.setenv("TZ", "Asia/Shanghai")
    monkeypatch.setenv("USER", "somebody-else")
    second = make_version()
    assert second.version.source != first.version.source
    assert second.build(kind).to_bytes() == manifest.to_bytes()


@each_kind
def test_a_bundle_says_nothing_of_the_machine(
    kind: str, tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("socket.gethostname", "platform.node", "getpass.getuser"):
        monkeypatch.setattr(name, lambda: "a-tell-tale")
    for name in ("USER", "LOGNAME", "HOSTNAME"):
        monkeypatch.setenv(name, "a-tell-tale")
    manifest = tiny.export(kind, tmp_path / "out")
    for path in [*(file.path for file in manifest.files), "bundle.json"]:
        content = (tmp_path / "out" / path).read_bytes()
        assert b"a-tell-tale" not in content, path
        assert str(tmp_path).encode() not in content, path


@each_kind
def test_a_bundle_is_built_once(kind: str, tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = tiny.build(kind)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("written again")

    monkeypatch.setattr(StoreWriter, "write", refuse)
    assert tiny.build(kind) == manifest


@each_kind
def test_another_version_is_another_bundle(kind: str, make_version: Callable[..., Any]) -> None:
    assert make_version().build(kind).digest != make_version(version=2).build(kind).digest


@each_kind
def test_the_command_in_the_readme_runs_the_check(
    kind: str, shared: Any, tmp_path: Path, run_check: Callable[..., Any]
) -> None:
    manifest = shared.export(kind, tmp_path / "out")
    moved = tmp_path / "a folder of another name"
    shutil.copytree(tmp_path / "out", moved)
    shutil.rmtree(tmp_path / "out")
    readme = (moved / "README.md").read_text("utf-8")
    assert f"\n```\n{' '.join(manifest.check)}\n```\n" in readme

    done = run_check(moved, manifest)

    assert done.code == 0, done.stderr
    assert len(done.stdout.splitlines()) == 1
    verdict = json.loads(done.stdout)
    assert verdict["passed"] is True
    assert verdict["provider"] in {"CPUExecutionProvider", "wasm"}
    assert verdict["max_abs"] <= 1e-6
    assert verdict["runs"] >= 3
    assert 0 < verdict["p50_ms"] <= verdict["p95_ms"]
    assert [(one["name"], one["passed"]) for one in verdict["outputs"]] == [("y", True)]
    scale = verdict["outputs"][0]["scale"]
    assert scale > 0
    assert verdict["max_rel"] == pytest.approx(verdict["max_abs"] / scale)
    assert verify_bundle(moved, run=False).digest == manifest.digest  # the check left the bundle as it was
    listed = {file.path for file in manifest.files} | {"bundle.json"}
    assert {path.relative_to(moved).as_posix() for path in moved.rglob("*") if path.is_file()} == listed


@pytest.mark.parametrize(("kind", "examples"), [("mobile-ort", 2), ("browser-wasm", 1)])
def test_the_examples_of_the_readme_give_every_input(
    kind: str, examples: int, tiny: Any, tmp_path: Path
) -> None:
    inputs = (TensorSpec("ids", "int64", ("n", 4)), TensorSpec("mask", "float32", ("n", 4)))
    tiny.version = replace(tiny.version, inputs=inputs)
    tiny.export(kind, tmp_path / "out")
    readme = (tmp_path / "out" / "README.md").read_text("utf-8")
    for spec in inputs:
        assert readme.count(f'"{spec.name}"') == examples


@each_kind
def test_a_bundle_holds_model_golden_and_assets(kind: str, shared: Any) -> None:
    manifest = shared.build(kind)
    graph = manifest.file(manifest.graph)
    assert graph is not None
    assert graph.digest == shared.version.variants[0].files[0].digest
    for file in (*shared.version.golden, *shared.version.assets):
        assert manifest.file(file.path) == file
    assert [file.digest for file in manifest.files].count(graph.digest) == 1  # no second copy of the weights


@each_kind
def test_the_readme_tells_licences_and_versions(kind: str, shared: Any, tmp_path: Path) -> None:
    manifest = shared.export(kind, tmp_path / "out")
    readme = (tmp_path / "out" / "README.md").read_text("utf-8")
    _, heading, licences = readme.partition("\n## Licences\n")
    assert heading
    assert f"ONNX Runtime {manifest.runtime['version']} is MIT-licensed" in licences
    assert "Apache-2.0" in licences
    holds_a_runtime = any(file.path.startswith("ort/") for file in manifest.files)
    assert ("Permission is hereby granted, free of charge" in licences) == holds_a_runtime
    assert f"version {manifest.version}" in readme.splitlines()[0]
    assert f"opset {shared.version.opset}, " in readme


@pytest.mark.parametrize("kind", ["server-tensorrt", "jetson-ort"])
@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"allow_missing": False},
            "CUDAExecutionProvider (this ONNX Runtime has none); CPUExecutionProvider would have been used. "
            "Install what is missing, or say in deploy.yaml, at the target, that it is not wanted "
            "('providers: [cpu]') or may be missing ('allow_missing: true').",
        ),
        ({"providers": ["tensorrt", "cuda"]}, "no other is wanted"),
        ({"allow_missing": False, "providers": ["cpu"]}, ""),
        ({}, ""),
    ],
)
def test_no_provider_is_replaced_in_silence(
    kind: str,
    options: dict[str, Any],
    said: str,
    shared: Any,
    tmp_path: Path,
    run_check: Callable[..., Any],
) -> None:
    """What is missing fails the check, unless deploy.yaml allows it: then the check passes and names it."""
    manifest = shared.export(kind, tmp_path / "out", **options)
    done = run_check(tmp_path / "out", manifest)
    verdict = json.loads(done.stdout)
    assert (done.code, verdict["passed"]) == ((5, False) if said else (0, True))
    assert said in verdict.get("problem", "")
    if not said:
        wanted = options.get("providers", ["tensorrt", "cuda"])
        assert verdict["missing"] == [PROVIDERS[name] for name in wanted if name != "cpu"]
        assert sorted(verdict["reasons"]) == sorted(verdict["missing"])


@each_kind
def test_external_data_travels_beside_the_graph(
    kind: str, make_version: Callable[..., Any], tmp_path: Path, run_check: Callable[..., Any]
) -> None:
    made = make_version(external=True)
    assert len(made.version.variants[0].files) == 2
    manifest = made.export(kind, tmp_path / "out")
    done = run_check(tmp_path / "out", manifest)
    assert done.code == 0, done.stdout + done.stderr


@each_kind
def test_a_flipped_byte_is_found(
    kind: str, shared: Any, tmp_path: Path, run_check: Callable[..., Any]
) -> None:
    manifest = shared.export(kind, tmp_path / "out")
    graph = tmp_path / "out" / manifest.graph
    raw = bytearray(graph.read_bytes())
    raw[len(raw) // 2] ^= 1
    graph.write_bytes(raw)
    with pytest.raises(IntegrityError) as caught:
        verify_bundle(tmp_path / "out")
    assert manifest.graph in str(caught.value)


@each_kind
@pytest.mark.parametrize("wrong", [1.01, np.nan])
def test_wrong_numbers_fail_the_check(
    kind: str, wrong: float, make_version: Callable[..., Any], tmp_path: Path, run_check: Callable[..., Any]
) -> None:
    good = np.abs(np.random.default_rng(1).normal(size=(4, 3))).astype(np.float32)
    made = make_version(weights=good * np.float32(wrong), golden_weights=good)
    manifest = made.export(kind, tmp_path / "out")
    done = run_check(tmp_path / "out", manifest)
    assert done.code == 5
    verdict = json.loads(done.stdout)
    assert verdict["passed"] is False
    assert (verdict["max_abs"] is None) == bool(np.isnan(wrong))
    with pytest.raises(VerificationError, match="did not pass"):
        verify_bundle(tmp_path / "out")


@each_kind
def test_hostile_names_are_names_and_nothing_else(
    kind: str, make_version: Callable[..., Any], tmp_path: Path, run_check: Callable[..., Any]
) -> None:
    made = make_version(
        name="A.b_c--d",
        input_name=HOSTILE,
        output_name=f"out\n{HOSTILE}",
        assets=[("label's `file` $(x) <b>.txt", b"{{ 7 * 7 }}")],
        batch=2,
    )
    manifest = made.export(kind, tmp_path / "out")
    done = run_check(tmp_path / "out", manifest)
    assert done.code == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["outputs"][0]["name"] == f"out\n{HOSTILE}"
    _parse_all(tmp_path / "out")


@each_kind
def test_all_python_in_a_bundle_is_python_3_8(kind: str, shared: Any, tmp_path: Path) -> None:
    """By the grammar; a real Python 3.8 compiles it in test_jetson_pythons.py."""
    shared.export(kind, tmp_path / "out")
    _parse_all(tmp_path / "out")


def _parse_all(folder: Path) -> None:
    """Every file of a language that a parser here knows must be of that language."""
    for path in sorted(path for path in folder.rglob("*") if "assets" not in path.parts):
        if path.suffix == ".py":
            ast.parse(path.read_text("utf-8"), feature_version=(3, 8))
        elif path.suffix == ".json":
            json.loads(path.read_text("utf-8"))
        elif path.suffix == ".yaml":
            assert yaml.safe_load(path.read_text("utf-8"))
        elif path.suffix in {".js", ".mjs"}:
            subprocess.run(["node", "--check", path], check=True, capture_output=True, cwd=folder)


@each_kind
def test_a_model_beyond_the_runtime_is_refused(kind: str, shared: Any) -> None:
    found = load_kind(kind)
    target = found(found.options())
    info = shared.model().info
    target.check(info)
    for change, word in (
        ({"opset": 99}, "opset 99"),
        ({"ir": 99}, "IR version 99"),
        ({"operators": ("Add", "paddle::Fancy")}, "paddle::Fancy"),
    ):
        with pytest.raises(UnsupportedModelError, match=word) as caught:
            target.check(type(info)(**{**{name: getattr(info, name) for name in info.__slots__}, **change}))
        assert caught.value.remedy


@pytest.mark.parametrize("kind", ["mobile-ort", "browser-wasm"])
def test_a_size_limit_counts_the_whole_bundle(kind: str, shared: Any) -> None:
    size = shared.build(kind).size
    too_small = shared.model().info.size + 1  # enough for the model, not for what goes with it
    with pytest.raises(UnsupportedModelError, match="too large") as caught:
        shared.build(kind, size_limit=too_small)
    assert "int8" in caught.value.remedy
    assert shared.build(kind, size_limit=size + 1000).size <= size + 1000

"""``browser-wasm`` in Node: the files of the runtime, a damaged model, options."""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from shipway.registry.errors import ConfigError
from shipway.targets import npm
from shipway.targets.browser_wasm import INTEGRITY, PACKAGE, PINNED, BrowserOptions

OTHER = f"sha512-{base64.b64encode(hashlib.sha512(b'').digest()).decode()}"


def test_the_smallest_runtime_travels_and_nothing_else_of_the_package(tiny: Any) -> None:
    manifest = tiny.build("browser-wasm")
    runtime = {file.path: file.size for file in manifest.files if file.path.startswith("ort/")}
    assert set(runtime) == {
        "ort/ort.wasm.min.js",
        "ort/ort-wasm-simd-threaded.js",
        "ort/ort-wasm-simd-threaded.wasm",
    }
    model = tiny.model().info.size
    golden = sum(file.size for file in tiny.version.golden)
    overhead = manifest.size - sum(runtime.values()) - model - golden
    assert overhead < 50_000  # bytes: page, module, check, README, manifest
    assert manifest.runtime["version"] == PINNED


def test_a_damaged_model_is_refused_with_its_name(
    tiny: Any, tmp_path: Path, run_check: Callable[..., Any]
) -> None:
    manifest = tiny.export("browser-wasm", tmp_path / "out")
    graph = tmp_path / "out" / "model.onnx"
    graph.write_bytes(graph.read_bytes() + b"\0")
    done = run_check(tmp_path / "out", manifest)
    assert done.code == 5
    assert "model.onnx is damaged" in json.loads(done.stdout)["problem"]


def test_a_wrong_input_is_named(tiny: Any, tmp_path: Path) -> None:
    tiny.export("browser-wasm", tmp_path / "out")
    program = """
import { readFile } from "node:fs/promises";
import { load } from "./model.js";
const model = await load({ read: (url) => readFile(url) });
const said = [];
for (const inputs of [{}, { x: { data: new Float64Array(4), dims: [1, 4] } }]) {
  await model.run(inputs).catch((error) => said.push(error.message));
}
const { y } = await model.run({ x: { data: new Float32Array(4), dims: [1, 4] } });
console.log(JSON.stringify({ said, dims: y.dims, verified: model.verified, threads: model.threads }));
process.exit(0);
"""
    (tmp_path / "out" / "try.mjs").write_text(program)
    done = subprocess.run(
        ["node", "try.mjs"], cwd=tmp_path / "out", capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == {
        "said": ["input x is missing", "input x takes float32 (Float32Array)"],
        "dims": [1, 3],
        "verified": True,
        "threads": 1,
    }


def test_types_name_the_inputs_and_outputs(tiny: Any, tmp_path: Path) -> None:
    tiny.export("browser-wasm", tmp_path / "out")
    types = (tmp_path / "out" / "model.d.ts").read_text()
    assert '  "x": Tensor<Float32Array>;' in types
    assert '  "y": Tensor<Float32Array>;' in types
    package = json.loads((tmp_path / "out" / "package.json").read_text())
    assert package["type"] == "module"
    assert package["name"] == "@shipway/tiny"


def test_a_local_tarball_gives_the_same_bundle(
    tiny: Any, make_version: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = tiny.build("browser-wasm")
    local = npm.tarball(PACKAGE, PINNED, INTEGRITY)
    monkeypatch.setenv("SHIPWAY_CACHE", str(tmp_path / "no cache"))
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    offline = make_version().build("browser-wasm", runtime_tarball=str(local))
    assert offline.digest == plain.digest
    with pytest.raises(ConfigError, match="npm is not installed"):
        make_version().build("browser-wasm")


def test_a_tarball_is_found_from_the_folder_of_deploy_yaml(tmp_path: Path) -> None:
    given = {"runtime_tarball": "vendor/ort.tgz"}
    options = BrowserOptions.model_validate(given, context={"root": tmp_path})
    assert options.runtime_tarball == tmp_path / "vendor" / "ort.tgz"
    assert "runtime_tarball" not in options.model_dump()


def test_another_release_needs_its_own_integrity() -> None:
    with pytest.raises(ValidationError, match="runtime_integrity"):
        BrowserOptions.model_validate({"runtime_version": "1.29.0"})
    options = BrowserOptions.model_validate({"runtime_version": "1.29.0", "runtime_integrity": OTHER})
    assert options.runtime_version == "1.29.0"

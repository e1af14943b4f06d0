"""``browser-wasm`` in Node: the files of the runtime, a damaged model, options."""

from __future__ import annotations

import base64
import errno
import hashlib
import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import brotli
import numpy as np
import pytest
from pydantic import ValidationError

from shipway.registry.errors import ConfigError, DeliveryError
from shipway.targets import npm, squeeze
from shipway.targets.browser_wasm import INTEGRITY, PACKAGE, PINNED, BrowserOptions

OTHER = f"sha512-{base64.b64encode(hashlib.sha512(b'').digest()).decode()}"


def test_the_smallest_runtime_travels_and_little_else(shared: Any) -> None:
    manifest = shared.build("browser-wasm")
    copies = {file.path: file.size for file in manifest.files if file.path.endswith(".br")}
    runtime = {
        file.path: file.size
        for file in manifest.files
        if file.path.startswith("ort/") and file.path not in copies
    }
    assert set(runtime) == {
        "ort/ort.wasm.min.js",
        "ort/ort-wasm-simd-threaded.js",
        "ort/ort-wasm-simd-threaded.wasm",
    }
    overhead = manifest.size - sum(runtime.values()) - sum(copies.values()) - shared.model().info.size
    assert overhead < 200_000  # bytes: page, module, check, golden slice, assets, README, manifest
    assert manifest.runtime["version"] == PINNED


def test_compressed_copies_lie_beside_the_runtime_and_the_model(
    make_version: Callable[..., Any], tmp_path: Path
) -> None:
    weights = np.zeros((4, 3), np.float32)
    made = make_version(weights=weights, golden_weights=weights, external=True)
    manifest = made.export("browser-wasm", tmp_path / "out")
    copies = {file.path: file.size for file in manifest.files if file.path.endswith(".br")}
    assert set(copies) == {
        "model.onnx.br",
        "model.onnx.data.br",
        "ort/ort.wasm.min.js.br",
        "ort/ort-wasm-simd-threaded.js.br",
        "ort/ort-wasm-simd-threaded.wasm.br",
    }
    for path in copies:
        copy = (tmp_path / "out" / path).read_bytes()
        assert brotli.decompress(copy) == (tmp_path / "out" / path.removesuffix(".br")).read_bytes()
    wasm = manifest.file("ort/ort-wasm-simd-threaded.wasm")
    assert wasm is not None
    assert copies["ort/ort-wasm-simd-threaded.wasm.br"] < wasm.size / 5
    plain = made.build("browser-wasm", brotli=False)
    assert not any(file.path.endswith(".br") for file in plain.files)


def test_a_model_is_compressed_in_pieces_to_the_same_bytes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for number, content in enumerate((b"", bytes(9_000_000), rng.bytes(100), rng.bytes(5_000_000))):
        source, target = tmp_path / f"{number}.onnx", tmp_path / f"{number}.br"
        source.write_bytes(content)
        worth = squeeze.copy_file(source, target, squeeze.WEIGHTS)
        assert brotli.decompress(target.read_bytes()) == content
        whole = squeeze.copy(content, squeeze.WEIGHTS)
        assert worth == (whole is not None)
        assert not worth or target.read_bytes() == whole


def test_no_room_for_a_compressed_copy_is_told(
    make_version: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(source: Path, target: Path, quality: int) -> bool:
        raise OSError(errno.ENOSPC, "No space left on device", str(target))

    monkeypatch.setattr(squeeze, "copy_file", full)
    with pytest.raises(DeliveryError, match="can't be compressed") as caught:
        make_version().build("browser-wasm")
    assert "No space left on device" in caught.value.why
    assert "TMPDIR" in caught.value.remedy


def test_copies_are_made_again_where_the_kept_ones_are_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHIPWAY_CACHE", str(tmp_path))
    content = b"a page of text " * 100
    made = squeeze.copy(content, squeeze.CODE, keep=True)
    (kept,) = (tmp_path / "brotli").iterdir()
    assert kept.read_bytes() == made
    for damage in (b"", b"nonsense", brotli.compress(b"something else"), made[:-1], made + b"more"):
        kept.write_bytes(damage)
        assert squeeze.copy(content, squeeze.CODE, keep=True) == made
        assert kept.read_bytes() == made
    noise = np.random.default_rng(1).bytes(10_000)
    assert squeeze.copy(noise, squeeze.WEIGHTS) is None


def test_a_damaged_model_is_refused_with_its_name(
    shared: Any, tmp_path: Path, run_check: Callable[..., Any]
) -> None:
    manifest = shared.export("browser-wasm", tmp_path / "out")
    graph = tmp_path / "out" / "model.onnx"
    graph.write_bytes(graph.read_bytes() + b"\0")
    done = run_check(tmp_path / "out", manifest)
    assert done.code == 5
    assert "model.onnx is damaged" in json.loads(done.stdout)["problem"]


def test_a_wrong_input_is_named(shared: Any, tmp_path: Path) -> None:
    shared.export("browser-wasm", tmp_path / "out")
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


def test_types_name_the_inputs_and_outputs(shared: Any, tmp_path: Path) -> None:
    shared.export("browser-wasm", tmp_path / "out")
    types = (tmp_path / "out" / "model.d.ts").read_text()
    assert '  "x": Tensor<Float32Array>;' in types
    assert '  "y": Tensor<Float32Array>;' in types
    package = json.loads((tmp_path / "out" / "package.json").read_text())
    assert package["type"] == "module"
    assert (package["exports"], package["types"]) == ("./model.js", "./model.d.ts")
    assert package["name"] == "@shipway/tiny"


def test_bundlers_are_kept_from_addresses_that_are_known_at_run_time_only(
    shared: Any, tmp_path: Path
) -> None:
    """Vite and webpack would replace them (docs/how-to/browsers.md: what was tried)."""
    shared.export("browser-wasm", tmp_path / "out")
    lines = (tmp_path / "out" / "model.js").read_text().splitlines()
    calls = [line for line in lines if re.search(r"import\.meta|\bimport\(", line)]
    assert len(calls) == 3
    assert all("(/* webpackIgnore: true */ /* @vite-ignore */ " in line for line in calls)


def test_a_local_tarball_gives_the_same_bundle(
    shared: Any, make_version: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = shared.build("browser-wasm")
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

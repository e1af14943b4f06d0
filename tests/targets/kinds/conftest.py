"""A small version in a store, as register leaves it, and bundles of it. The folder joins the path."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from shipway.registry import process
from shipway.registry.bundling import build
from shipway.registry.nouns import Digest, File, ModelVersion, TensorSpec, Tolerance, Variant
from shipway.registry.store.folder import FolderObjects
from shipway.registry.store.store import Store
from shipway.registry.verbs.bundle import export
from shipway.registry.verify import slice as golden
from shipway.targets.base import VerifiedModel
from shipway.targets.deliveries.gates import local_command
from shipway.targets.loader import load_kind
from shipway.targets.manifest import Manifest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[2] / "ssh"))  # hosts

WEIGHTS = np.random.default_rng(7).normal(size=(4, 3)).astype(np.float32)


@dataclass
class Made:
    """A version in a store, and what can be done with it."""

    store: Store
    version: ModelVersion

    def model(self, precision: str = "fp32") -> VerifiedModel:
        variant = self.version.variant(precision)
        assert variant is not None
        return VerifiedModel(self.version, variant, Tolerance(1e-5, 1e-5))

    def build(self, kind: str, overrides: Path | None = None, **options: Any) -> Manifest:
        found = load_kind(kind)
        if "allow_missing" in found.options.model_fields:
            options = {"allow_missing": True, **options}  # the machine that runs the tests may have no GPU
        parsed = found.options.model_validate(options)
        return build(found(parsed), parsed, self.model(), self.store, overrides)

    def export(self, kind: str, out: Path, **options: Any) -> Manifest:
        manifest = self.build(kind, **options)
        export(self.store, manifest, out)
        return manifest


def make(
    folder: Path,
    *,
    name: str = "tiny",
    version: int = 1,
    input_name: str = "x",
    output_name: str = "y",
    assets: Sequence[tuple[str, bytes]] = (("labels.txt", b"cat\ndog\n"),),
    batch: str | int = "batch",
    external: bool = False,
    step: float = 1 / 128,
    weights: np.ndarray[Any, Any] = WEIGHTS,
    golden_weights: np.ndarray[Any, Any] = WEIGHTS,
) -> Made:
    """Put ``relu(x @ weights)`` and the golden slice of ``golden_weights`` into a store below ``folder``.

    Golden inputs are multiples of ``step``: those of 1/128 travel encoded, others as they are.
    """
    folder.mkdir(parents=True, exist_ok=True)
    store = Store(FolderObjects(folder / "store"))
    graph = folder / "model.onnx"
    _write_model(graph, weights, input_name, output_name, batch, external=external)
    reference = folder / "reference.onnx"
    _write_model(reference, golden_weights, input_name, output_name, batch)

    def put(path: str, source: Path) -> File:
        return File(path, store.add_file(source), source.stat().st_size)

    rows = batch if isinstance(batch, int) else 2
    x = (np.arange(rows * 4, dtype=np.float32).reshape(rows, 4) - 3) * np.float32(step)
    outputs = onnxruntime.InferenceSession(reference).run(None, {input_name: x})
    slices = golden.write(folder / "golden", {input_name: x}, [output_name], outputs)
    given = []
    for asset, content in assets:
        (folder / "asset").write_bytes(content)
        given.append(put(f"assets/{asset}", folder / "asset"))
    parts = [graph, *sorted(folder.glob("model.onnx.*"))]
    record = ModelVersion(
        name=name,
        version=version,
        digest=Digest.of(weights.tobytes()),
        source=Digest.of(str(folder).encode()),
        toolchain="none",
        opset=17,
        ir=9,
        operators=("MatMul", "Relu"),
        inputs=(TensorSpec(input_name, "float32", (batch, 4)),),
        outputs=(TensorSpec(output_name, "float32", (batch, 3)),),
        links=(),
        variants=(Variant("fp32", tuple(put(part.name, part) for part in parts)),),
        golden=tuple(put(f"golden/{path.name}", path) for path in slices),
        assets=tuple(given),
        extra={"seconds": {"total": 1.5}, "folder": str(folder)},
    )
    store.put_version(record)
    return Made(store, record)


def _write_model(
    path: Path,
    weights: np.ndarray[Any, Any],
    input_name: str,
    output_name: str,
    batch: str | int,
    *,
    external: bool = False,
) -> None:
    nodes = [
        helper.make_node("MatMul", [input_name, "w"], ["before"]),
        helper.make_node("Relu", ["before"], [output_name]),
    ]
    inputs = [helper.make_tensor_value_info(input_name, TensorProto.FLOAT, [batch, 4])]
    outputs = [helper.make_tensor_value_info(output_name, TensorProto.FLOAT, [batch, 3])]
    graph = helper.make_graph(nodes, "g", inputs, outputs, [numpy_helper.from_array(weights, "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    where = f"{path.name}.data"
    onnx.save_model(model, path, save_as_external_data=external, location=where, size_threshold=0)


def run_check(folder: Path, manifest: Manifest) -> process.Finished:
    """The bundle's own check, run in its folder as its README says."""
    clean = {"PYTHONDONTWRITEBYTECODE": "1"}
    return process.run(local_command(manifest.check), cwd=folder, env=clean, timeout=120)


@pytest.fixture
def tiny(tmp_path: Path) -> Made:
    return make(tmp_path / "made")


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """``tiny`` in a store of the whole run, for tests that only read: each of its bundles is built once."""
    return make(tmp_path_factory.mktemp("shared"))


@pytest.fixture
def make_version(tmp_path: Path) -> Callable[..., Made]:
    """``make`` with a folder of its own for each call."""
    count = iter(range(1000))
    return lambda **options: make(tmp_path / f"made-{next(count)}", **options)


@pytest.fixture(scope="session")
def make_in() -> Callable[..., Made]:
    """``make`` for fixtures that last longer than a test."""
    return make


@pytest.fixture(scope="session")
def kotlin(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A phone's Kotlin, compiled once: everything but the Android-only lines, without Android's classes."""
    import jvm_scene

    folder = tmp_path_factory.mktemp("kotlin")
    make(folder / "made").export("mobile-ort", folder / "out")
    return jvm_scene.compiled(folder / "out", folder / "classes")


@pytest.fixture(scope="session")
def swift(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A phone's Swift, compiled once."""
    import swift_scene

    folder = tmp_path_factory.mktemp("swift")
    make(folder / "made").export("mobile-ort", folder / "out", threads=1)
    return swift_scene.compiled(folder / "out", folder / "built")


@pytest.fixture(name="run_check")
def _run_check() -> Callable[[Path, Manifest], process.Finished]:
    return run_check

"""Models too large for one file: their data stay in a file beside the graph, and out of memory."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from shipway.registry.config.load import load_text
from shipway.registry.convert import external, graph
from shipway.registry.errors import ConversionError
from shipway.registry.verbs.bundle import build_bundle, export
from shipway.registry.verbs.register import register
from shipway.registry.verbs.verify import verify_bundle, verify_version
from shipway.registry.verify import measure

Build = Callable[..., onnx.ModelProto]

TARGETS = """project: demo
targets:
  server: {kind: server-tensorrt}
  box: {kind: jetson-ort}
  web: {kind: browser-wasm}
"""


def outside(model: onnx.ModelProto, folder: Path) -> Path:
    """``model`` with its weights in two files of their own."""
    folder.mkdir()
    path = folder / "net.onnx"
    onnx.save(model, path, save_as_external_data=True, all_tensors_to_one_file=False, size_threshold=100)
    assert len(list(folder.iterdir())) > 2
    return path


def test_from_register_to_bundles(tmp_path: Path, mlp: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(external, "LARGE", 10_000)
    model = mlp(features=64)
    path = outside(model, tmp_path / "given")
    project = load_text(TARGETS, tmp_path / "project")
    version = register(project, path, "net").version
    fp32 = version.variant("fp32")
    assert fp32 is not None
    assert [file.path for file in fp32.files] == ["model.onnx", "model.onnx.data"]
    assert fp32.files[0].size < 2000
    assert fp32.size > 15_000
    assert version.extra["notes"] == ["not optimised: it is too large for one file"]
    whole = onnx.load(path)
    graph.name_axes(whole)
    assert version.digest == graph.canonical_digest(whole)  # as if it were all in one file

    assert verify_version(project, version.ref).links[0].passed
    for target in ("server", "box", "web"):
        manifest = build_bundle(project, version, target)
        assert [file.path for file in manifest.files if file.path.endswith(".data")], target
        out = tmp_path / target
        export(project.store, manifest, out)
        if target != "server":  # its check needs TensorRT's server
            assert verify_bundle(out).check["passed"]

    code = """
import sys, mlflow
mlflow.set_tracking_uri(sys.argv[1])
mlflow.pyfunc.load_model("models:/net/1").predict(sys.modules["numpy"].zeros((1, 64), "float32"))
print(len(mlflow.onnx.load_model("models:/net/1").graph.initializer[0].raw_data))
"""
    command = [sys.executable, "-W", "ignore", "-c", code, project.registry_uri]
    run = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert run.stdout.strip() == str(64 * 64 * 4), run.stderr


def test_another_precision_is_refused(tmp_path: Path, mlp: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(external, "LARGE", 10_000)
    path = outside(mlp(features=64), tmp_path / "given")
    project = load_text("project: demo\ntargets: {web: {kind: browser-wasm, precision: int8}}\n", tmp_path)
    with pytest.raises(ConversionError, match="too large to be brought to int8, which target 'web' asks for"):
        register(project, path, "net")
    assert project.store.names() == []


def test_data_outside_stay_as_they_are(tmp_path: Path, mlp: Build) -> None:
    path = outside(mlp(features=64), tmp_path / "given")
    light = graph.load(path, data=False)
    external.gather(light, path.parent, tmp_path / "all.data")
    onnx.save(light, tmp_path / "light.onnx")
    x = {"x": np.random.default_rng(0).standard_normal((3, 64)).astype(np.float32)}
    expected, found = (
        measure.run(measure.session(where), [x])[0][0] for where in (path, tmp_path / "light.onnx")
    )
    assert np.array_equal(expected, found)


BIG = """
import json, resource, sys
from pathlib import Path
import numpy as np, onnx
from onnx import TensorProto, helper
from shipway.registry.config.load import load_text
from shipway.registry.verbs.register import register

folder, count, side = Path(sys.argv[1]), 16, 6400
if sys.argv[2] == "make":
    random, weights, nodes = np.random.default_rng(0), [], []
    with (folder / "weights.bin").open("wb") as stream:
        for index in range(count):
            values = random.standard_normal((side, side), dtype=np.float32) / side**0.5
            tensor = TensorProto(name=f"w{index}", data_type=TensorProto.FLOAT, dims=[side, side],
                                 data_location=TensorProto.EXTERNAL)
            place = {"location": "weights.bin", "offset": str(stream.tell()), "length": str(values.nbytes)}
            for key, value in place.items():
                tensor.external_data.add(key=key, value=value)
            stream.write(values.tobytes())
            weights.append(tensor)
            nodes.append(helper.make_node("MatMul", [f"h{index}", f"w{index}"], [f"h{index + 1}"]))
    names = ("h0", f"h{count}")
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", side]) for name in names]
    graph = helper.make_graph(nodes, "big", ends[:1], ends[1:], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8),
              folder / "net.onnx")
else:
    done = register(load_text("project: demo", folder / "project"), folder / "net.onnx", "big")
    everyone = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    peak = sum(resource.getrusage(who).ru_maxrss * 1024 for who in everyone)
    version = done.version
    print(json.dumps({"size": version.variants[0].size, "peak": peak, "passed": version.passed}))
"""


@pytest.mark.real  # it takes 13 GB of disk for a while
def test_a_model_of_two_and_a_half_gigabytes(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "ignore", "-c", BIG, str(tmp_path)]
    try:
        subprocess.run([*command, "make"], check=True)
        run = subprocess.run([*command, "register"], capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stderr
        done = json.loads(run.stdout)
        assert done["passed"]
        assert done["size"] > 2.5e9
        assert done["peak"] < 3 * done["size"]
    finally:
        for path in tmp_path.rglob("*.bin"):
            path.unlink()
        for path in tmp_path.rglob("*"):
            if path.is_file() and path.stat().st_size > 1e9:
                path.unlink()

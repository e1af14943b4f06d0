"""Models too large for one file: their data stay in a file beside the graph, and out of memory."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from shipway.registry.config.load import load_text
from shipway.registry.convert import axes, external, graph
from shipway.registry.convert.identity import canonical_digest
from shipway.registry.errors import VerificationError
from shipway.registry.verbs.bundle import build_bundle, export
from shipway.registry.verbs.register import register
from shipway.registry.verbs.verify import verify_bundle, verify_version
from shipway.registry.verify import measure

Build = Callable[..., onnx.ModelProto]

TARGETS = """project: demo
targets:
  server: {kind: server-tensorrt}
  box: {kind: jetson-ort, allow_missing: true}
  web: {kind: browser-wasm}
"""


def outside(model: onnx.ModelProto, folder: Path) -> Path:
    """``model`` with each weight in a file of its own."""
    folder.mkdir()
    path = folder / "net.onnx"
    onnx.save(model, path, save_as_external_data=True, all_tensors_to_one_file=False, size_threshold=100)
    assert len(list(folder.iterdir())) > 1
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
    axes.name_axes(whole)
    assert version.digest == canonical_digest(whole)  # as if it were all in one file

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


@pytest.mark.parametrize(("precision", "share"), [("fp16", 0.55), ("int8", 0.35)])
def test_another_precision_of_a_large_model(
    tmp_path: Path, mlp: Build, monkeypatch: pytest.MonkeyPatch, precision: str, share: float
) -> None:
    """Its weights alone, and its data in a file of their own as well."""
    monkeypatch.setattr(external, "LARGE", 10_000)
    path = outside(mlp(features=64), tmp_path / "given")
    text = f"project: demo\ntargets: {{web: {{kind: browser-wasm, precision: {precision}}}}}\n"
    project = load_text(text, tmp_path / "project")
    version = register(project, path, "net").version
    full, small = version.variant("fp32"), version.variant(precision)
    assert full is not None
    assert small is not None
    assert [file.path for file in small.files] == ["model.onnx", "model.onnx.data"]
    assert small.size < share * full.size + 2000
    [link] = small.links
    assert link.passed
    assert "arithmetic in float32" in link.notes[0]
    assert 0 < link.outputs[0].max_abs < 0.05
    manifest = build_bundle(project, version, "web")
    export(project.store, manifest, tmp_path / "web")
    assert verify_bundle(tmp_path / "web").check["passed"]


def test_another_precision_that_fails_is_refused(
    tmp_path: Path, mlp: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(external, "LARGE", 10_000)
    path = outside(mlp(features=64), tmp_path / "given")
    strict = "{tolerance_int8: {atol: 1.0e-6, rtol: 1.0e-6}}"
    text = f"project: demo\nconvert: {strict}\ntargets: {{web: {{kind: browser-wasm, precision: int8}}}}\n"
    project = load_text(text, tmp_path / "project")
    with pytest.raises(VerificationError, match="The int8 form of net") as caught:
        register(project, path, "net", bisect=True)
    assert "given -> int8" in caught.value.why
    assert re.search(r"^Gemm +first +h ", caught.value.why, re.M)
    assert project.store.names() == []


def test_nothing_to_narrow_in_a_large_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(external, "LARGE", 1000)
    node = onnx.helper.make_node("Add", ["x", "w"], ["y"])
    x, y = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N", 4000]) for name in "xy")
    weight = onnx.numpy_helper.from_array(np.ones(4000, np.float32), "w")
    opset = onnx.helper.make_opsetid("", 17)
    made = onnx.helper.make_graph([node], "g", [x], [y], [weight])
    path = outside(onnx.helper.make_model(made, opset_imports=[opset], ir_version=8), tmp_path / "given")
    text = "project: demo\ntargets: {web: {kind: browser-wasm, precision: int8}}\n"
    with pytest.raises(VerificationError, match="The int8 form of net") as caught:
        register(load_text(text, tmp_path / "project"), path, "net")
    assert "No weight can be made narrower" in caught.value.why


def test_data_in_a_file_of_their_own_on_request(tmp_path: Path, mlp: Build) -> None:
    """Every precision, each measured as it lies; another version than the one in one file."""
    onnx.save(mlp(features=64), tmp_path / "net.onnx")
    box = "{kind: jetson-ort, allow_missing: true}"
    targets = f"targets: {{web: {{kind: browser-wasm, precision: int8}}, box: {box}}}\n"
    project = load_text(f"project: demo\n{targets}", tmp_path / "project")
    whole = register(project, tmp_path / "net.onnx", "net").version
    asked = f"project: demo\nconvert: {{external_data: always}}\n{targets}"
    project = load_text(asked, tmp_path / "project")
    version = register(project, tmp_path / "net.onnx", "net").version
    assert (whole.version, version.version) == (1, 2)
    assert whole.digest == version.digest
    for variant in version.variants:
        assert [file.path for file in variant.files] == ["model.onnx", "model.onnx.data"]
        assert variant.files[0].size < 2500
        assert all(link.passed for link in variant.links)
    assert [link.target for link in version.links] == ["onnx", "optimised"]
    for target in ("web", "box"):
        export(project.store, build_bundle(project, version, target), tmp_path / target)
        assert verify_bundle(tmp_path / target).check["passed"]
    assert not register(project, tmp_path / "net.onnx", "net").created


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


BIG = r"""
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
    targets = "{server: {kind: server-tensorrt, precision: " + sys.argv[3] + "}}"
    project = f"project: demo\ntargets: {targets}"
    done = register(load_text(project, folder / "project"), folder / "net.onnx", "big")
    everyone = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    peak = sum(resource.getrusage(who).ru_maxrss * 1024 for who in everyone)
    version = done.version
    sizes = {variant.precision: variant.size for variant in version.variants}
    passed = version.passed and all(link.passed for variant in version.variants for link in variant.links)
    print(json.dumps({"sizes": sizes, "peak": peak, "passed": passed}))
"""


@pytest.mark.real  # it takes 17 GB of disk for a while
def test_a_model_of_two_and_a_half_gigabytes(tmp_path: Path) -> None:
    """In float32 and float16, never more than three times in memory what it weighs."""
    command = [sys.executable, "-W", "ignore", "-c", BIG, str(tmp_path)]
    try:
        subprocess.run([*command, "make"], check=True)
        run = subprocess.run([*command, "register", "fp16"], capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stderr
        done = json.loads(run.stdout)
        assert done["passed"]
        print(done)
        assert done["sizes"]["fp32"] > 2.5e9
        assert done["sizes"]["fp16"] < 0.51 * done["sizes"]["fp32"]
        assert done["peak"] < 3 * done["sizes"]["fp32"]
    finally:
        for path in tmp_path.rglob("*.bin"):
            path.unlink()
        for path in tmp_path.rglob("*"):
            if path.is_file() and path.stat().st_size > 1e9:
                path.unlink()

"""``server-tensorrt``: the Triton configuration, providers, and the server spoken to over HTTP."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from pydantic import ValidationError
from server_scene import X, call, expected, infer_body, serving, weights_of

from shipway.registry.errors import ConfigError
from shipway.targets.server_tensorrt import ServerOptions


@pytest.fixture(scope="module")
def bundle(make_in: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("server")
    make_in(root / "made").export("server-tensorrt", root / "out")
    return root / "out"


@pytest.fixture(scope="module")
def address(bundle: Path) -> Iterator[str]:
    with serving(bundle) as server:
        yield server.address


def test_the_server_speaks_the_protocol(bundle: Path, make_version: Callable[..., Any]) -> None:
    golden = np.fromfile(bundle / "golden" / "0-1.bin", "<f4").reshape(2, 3)
    with serving(bundle) as server:
        address = server.address
        for path in (
            "/v2/health/live",
            "/v2/health/ready",
            "/v2/models/tiny/ready",
            "/v2/models/tiny/versions/1/ready",
        ):
            assert call(address + path)[0] == 200
        described = json.loads(call(f"{address}/v2/models/tiny")[1])
        assert described["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]
        assert described["outputs"] == [{"name": "y", "datatype": "FP32", "shape": [-1, 3]}]

        status, body, _ = call(f"{address}/v2/models/tiny/versions/1/infer", infer_body())
        answer = json.loads(body)
        assert (status, answer["id"], answer["model_version"]) == (200, "7", "1")
        assert answer["outputs"][0]["shape"] == [2, 3]
        np.testing.assert_allclose(answer["outputs"][0]["data"], golden.reshape(-1), rtol=0, atol=1e-6)

        nested = json.loads(call(f"{address}/v2/models/tiny/infer", infer_body(data=X.tolist()))[1])
        assert nested["outputs"] == answer["outputs"]


def test_tensors_travel_as_bytes_too(bundle: Path) -> None:
    golden = np.fromfile(bundle / "golden" / "0-1.bin", "<f4")
    tensor = {"name": "x", "datatype": "FP32", "shape": [2, 4], "parameters": {"binary_data_size": 32}}
    wanted = {"name": "y", "parameters": {"binary_data": True}}
    head = json.dumps({"inputs": [tensor], "outputs": [wanted]}).encode()
    with serving(bundle) as server:
        address = server.address
        status, body, headers = call(
            f"{address}/v2/models/tiny/infer",
            head + X.astype("<f4").tobytes(),
            Inference_Header_Content_Length=str(len(head)),
        )
    assert status == 200
    cut = int(headers["inference-header-content-length"])
    assert json.loads(body[:cut])["outputs"][0]["parameters"] == {"binary_data_size": 24}
    np.testing.assert_allclose(np.frombuffer(body[cut:], "<f4"), golden, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"not json", "Expecting value"),
        (b"\xff{}", "no JSON"),
        (b"[]", "no JSON object"),
        (b"[" * 100_000, "no JSON"),
        (b"{}", "missing input x"),
        (infer_body(name="z"), "input 'z' is unknown"),
        (infer_body(name=["x"]), "is unknown"),
        (b'{"inputs": {}}', "missing input x"),
        (b'{"inputs": 7}', "list of objects"),
        (b'{"inputs": [7]}', "list of objects"),
        (infer_body(datatype="INT64"), "takes FP32"),
        (infer_body(shape=[2, -4]), "no proper shape"),
        (infer_body(shape=[3, 4]), "input x"),
        (infer_body(data=["a"] * 8), "input x"),
        (infer_body(data=[0.0] * 10, shape=[2, 5]), "takes the shape [-1, 4]"),
        (infer_body(shape=[8]), "takes the shape [-1, 4]"),
        (infer_body(shape=[2, True]), "no proper shape"),
        (infer_body(parameters=[1]), "must be an object"),
        (infer_body(parameters={"binary_data_size": -32}), "input x"),
        (infer_body(parameters={"binary_data_size": 32}), "input x"),
    ],
)
def test_a_clients_mistake_is_answered_and_the_server_lives(address: str, body: bytes, said: str) -> None:
    status, answer, _ = call(f"{address}/v2/models/tiny/infer", body)
    assert status == 400
    assert said in json.loads(answer)["error"]
    assert call(f"{address}/v2/models/tiny/infer", infer_body())[0] == 200


@pytest.mark.parametrize(
    ("datatype", "data", "taken"),
    [
        ("FP32", None, False),
        ("FP32", 1.5, False),
        ("FP16", [0.1], True),
        ("INT64", [1.7], False),
        ("INT64", [2**62 + 1], True),
        ("UINT64", [2**64 - 1], True),
        ("UINT8", [300], False),
        ("BOOL", [2], False),
        ("BOOL", [True], True),
    ],
)
def test_numbers_are_taken_as_they_are_or_not_at_all(
    bundle: Path, datatype: str, data: Any, taken: bool
) -> None:
    protocol = runpy.run_path(str(bundle / "protocol.py"))
    spec = {"name": "x", "dtype": protocol["DTYPES"][datatype], "shape": ["n"]}
    request = {"inputs": [{"name": "x", "datatype": datatype, "shape": [1], "data": data}]}
    if not taken:
        with pytest.raises(protocol["Refused"], match="input x: "):
            protocol["decode"]([spec], request, memoryview(b""))
        return
    (found,) = protocol["decode"]([spec], request, memoryview(b""))["x"]
    assert found == np.array(data, spec["dtype"])[0]


@pytest.mark.parametrize(
    ("options", "said"),
    [(["--instances", "0"], "--instances must be 1 or more"), (["--follow", "5"], "--root")],
)
def test_a_server_that_could_not_serve_says_so(bundle: Path, options: list[str], said: str) -> None:
    argv = [sys.executable, "-B", "serve.py", "--port", "0", *options]
    done = subprocess.run(argv, cwd=bundle, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert said in done.stderr


def test_other_paths_are_not_found(bundle: Path) -> None:
    with serving(bundle) as server:
        address = server.address
        for path in (
            "/",
            "/v2/models/other",
            "/v2/models/tinyer",
            "/v2/models/tiny/versions/2",
            "/../bundle.json",
        ):
            assert call(address + path)[0] == 404
        assert call(f"{address}/v2/models/other/infer", infer_body())[0] == 404


def test_a_load_swaps_to_the_release_that_is_live_by_then(
    make_version: Callable[..., Any], tmp_path: Path
) -> None:
    root = tmp_path / "destination"
    for number in (1, 2):
        weights = weights_of(number)
        made = make_version(version=number, weights=weights, golden_weights=weights)
        made.export("server-tensorrt", root / "releases" / f"r{number}")

    def point(number: int) -> None:
        (root / "current.json").write_text(json.dumps({"path": f"releases/r{number}/"}))

    point(1)
    with serving(root / "releases" / "r1", "--root", str(root)) as server:
        address = server.address
        for number in (1, 2, 1):
            point(number)
            assert call(f"{address}/v2/repository/models/tiny/load", b"")[0] == 200
            answer = json.loads(call(f"{address}/v2/models/tiny/infer", infer_body())[1])
            assert answer["model_version"] == str(number)
            found = np.reshape(answer["outputs"][0]["data"], (2, 3))
            np.testing.assert_allclose(found, expected(weights_of(number)), rtol=0, atol=1e-6)
        (root / "releases" / "r2" / "bundle.json").write_text("{")
        point(2)
        assert call(f"{address}/v2/repository/models/tiny/load", b"")[0] in {400, 500}
        answer = json.loads(call(f"{address}/v2/models/tiny/infer", infer_body())[1])
        assert answer["model_version"] == "1"  # what does not load does not replace what runs


def test_triton_batches_and_warms_up_where_the_model_lets_it(tiny: Any, tmp_path: Path) -> None:
    tiny.export(
        "server-tensorrt",
        tmp_path / "out",
        shapes={"x": {"min": [1, 4], "opt": [4, 4], "max": [16, 4]}},
        max_batch=16,
        threads=2,
    )
    config = (tmp_path / "out" / "models" / "tiny" / "config.pbtxt").read_text()
    assert (tmp_path / "out" / "models" / "tiny" / "1" / "model.onnx").is_file()
    for line in (
        "max_batch_size: 16",
        "    dims: [4]",
        "version_policy { specific { versions: [1] } }",
        "dynamic_batching { max_queue_delay_microseconds: 1000 }",
        '    parameters { key: "precision_mode" value: "FP32" }',
        '    parameters { key: "trt_profile_max_shapes" value: "x:16x4" }',
        'parameters { key: "intra_op_thread_count" value: { string_value: "2" } }',
        "  batch_size: 2",
        "      random_data: true",
    ):
        assert line in config.splitlines()
    runtime = json.loads((tmp_path / "out" / "bundle.json").read_text())["runtime"]
    assert runtime["providers"][0]["options"]["trt_profile_min_shapes"] == "x:1x4"


def test_triton_warms_up_with_golden_files_that_hold_plain_values(
    make_version: Callable[..., Any], tmp_path: Path
) -> None:
    manifest = make_version(step=0.3).export("server-tensorrt", tmp_path / "out")
    config = (tmp_path / "out" / "models" / "tiny" / "config.pbtxt").read_text()
    assert '      input_data_file: "0-0.bin"' in config.splitlines()
    plain = manifest.file("golden/0-0.bin")
    warm = manifest.file("models/tiny/warmup/0-0.bin")
    assert plain is not None
    assert warm is not None
    assert (warm.digest, warm.size) == (plain.digest, 32)


def test_a_large_golden_input_is_not_copied_for_the_warm_up(
    make_version: Callable[..., Any], tmp_path: Path
) -> None:
    make_version(step=0.3, batch=4096).export("server-tensorrt", tmp_path / "out")
    folder = tmp_path / "out" / "models" / "tiny"
    assert (tmp_path / "out" / "golden" / "0-0.bin").stat().st_size == 4096 * 4 * 4
    assert "      random_data: true" in (folder / "config.pbtxt").read_text().splitlines()
    assert not (folder / "warmup").exists()


def test_a_golden_batch_that_triton_may_not_form_is_no_warm_up(tiny: Any, tmp_path: Path) -> None:
    tiny.export("server-tensorrt", tmp_path / "out", max_batch=1)
    assert "model_warmup" not in (tmp_path / "out" / "models" / "tiny" / "config.pbtxt").read_text()


def test_triton_does_not_batch_a_fixed_model(make_version: Callable[..., Any], tmp_path: Path) -> None:
    make_version(batch=2).export("server-tensorrt", tmp_path / "out", providers=["cpu"])
    config = (tmp_path / "out" / "models" / "tiny" / "config.pbtxt").read_text()
    assert "max_batch_size: 0" in config
    assert "dims: [2, 4]" in config
    assert "KIND_CPU" in config
    assert "dynamic_batching" not in config
    assert "tensorrt" not in config


@pytest.mark.parametrize("kind", ["server-tensorrt", "jetson-ort"])
@pytest.mark.parametrize(
    "shapes",
    [
        {"z": {"min": [1, 4], "opt": [1, 4], "max": [1, 4]}},
        {"x": {"min": [1], "opt": [1], "max": [1]}},
    ],
)
def test_shapes_that_do_not_fit_the_model_are_refused(kind: str, tiny: Any, shapes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="shapes"):
        tiny.build(kind, shapes=shapes)


def test_a_batch_that_the_engine_does_not_take_is_refused(
    tiny: Any, make_version: Callable[..., Any]
) -> None:
    shapes = {"x": {"min": [1, 4], "opt": [2, 4], "max": [4, 4]}}
    with pytest.raises(
        ConfigError, match=r"max_batch is 8, but shapes\.x\.max ends at a batch of 4"
    ) as caught:
        tiny.build("server-tensorrt", shapes=shapes)  # nobody said 8: it is the default
    assert "'max_batch: 4'" in caught.value.remedy
    tiny.build("server-tensorrt", shapes=shapes, max_batch=4)
    tiny.build("server-tensorrt", shapes=shapes, providers=["cuda", "cpu"])  # no engine to be too small
    make_version(batch=2).build("server-tensorrt", shapes=shapes)  # Triton does not batch this one


@pytest.mark.parametrize(
    ("providers", "package", "image"),
    [
        (["tensorrt", "cuda", "cpu"], "onnxruntime-gpu[cuda,cudnn]", "nvcr.io/nvidia/tensorrt:25.03-py3"),
        (["cuda", "cpu"], "onnxruntime-gpu[cuda,cudnn]", "python:3.12-slim"),
        (["cpu"], "onnxruntime", "python:3.12-slim"),
    ],
)
def test_what_is_installed_fits_the_providers(
    tiny: Any, tmp_path: Path, providers: list[str], package: str, image: str
) -> None:
    tiny.export("server-tensorrt", tmp_path / "out", providers=providers)
    required = (tmp_path / "out" / "requirements.txt").read_text().splitlines()
    assert [line for line in required if line.startswith("onnxruntime")] == [f"{package}==1.23.2"]
    lines = (tmp_path / "out" / "Dockerfile").read_text().splitlines()
    bases = dict(line.removeprefix("ARG ").split("=") for line in lines if line.startswith("ARG "))
    (base,) = [line.removeprefix("FROM ") for line in lines if line.startswith("FROM ")]
    assert bases.get("BASE", base) == image
    assert base in ("${BASE}", image)


@pytest.mark.parametrize(
    "profile",
    [
        {"min": [2, 4], "opt": [1, 4], "max": [4, 4]},
        {"min": [1, 4], "opt": [1, 4], "max": [4]},
        {"min": [0], "opt": [1], "max": [1]},
        {"min": [1], "opt": [1]},
    ],
)
def test_a_profile_rises_from_min_to_max(profile: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ServerOptions.model_validate({"shapes": {"x": profile}})


def test_the_container_files_agree_with_each_other(tiny: Any, tmp_path: Path) -> None:
    tiny.export("server-tensorrt", tmp_path / "out")
    compose = yaml.safe_load((tmp_path / "out" / "compose.yaml").read_text())
    service = yaml.safe_load((tmp_path / "out" / "kserve.yaml").read_text())
    container = service["spec"]["predictor"]["containers"][0]
    assert service["kind"] == "InferenceService"
    assert container["image"] == compose["services"]["server"]["image"] == "tiny:1"
    assert container["ports"] == [{"containerPort": 8000, "protocol": "TCP"}]
    assert "EXPOSE 8000" in (tmp_path / "out" / "Dockerfile").read_text()

"""``server-tensorrt`` and clients of others: tritonclient, the parsers of protobuf and Prometheus."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import tritonclient
import tritonclient.http as triton
from google.protobuf import text_format
from prometheus_client.parser import text_string_to_metric_families
from server_scene import Server, call, infer_body, serving
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from shipway.registry.verify import slice as golden


@pytest.fixture(scope="module")
def bundle(make_in: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("server")
    make_in(root / "made").export("server-tensorrt", root / "out")
    return root / "out"


@pytest.fixture(scope="module")
def server(bundle: Path) -> Iterator[Server]:
    with serving(bundle) as started:
        yield started


@pytest.fixture
def client(server: Server) -> Iterator[Any]:
    with triton.InferenceServerClient(server.host) as opened:
        yield opened


def given(array: np.ndarray[Any, Any], binary: bool = True) -> Any:
    tensor = triton.InferInput("x", list(array.shape), np_to_triton_dtype(array.dtype))
    tensor.set_data_from_numpy(array, binary_data=binary)
    return tensor


def test_tritonclient_asks_what_there_is(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("tiny")
    assert client.is_model_ready("tiny", "1")
    assert not client.is_model_ready("tiny", "2")
    assert not client.is_model_ready("other")
    assert client.get_server_metadata()["name"] == "shipway"
    assert client.get_model_metadata("tiny") == {
        "name": "tiny",
        "versions": ["1"],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 3]}],
    }
    (row,) = client.get_model_repository_index()
    assert (row["name"], row["version"], row["state"]) == ("tiny", "1", "READY")


def test_tritonclients_configuration_is_a_model_config(client: Any, bundle: Path, model_config: Any) -> None:
    from google.protobuf import json_format

    parsed = json_format.ParseDict(client.get_model_config("tiny"), model_config())
    assert (parsed.name, parsed.backend, parsed.max_batch_size) == ("tiny", "onnxruntime", 0)
    assert list(parsed.input[0].dims) == [-1, 4]
    content = (bundle / "bundle.json").read_bytes()
    assert parsed.parameters["bundle"].string_value == f"sha256:{hashlib.sha256(content).hexdigest()}"


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False, None])
@pytest.mark.parametrize("packing", [None, "gzip", "deflate"])
def test_tritonclient_gets_the_golden_outputs(
    client: Any, bundle: Path, binary_in: bool, binary_out: bool | None, packing: str | None
) -> None:
    (case,) = golden.read(bundle / "golden")
    wanted = None if binary_out is None else [triton.InferRequestedOutput("y", binary_data=binary_out)]
    found = client.infer(
        "tiny",
        [given(case.inputs[0].values, binary_in)],
        outputs=wanted,
        request_id="of the client",
        request_compression_algorithm=packing,
    )
    assert found.get_response()["id"] == "of the client"
    answer = found.as_numpy("y")
    assert answer.dtype == np.float32
    np.testing.assert_allclose(answer, case.outputs[0].values, rtol=0, atol=1e-6)


@pytest.mark.parametrize("shape", [(2, 5), (4,), (1, 2, 4)])
def test_tritonclient_is_told_its_mistakes(client: Any, shape: tuple[int, ...]) -> None:
    with pytest.raises(InferenceServerException, match=r"takes the shape \[-1, 4\]") as caught:
        client.infer("tiny", [given(np.zeros(shape, np.float32))])
    assert caught.value.status() == "400"
    with pytest.raises(InferenceServerException, match="takes FP32"):
        client.infer("tiny", [given(np.zeros((1, 4), np.int64))])
    with pytest.raises(InferenceServerException, match="no such path"):
        client.infer("other", [given(np.zeros((1, 4), np.float32))])


def test_a_packed_request_can_be_broken(server: Server) -> None:
    url = f"{server.address}/v2/models/tiny/infer"
    status, answer, _ = call(url, b"no gzip", Content_Encoding="gzip")
    assert (status, json.loads(answer)["error"].split(":")[0]) == (400, "the request can't be unpacked")
    assert call(url, infer_body(), Content_Encoding="br")[0] == 415


def test_an_output_that_json_cannot_say_is_asked_for_in_bytes(client: Any) -> None:
    x = np.full((1, 4), np.nan, np.float32)
    assert np.isnan(client.infer("tiny", [given(x)]).as_numpy("y")).all()
    with pytest.raises(InferenceServerException, match="ask for bytes"):
        client.infer("tiny", [given(x)], outputs=[triton.InferRequestedOutput("y", binary_data=False)])


def test_prometheus_reads_the_metrics(bundle: Path) -> None:
    with serving(bundle) as server, triton.InferenceServerClient(server.host) as client:
        for _ in range(3):
            client.infer("tiny", [given(np.zeros((1, 4), np.float32))])
        with pytest.raises(InferenceServerException):
            client.infer("tiny", [given(np.zeros((1, 5), np.float32))])
        text = call(f"{server.address}/metrics")[1].decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    requests = {
        sample.labels["status"]: sample.value for sample in families["shipway_inference_requests"].samples
    }
    assert requests == {"200": 3, "400": 1}
    histogram = families["shipway_inference_seconds"]
    assert histogram.type == "histogram"
    buckets = [sample for sample in histogram.samples if sample.name.endswith("_bucket")]
    bounds = [float(sample.labels["le"]) for sample in buckets]
    counts = [sample.value for sample in buckets]
    assert (bounds, counts) == (sorted(bounds), sorted(counts))
    assert buckets[-1].labels["le"] == "+Inf"
    assert buckets[-1].value == 4
    (info,) = families["shipway_model_info"].samples
    assert (info.labels["provider"], info.labels["version"]) == ("CPUExecutionProvider", "1")
    assert families["shipway_inference_run_seconds"].samples[0].value > 0
    assert families["shipway_inference_pending"].samples[0].value == 0


@pytest.fixture(scope="session")
def model_config() -> Any:
    """tritonclient's ``ModelConfig`` message. Its package of that name wants gRPC, the message does not."""
    path = Path(tritonclient.__path__[0]) / "grpc" / "model_config_pb2.py"
    spec = importlib.util.spec_from_file_location("model_config_pb2", path)
    assert spec is not None
    assert spec.loader is not None
    module: ModuleType = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.ModelConfig


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"providers": ["cpu"], "threads": 2},
        {"max_batch": 0},
        {"shapes": {"x": {"min": [1, 4], "opt": [4, 4], "max": [16, 4]}}, "max_batch": 16},
    ],
)
@pytest.mark.parametrize("made", [{}, {"batch": 2}, {"step": 0.3}, {"input_name": 'x"\\ é\n'}])
def test_triton_would_read_the_configuration(
    model_config: Any,
    make_version: Callable[..., Any],
    tmp_path: Path,
    options: dict[str, Any],
    made: dict[str, Any],
) -> None:
    if "shapes" in options and "input_name" in made:
        options = {**options, "shapes": {made["input_name"]: options["shapes"]["x"]}}
    make_version(**made).export("server-tensorrt", tmp_path / "out", **options)
    folder = tmp_path / "out" / "models" / "tiny"
    config = text_format.Parse((folder / "config.pbtxt").read_text("utf-8"), model_config())
    batched = config.max_batch_size > 0
    assert batched == (options.get("max_batch", 8) > 0 and "batch" not in made)
    assert config.HasField("dynamic_batching") == batched
    (taken,) = config.input
    assert taken.name == made.get("input_name", "x")
    assert list(taken.dims) == ([4] if batched else [made.get("batch", -1), 4])
    assert list(config.version_policy.specific.versions) == [1]
    accelerators = config.optimization.execution_accelerators.gpu_execution_accelerator
    assert [one.name for one in accelerators] == ([] if options.get("providers") == ["cpu"] else ["tensorrt"])
    for warm in config.model_warmup:
        (tensor,) = warm.inputs.values()
        if tensor.input_data_file:
            assert (folder / "warmup" / tensor.input_data_file).stat().st_size == 4 * 4 * 2

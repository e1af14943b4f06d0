"""``server-tensorrt``: a Triton model repository, and a server of its own for hosts without Triton.

Both run the same ONNX file on ONNX Runtime with TensorRT, CUDA and CPU in that order. TensorRT engines are
built on the host that runs them (they fit one GPU and one TensorRT) and cached there; none is shipped.

``config.pbtxt``: https://github.com/triton-inference-server/server/blob/main/docs/user_guide/model_configuration.md;
keys of the TensorRT accelerator: https://github.com/triton-inference-server/onnxruntime_backend#readme
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field

from shipway.registry.errors import ConfigError
from shipway.registry.nouns import Json, TensorSpec
from shipway.targets.base import BundlePlan, BundleWriter, RuntimeLimits, TargetOptions, VerifiedModel
from shipway.targets.limits import Size, onnx_runtime
from shipway.targets.parts import (
    OnnxRuntimeKind,
    Provider,
    Threads,
    Version,
    facts,
    place_engines,
    place_model,
    place_python_server,
    python_runtime,
    tensorrt_options,
)
from shipway.targets.profiles import Shapes, check_shapes, profile_options

_IMAGE = "nvcr.io/nvidia/tensorrt:25.03-py3"
"""TensorRT 10.9, CUDA 12.8 and Python 3.12: what onnxruntime-gpu 1.22 and 1.23 of PyPI are made for.

https://onnxruntime.ai/docs/execution-providers/TensorRT-ExecutionProvider.html#requirements
"""
_WARM_UP = 2**15  # bytes of a golden input that is worth a second copy in the bundle

_TYPES = {
    **{f"{sign}int{bits}": f"TYPE_{sign.upper()}INT{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
    "bool": "TYPE_BOOL",
    "float16": "TYPE_FP16",
    "float32": "TYPE_FP32",
    "float64": "TYPE_FP64",
}


class ServerOptions(TargetOptions):
    """Options of ``server-tensorrt``."""

    providers: tuple[Provider, ...] = Field(
        ("tensorrt", "cuda", "cpu"), min_length=1, description="what to run on, best first; all are wanted"
    )
    allow_missing: bool = Field(
        False, description="true: the model may run without those of 'providers' that the host has not"
    )
    shapes: Shapes = Field({})
    max_batch: int = Field(8, ge=0, description="largest batch that Triton forms; 0: none")
    batch_delay_us: int = Field(1000, ge=0, description="how long Triton waits to fill a batch")
    workspace: Size = Field(2**30, description="GPU memory that TensorRT may use to build an engine")
    threads: Threads = Field(0, description="CPU threads of one run; 0: as many as there are cores")
    runtime_version: Version = Field("1.23.2", description="release of onnxruntime-gpu that the host has")


class ServerTensorRT(OnnxRuntimeKind[ServerOptions]):
    """See the module."""

    kind: ClassVar[str] = "server-tensorrt"
    options: ClassVar[type[TargetOptions]] = ServerOptions

    def limits(self) -> RuntimeLimits:
        return onnx_runtime(self.chosen.runtime_version)

    def build(self, model: VerifiedModel, out: BundleWriter) -> BundlePlan:
        options, version = self.chosen, model.version
        check_shapes(options.shapes, version.inputs)
        folder = f"models/{version.name}"
        graph = place_model(model, out, f"{folder}/{version.version}/")
        gpu = [name for name in options.providers if name != "cpu"]
        package = "onnxruntime-gpu[cuda,cudnn]" if gpu else "onnxruntime"
        place_python_server(model, out, package, options.runtime_version)
        place_engines(out, options.providers)
        batch = options.max_batch if _batched(version.inputs) and _batched(version.outputs) else 0
        self._check_batch(batch)
        values = {
            **facts(model),
            "runtime_version": options.runtime_version,
            "max_batch": batch,
            "batch_delay_us": options.batch_delay_us,
            "triton_inputs": [_tensor(spec, batch) for spec in version.inputs],
            "triton_outputs": [_tensor(spec, batch) for spec in version.outputs],
            "gpu": gpu,
            "tensorrt": _IMAGE if "tensorrt" in options.providers else None,
            "allow_missing": options.allow_missing,
            "accelerator": self._accelerator(model) if "tensorrt" in options.providers else {},
            "threads": options.threads,
            "start": "600s" if "tensorrt" in options.providers else "30s",  # while engines are built
            "warmup": _warm_up(model, out, batch, folder),
        }
        out.render(f"{folder}/config.pbtxt", "config.pbtxt", **values)
        for name in ("Dockerfile", "compose.yaml", "kserve.yaml", "README.md"):
            out.render(name, name, **values)
        tensorrt = tensorrt_options(model.variant.precision, options.workspace)
        runtime = python_runtime(
            self.limits(),
            options.runtime_version,
            options.providers,
            allow_missing=options.allow_missing,
            threads=options.threads,
            provider_options={"tensorrt": {**tensorrt, **profile_options(options.shapes)}},
        )
        return BundlePlan(graph, ("python3", "check.py"), runtime)

    def _check_batch(self, batch: int) -> None:
        """Triton must form no batch that TensorRT's engine does not take: it would build another one then."""
        if "tensorrt" not in self.chosen.providers:
            return
        for name, profile in self.chosen.shapes.items():
            if profile.max and profile.max[0] < batch:
                raise ConfigError(
                    f"max_batch is {batch}, but shapes.{name}.max ends at a batch of {profile.max[0]}.",
                    why="Triton forms batches of max_batch; TensorRT's engine is made for those of 'shapes'.",
                    remedy=f"Say 'max_batch: {profile.max[0]}' at the target in deploy.yaml (the default "
                    "is 8), or a larger 'max'.",
                )

    def _accelerator(self, model: VerifiedModel) -> dict[str, str]:
        return {
            "precision_mode": model.variant.precision.upper(),
            "max_workspace_size_bytes": str(self.chosen.workspace),
            "trt_engine_cache_enable": "1",
            "trt_engine_cache_path": f"/engines/{model.version.digest.hex[:16]}",
            **profile_options(self.chosen.shapes),
        }


def _batched(specs: tuple[TensorSpec, ...]) -> bool:
    """Triton may batch where each tensor's first dimension is dynamic and others follow."""
    return all(len(spec.shape) > 1 and isinstance(spec.shape[0], str) for spec in specs)


def _tensor(spec: TensorSpec, batch: int) -> dict[str, Json]:
    """A tensor as Triton describes it: without the batch dimension; a scalar is reshaped from one element."""
    shape = spec.shape[1:] if batch else spec.shape
    return {
        "name": spec.name,
        "type": _TYPES[spec.dtype],
        "dims": [size if isinstance(size, int) else -1 for size in shape] or [1],
        "scalar": not shape,
    }


def _warm_up(model: VerifiedModel, out: BundleWriter, batch: int, folder: str) -> Mapping[str, Json]:
    """Triton's warm-up with the first golden case: its raw files where they hold the values as they are.

    Triton reads them from a folder of the model's own, so a large one is not copied there, and one that holds
    encoded values is no good to it: random data of the same shape stands in, zeros for integers, which may be
    indices.
    """
    golden = {file.path: file for file in model.version.golden}
    case = json.loads(out.open(golden["golden/golden.json"]).read_text("utf-8"))["cases"][0]
    rows = {tensor["shape"][0] if tensor["shape"] else 0 for tensor in case["inputs"]}
    if batch and (len(rows) != 1 or max(rows) > batch):
        return {}
    tensors = []
    for tensor in case["inputs"]:
        file = golden[f"golden/{tensor['file']}"]
        plain = "encoding" not in tensor and file.size <= _WARM_UP
        if plain:
            out.take(f"{folder}/warmup/{tensor['file']}", file)
        tensors.append(
            {
                "name": tensor["name"],
                "type": _TYPES[tensor["dtype"]],
                "dims": (tensor["shape"][1:] if batch else tensor["shape"]) or [1],
                "file": tensor["file"] if plain else None,
                "filler": "random_data" if tensor["dtype"].startswith("float") else "zero_data",
            }
        )
    return {"batch": max(rows) if batch else 0, "inputs": tensors}

"""What the built-in kinds share: placing the model, the golden slice and the runner in Python."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Generic, Literal, TypeVar

from pydantic import Field

from shipway.registry.nouns import Digest, File, Json, TensorSpec
from shipway.targets.base import BundleWriter, OnnxInfo, RuntimeLimits, TargetOptions, VerifiedModel
from shipway.targets.limits import check_limits, numpy_beside
from shipway.targets.render import label
from shipway.targets.steps import Command, Release, Step

PROVIDERS = {
    "tensorrt": "TensorrtExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "cpu": "CPUExecutionProvider",
}
"""Short names in deploy.yaml to ONNX Runtime's own (https://onnxruntime.ai/docs/execution-providers/)."""

Provider = Literal["tensorrt", "cuda", "cpu"]
Threads = Annotated[int, Field(ge=0, le=1024)]
Version = Annotated[str, Field(pattern=r"^\d+\.\d+\.\d+$")]

_ENGINES = "engines.py"

Chosen = TypeVar("Chosen", bound=TargetOptions)


class OnnxRuntimeKind(ABC, Generic[Chosen]):
    """A kind whose runtime is some build of ONNX Runtime. Subclasses say ``limits`` and ``build``."""

    kind: ClassVar[str]
    options: ClassVar[type[TargetOptions]]

    def __init__(self, options: TargetOptions) -> None:
        if not isinstance(options, self.options):
            raise TypeError(f"{self.kind} takes {self.options.__name__}, not {type(options).__name__}")
        self.chosen: Chosen = options  # type: ignore[assignment]

    @abstractmethod
    def limits(self) -> RuntimeLimits: ...

    def check(self, model: OnnxInfo) -> None:
        check_limits(self.kind, model, self.limits())

    def fingerprint(self) -> Sequence[Digest]:
        return ()

    def activation(self, release: Release) -> Sequence[Step]:
        if release.manifest.file(_ENGINES) is None:
            return ()
        return (Command(release, ("python3", _ENGINES), "have TensorRT build its engines"),)


def place_model(model: VerifiedModel, out: BundleWriter, folder: str = "") -> str:
    """Add the graph and its external data side by side below ``folder/``; return the graph's path."""
    paths = [out.take(folder + file.path, file).path for file in model.variant.files]
    return paths[0]


def place_proof(model: VerifiedModel, out: BundleWriter) -> None:
    """Add the golden slice and the assets, at the paths that the version gives them."""
    for file in (*model.version.golden, *model.version.assets):
        out.take(file.path, file)


SERVER = ("uvicorn", "httptools")
"""What ``serve.py`` needs besides what the runner does (docs/adr/0010-the-server.md)."""


def python_requirements(package: str, version: str, *more: str) -> list[str]:
    """``requirements.txt``: NumPy, the build ``package`` of ONNX Runtime, and ``more``."""
    return [numpy_beside(version), f"{package}=={version}", *more]


def place_python_runner(
    model: VerifiedModel, out: BundleWriter, package: str, version: str, *more: str
) -> File:
    """Add ``runner.py``, ``golden.py``, ``check.py`` and ``requirements.txt`` beside ``bundle.json``.

    The arguments after ``out`` are those of ``python_requirements``. Returns ``golden.py``, which judges.
    """
    place_proof(model, out)
    for name in ("runner.py", "check.py"):
        out.render(name, name)
    judge = out.render("golden.py", "golden.py")
    requirements = python_requirements(package, version, *more)
    out.render("requirements.txt", "requirements.txt", requirements=requirements)
    return judge


def place_python_server(model: VerifiedModel, out: BundleWriter, package: str, version: str) -> None:
    """Add the runner, and the server with what it needs."""
    place_python_runner(model, out, package, version, *SERVER)
    for name in ("protocol.py", "metrics.py", "serve.py"):
        out.render(name, name)


def place_engines(out: BundleWriter, providers: Sequence[Provider]) -> None:
    """Add what ``activation`` runs where TensorRT is wanted: engines fit one GPU, so none is shipped."""
    if "tensorrt" in providers:
        out.render(_ENGINES, _ENGINES)


def python_runtime(
    limits: RuntimeLimits,
    version: str,
    providers: Sequence[Provider],
    *,
    allow_missing: bool = False,
    threads: int = 0,
    provider_options: Mapping[Provider, Mapping[str, str]] | None = None,
) -> dict[str, Json]:
    """``runtime`` of the manifest, as ``runner.py`` reads it."""
    options = provider_options or {}
    return {
        "name": "onnxruntime",
        "version": version,
        "opset": limits.opset,
        "ir": limits.ir,
        "providers": [
            {"name": PROVIDERS[name], "options": dict(options.get(name, {}))} for name in providers
        ],
        "allow_missing": allow_missing,
        "threads": threads,
    }


def tensorrt_options(precision: str, workspace: int) -> dict[str, str]:
    """``workspace`` in bytes. https://onnxruntime.ai/docs/execution-providers/TensorRT-ExecutionProvider.html"""
    return {
        "trt_engine_cache_enable": "1",
        "trt_fp16_enable": "1" if precision == "fp16" else "0",
        "trt_int8_enable": "1" if precision == "int8" else "0",
        "trt_max_workspace_size": str(workspace),
    }


def facts(model: VerifiedModel) -> dict[str, Any]:
    """What every README of a bundle tells."""
    version = model.version
    return {
        "name": version.name,
        "version": version.version,
        "label": label(version.name),
        "digest": str(version.digest),
        "toolchain": version.toolchain,
        "precision": model.variant.precision,
        "opset": version.opset,
        "size": model.variant.size,
        "inputs": [_side(spec) for spec in version.inputs],
        "outputs": [_side(spec) for spec in version.outputs],
        "assets": [file.path for file in version.assets],
        "atol": f"{model.tolerance.atol:g}",
        "rtol": f"{model.tolerance.rtol:g}",
    }


def _side(spec: TensorSpec) -> dict[str, Json]:
    return {"name": spec.name, "dtype": spec.dtype, "shape": ", ".join(str(size) for size in spec.shape)}

"""What each release of ONNX Runtime accepts, and how a model is held against it. The one place for both.

The table was measured, with models of one ``Identity`` stamped with rising numbers: the highest opset of the
default domain and the highest IR version that ``InferenceSession`` loads (CPU wheels from PyPI; 1.30.0 of
onnxruntime-web in Node gives the same). It agrees with the ONNX release that each version was built from
(https://onnxruntime.ai/docs/reference/compatibility.html, https://github.com/onnx/onnx/blob/main/docs/Versioning.md).
A release not listed here counts as the newest listed one below it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import PlainValidator, WithJsonSchema

from shipway.registry.errors import UnsupportedModelError
from shipway.registry.units import format_size, parse_size
from shipway.targets.base import OnnxInfo, RuntimeLimits

OLDEST_OPSET = 7  # all releases of ONNX Runtime run opset 7 and up (docs/Versioning.md there)

_ONNX_RUNTIME: dict[tuple[int, int], tuple[int, int]] = {  # release: (opset, IR)
    (1, 16): (19, 9),
    (1, 17): (20, 9),
    (1, 18): (21, 10),
    (1, 20): (21, 10),
    (1, 22): (22, 10),
    (1, 23): (23, 11),
    (1, 24): (25, 13),
    (1, 27): (26, 13),
}

_SINCE: dict[str, tuple[int, int]] = {"DeformConv": (1, 25)}
"""Operators without a kernel for the CPU before a release.

Measured as well: 1.16.3, 1.18.1, 1.20.1, 1.22.1, 1.23.2, 1.24.1, 1.25.0, 1.26.0, 1.27.0 and 1.30.0 were given
every model of one node of ONNX's own tests, said to be of opset 13 to 19. Of no other operator all models
failed for want of a kernel. onnxruntime-web 1.30.0 opens DeformConv in Node. Other providers' kernels are not
counted on: where a provider is missing, the CPU's run.
"""

_DOMAINS = frozenset({"ai.onnx", "ai.onnx.ml", "com.microsoft"})  # what every build of the runtime registers


def onnx_runtime(version: str, *, size: int | None = None) -> RuntimeLimits:
    """The limits of ONNX Runtime ``version`` (``1.30.0``). Raises ValueError for one older than the table."""
    release = tuple(int(part) for part in version.split(".")[:2])
    known = [listed for listed in _ONNX_RUNTIME if listed <= release]
    if not known:
        raise ValueError(f"ONNX Runtime {version} is older than {min(_ONNX_RUNTIME)}")
    opset, ir = _ONNX_RUNTIME[max(known)]
    unsupported = frozenset(operator for operator, since in _SINCE.items() if release < since)
    return RuntimeLimits(opset, ir, unsupported, size=size, why=f"ONNX Runtime {version}")


def numpy_beside(version: str) -> str:
    """pip's requirement of NumPy for a Python that runs ONNX Runtime ``version``.

    Wheels before 1.19 were built for NumPy 1, do not say so to pip, and can't be imported beside NumPy 2
    (https://github.com/microsoft/onnxruntime/releases/tag/v1.19.0).
    """
    release = tuple(int(part) for part in version.split(".")[:2])
    return "numpy<2" if release < (1, 19) else "numpy"


def check_limits(kind: str, model: OnnxInfo, limits: RuntimeLimits) -> None:
    """Raise UnsupportedModelError, naming the limit and the remedy, where ``model`` is outside ``limits``."""
    if not OLDEST_OPSET <= model.opset <= limits.opset:
        raise UnsupportedModelError(
            f"{kind} can't run opset {model.opset}.",
            why=f"{limits.why} runs opset {OLDEST_OPSET} to {limits.opset}.",
            remedy="Register the model again with 'convert: {opset: auto}': it takes what all targets run.",
        )
    if model.ir > limits.ir:
        raise UnsupportedModelError(
            f"{kind} can't load IR version {model.ir}.",
            why=f"{limits.why} loads IR versions up to {limits.ir}.",
            remedy="Register the model again with this target in deploy.yaml, or use a newer runtime.",
        )
    if bad := foreign_operators(model.operators, limits):
        raise UnsupportedModelError(
            f"{kind} can't run {', '.join(bad)}.",
            why=f"{limits.why} has no such operator.",
            remedy="Deploy to a kind that has it, or replace the layer before training ends.",
        )
    check_size(kind, "The model", model.size, limits)


def foreign_operators(operators: Sequence[str], limits: RuntimeLimits) -> list[str]:
    """Those that the runtime has not, sorted."""
    return sorted(name for name in set(operators) if name in limits.unsupported or _foreign(name))


def _foreign(operator: str) -> bool:
    domain, colons, _ = operator.partition("::")
    return bool(colons) and domain not in _DOMAINS


def check_size(kind: str, what: str, size: int, limits: RuntimeLimits) -> None:
    """Raise UnsupportedModelError where ``size`` bytes are over the limit; the message says what to do."""
    if limits.size is not None and size > limits.size:
        raise UnsupportedModelError(
            f"{what} is too large for {kind}: {format_size(size)} of {format_size(limits.size)}.",
            why="size_limit in deploy.yaml counts every file of the bundle.",
            remedy="Set the target's precision to int8 or fp16, use a smaller model, or raise size_limit.",
        )


Size = Annotated[
    int, PlainValidator(parse_size), WithJsonSchema({"type": ["string", "integer"], "examples": ["20MB"]})
]
"""Bytes; deploy.yaml may say ``20MB``, ``16MiB``."""

"""What a target kind is: the contract that the four built-in kinds and any plugin keep.

A kind is one module, one template folder and one line in the entry-point group ``shipway.targets``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Protocol, runtime_checkable

from pydantic import BaseModel, ConfigDict

from shipway.registry.nouns import Digest, File, Json, ModelVersion, TensorSpec, Tolerance, Variant
from shipway.targets.steps import Release, Step


class TargetOptions(BaseModel):
    """Options that every kind takes from ``deploy.yaml``; a kind adds its own by subclassing."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    precision: str = "fp32"


@dataclass(frozen=True, slots=True)
class RuntimeLimits:
    """What the runtime of a kind accepts. ``None`` means that there is no limit worth checking."""

    opset: int
    ir: int
    unsupported: frozenset[str] = frozenset()  # operators as in ModelVersion.operators
    size: int | None = None  # bytes of the whole bundle
    why: str = ""  # where the ceiling comes from, for messages


@dataclass(frozen=True, slots=True)
class OnnxInfo:
    """An ONNX graph as far as a runtime's limits care."""

    opset: int
    ir: int
    operators: tuple[str, ...]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    size: int


@dataclass(frozen=True, slots=True)
class VerifiedModel:
    """A version whose links all passed, in the one precision that a target asked for."""

    version: ModelVersion
    variant: Variant
    tolerance: Tolerance  # what the bundle's golden check must meet against Paddle

    @property
    def info(self) -> OnnxInfo:
        version = self.version
        return OnnxInfo(
            version.opset, version.ir, version.operators, version.inputs, version.outputs, self.variant.size
        )


@dataclass(frozen=True, slots=True)
class BundlePlan:
    """What a kind says about its bundle besides the files: see ``Manifest`` for each field."""

    graph: str
    check: tuple[str, ...]
    runtime: Mapping[str, Json] = field(default_factory=dict)


class BundleWriter(Protocol):
    """Where ``Target.build`` puts files. A path that escapes or is written twice is a ValueError."""

    def write(self, path: str, content: str | bytes, *, executable: bool = False) -> File:
        """Add a small file made in memory."""

    def add(self, path: str, source: Path) -> File:
        """Add a file from the local disk (a runtime fetched from npm, say)."""

    def take(self, path: str, file: File) -> File:
        """Add a file that the store already holds, without reading it: the model, golden files, assets."""

    def open(self, file: File) -> Path:
        """A local, read-only path of a file that the store holds, for a kind that must look inside."""

    def render(self, path: str, template: str, *, executable: bool = False, **values: Json) -> File:
        """Add ``template`` of the kind's folder, rendered with ``values``; user's templates come first."""


@runtime_checkable
class Target(Protocol):
    """One packager. Constructed with its parsed options; holds no other state.

    A kind from another package names the folder of its templates in a class attribute ``templates``, a Path.
    """

    kind: ClassVar[str]
    options: ClassVar[type[TargetOptions]]

    def __init__(self, options: TargetOptions) -> None: ...

    def limits(self) -> RuntimeLimits:
        """Highest opset and IR, operators and size that the runtime takes."""

    def check(self, model: OnnxInfo) -> None:
        """Raise UnsupportedModelError, naming the operator or the limit, where the runtime can't run it."""

    def fingerprint(self) -> Sequence[Digest]:
        """Digests of what shapes the bundle besides the model, the options and the templates."""

    def build(self, model: VerifiedModel, out: BundleWriter) -> BundlePlan:
        """Write the bundle's files. No other effect: no network unless the kind's docs say so, no clock."""

    def activation(self, release: Release) -> Sequence[Step]:
        """Steps on the destination between sealing and pointing (build engines, warm up); often none.

        They are left out where the destination is storage, which runs no programs.
        """

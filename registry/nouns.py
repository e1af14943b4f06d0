"""The things that shipway talks about, as frozen values. No I/O here.

JSON forms (``to_json``/``from_json``) are what the store keeps and what ``--json`` prints parts of;
their names are stable.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from shipway.registry.errors import UsageError

Json = Any

_MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_ALIAS = re.compile(r"[A-Za-z0-9_-]{1,255}")


@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """A content digest that keeps its algorithm: ``sha256:<64 hex digits>``."""

    hex: str
    algorithm: str = "sha256"

    @classmethod
    def parse(cls, text: str) -> Digest:
        """Read ``sha256:<hex>``; raises ValueError on anything else."""
        algorithm, _, value = text.partition(":")
        if algorithm != "sha256" or not re.fullmatch(r"[0-9a-f]{64}", value):
            raise ValueError(f"not a digest: {text!r}")
        return cls(value, algorithm)

    @classmethod
    def of(cls, data: bytes | bytearray) -> Digest:
        return cls(hashlib.sha256(data).hexdigest())

    @property
    def short(self) -> str:
        """The first twelve hex digits: enough for a person to tell two apart."""
        return self.hex[:12]

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"


def check_model_name(name: str) -> str:
    """Return ``name`` if it is fit for a registered model, or raise UsageError saying what is allowed."""
    if not _MODEL_NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} can't be the name of a model.",
            why="A name has 1 to 128 letters, digits, '.', '_' or '-', and starts with a letter or a digit.",
            remedy="Choose another --name, for example 'ocr-rec'.",
        )
    return name


@dataclass(frozen=True, slots=True)
class ModelRef:
    """``NAME/VERSION``, ``NAME@ALIAS`` or ``NAME`` alone, as MLflow writes them; ``models:/`` is optional."""

    name: str
    version: int | None = None
    alias: str | None = None

    @classmethod
    def parse(cls, text: str) -> ModelRef:
        """Read a reference; raises UsageError with the accepted forms."""
        body = text.removeprefix("models:/")
        name, slash, version = body.partition("/")
        if slash and re.fullmatch(r"[0-9]{1,1000}", version) and int(version) > 0:
            return cls(check_model_name(name), version=int(version))
        name, at, alias = body.partition("@")
        if at and _ALIAS.fullmatch(alias):
            return cls(check_model_name(name), alias=alias)
        if not slash and not at and _MODEL_NAME.fullmatch(body):
            return cls(body)
        raise UsageError(
            f"{text!r} is not a reference to a model version.",
            remedy="Write NAME/VERSION (ocr-rec/3) or NAME@ALIAS (ocr-rec@prod-server).",
        )

    def __str__(self) -> str:
        if self.version is not None:
            return f"{self.name}/{self.version}"
        return f"{self.name}@{self.alias}" if self.alias else self.name


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """A graph input or output. A dimension is a number, or a name where it is dynamic."""

    name: str
    dtype: str  # numpy's name: float32, int64, bool, ...
    shape: tuple[int | str, ...]

    def to_json(self) -> Json:
        return {"name": self.name, "dtype": self.dtype, "shape": list(self.shape)}

    @classmethod
    def from_json(cls, data: Mapping[str, Json]) -> TensorSpec:
        return cls(data["name"], data["dtype"], tuple(data["shape"]))


@dataclass(frozen=True, slots=True)
class Tolerance:
    """``max_abs <= atol + rtol * scale``, where scale is the largest magnitude of the reference output."""

    atol: float
    rtol: float

    def bound(self, scale: float) -> float:
        """The largest absolute error that passes."""
        return self.atol + self.rtol * scale

    def allows(self, max_abs: float, scale: float) -> bool:
        return max_abs <= self.bound(scale)

    def to_json(self) -> Json:
        return {"atol": self.atol, "rtol": self.rtol}


NARROW = ("fp16", "int8")
"""The targets of links whose numbers are further out by nature."""
ERROR_EDGES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Bounds of an ``OutputMeasure.histogram``, in units of the error that is allowed."""


@dataclass(frozen=True, slots=True)
class OutputMeasure:
    """How far one output of one link is from its reference, over all golden inputs.

    ``max_abs``: largest absolute error. ``max_rel``: max_abs over ``scale``. ``scale``: largest magnitude
    of the reference. ``cosine``: cosine similarity of all cases as one vector (1.0 where both are zero).
    ``top1``: share of rows whose arg-max agrees, where the output is a classifier's. ``flat``: the
    reference hardly varies, next to ``max_abs``, so that agreement proves little. ``histogram``: how many
    elements have no error at all, then how many up to each of ``ERROR_EDGES`` times what is allowed, and how
    many more than that.
    """

    name: str
    max_abs: float
    max_rel: float
    cosine: float
    scale: float
    top1: float | None = None
    flat: bool = False
    histogram: tuple[int, ...] = ()

    def to_json(self) -> Json:
        return {
            "name": self.name,
            "max_abs": self.max_abs,
            "max_rel": self.max_rel,
            "cosine": self.cosine,
            "scale": self.scale,
            "top1": self.top1,
            "flat": self.flat,
            "histogram": list(self.histogram),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Json]) -> OutputMeasure:
        return cls(**{**data, "histogram": tuple(data.get("histogram", ()))})


@dataclass(frozen=True, slots=True)
class Link:
    """One hop of the equivalence chain, measured: ``paddle`` to ``onnx``, ``onnx`` to ``int8``, ..."""

    source: str
    target: str
    passed: bool
    outputs: tuple[OutputMeasure, ...]
    tolerance: Tolerance
    notes: tuple[str, ...] = ()

    def tells(self, constant: Sequence[str] = ()) -> bool:
        """Whether it proves something: at least one of its outputs does, and of fp16 and int8 all of them
        but for those that are ``constant`` on the golden inputs. With an rtol of 1, by which zeros would
        pass, the user asked for no proof."""
        if self.tolerance.rtol >= 1:
            return True
        flat = {output.name for output in self.outputs if output.flat}
        mute = flat - set(constant) if self.target in NARROW else set()
        return len(flat) < len(self.outputs) and not mute

    def to_json(self) -> Json:
        return {
            "from": self.source,
            "to": self.target,
            "passed": self.passed,
            "outputs": [output.to_json() for output in self.outputs],
            "tolerance": self.tolerance.to_json(),
            "notes": list(self.notes),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Json]) -> Link:
        return cls(
            source=data["from"],
            target=data["to"],
            passed=data["passed"],
            outputs=tuple(OutputMeasure.from_json(output) for output in data["outputs"]),
            tolerance=Tolerance(**data["tolerance"]),
            notes=tuple(data.get("notes", ())),
        )


@dataclass(frozen=True, slots=True, order=True)
class File:
    """A file by what is in it: its relative POSIX path, its digest and its size in bytes."""

    path: str
    digest: Digest
    size: int

    def to_json(self) -> Json:
        return {"path": self.path, "sha256": self.digest.hex, "size": self.size}

    @classmethod
    def from_json(cls, data: Mapping[str, Json]) -> File:
        return cls(data["path"], Digest(data["sha256"]), data["size"])


@dataclass(frozen=True, slots=True)
class Variant:
    """A form of the model at one precision (``fp32`` is the canonical one), with the links that vouch for it.

    ``files`` hold the graph first, then its external data if any.
    """

    precision: str
    files: tuple[File, ...]
    links: tuple[Link, ...] = ()

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)

    def to_json(self) -> Json:
        return {
            "precision": self.precision,
            "files": [file.to_json() for file in self.files],
            "links": [link.to_json() for link in self.links],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Json]) -> Variant:
        return cls(
            precision=data["precision"],
            files=tuple(File.from_json(file) for file in data["files"]),
            links=tuple(Link.from_json(link) for link in data["links"]),
        )


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """A registered version: its identity, its interface, its files by digest and the proof of its numbers.

    ``digest`` names the canonical model by its graph and weights, whatever its tensors are called inside;
    ``source`` names what was given to register together with the options that shape the result.
    ``operators`` are ``Name`` of the default ONNX domain or ``domain::Name``. ``golden`` are the files of
    the golden slice (``golden/golden.json`` first), ``assets`` travel into every bundle as they are.
    """

    name: str
    version: int
    digest: Digest
    source: Digest
    toolchain: str
    opset: int
    ir: int
    operators: tuple[str, ...]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    links: tuple[Link, ...]
    variants: tuple[Variant, ...]
    golden: tuple[File, ...]
    assets: tuple[File, ...] = ()
    extra: Mapping[str, Json] = field(default_factory=dict)  # what was tried and repaired; seconds per phase

    @property
    def ref(self) -> ModelRef:
        return ModelRef(self.name, version=self.version)

    @property
    def passed(self) -> bool:
        return all(link.passed for link in self.links)

    @property
    def chain(self) -> tuple[Link, ...]:
        """Every link, each once: those to the canonical model, then those to its variants."""
        return tuple(dict.fromkeys([*self.links, *(link for v in self.variants for link in v.links)]))

    def variant(self, precision: str) -> Variant | None:
        return next((v for v in self.variants if v.precision == precision), None)

    def to_json(self) -> Json:
        return {
            "schema": 1,
            "name": self.name,
            "version": self.version,
            "digest": str(self.digest),
            "source": str(self.source),
            "toolchain": self.toolchain,
            "opset": self.opset,
            "ir": self.ir,
            "operators": list(self.operators),
            "inputs": [spec.to_json() for spec in self.inputs],
            "outputs": [spec.to_json() for spec in self.outputs],
            "links": [link.to_json() for link in self.links],
            "variants": [variant.to_json() for variant in self.variants],
            "golden": [file.to_json() for file in self.golden],
            "assets": [file.to_json() for file in self.assets],
            "extra": dict(self.extra),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Json]) -> ModelVersion:
        return cls(
            name=data["name"],
            version=data["version"],
            digest=Digest.parse(data["digest"]),
            source=Digest.parse(data["source"]),
            toolchain=data["toolchain"],
            opset=data["opset"],
            ir=data["ir"],
            operators=tuple(data["operators"]),
            inputs=tuple(TensorSpec.from_json(spec) for spec in data["inputs"]),
            outputs=tuple(TensorSpec.from_json(spec) for spec in data["outputs"]),
            links=tuple(Link.from_json(link) for link in data["links"]),
            variants=tuple(Variant.from_json(variant) for variant in data["variants"]),
            golden=tuple(File.from_json(file) for file in data["golden"]),
            assets=tuple(File.from_json(file) for file in data["assets"]),
            extra=data.get("extra", {}),
        )

"""A bundle by its manifest: ``bundle.json`` lists every file by digest and is itself named by its digest.

Rules: paths are relative POSIX paths without ``..``; the listing is sorted; nothing that changes from
machine to machine (time, host, user, random order) may enter, so that the same inputs give the same digest.
``bundle.json`` does not list itself.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import PurePosixPath

from shipway.registry.errors import IntegrityError
from shipway.registry.nouns import Digest, File, Json, TensorSpec, Tolerance

MANIFEST = "bundle.json"
PREFLIGHT = "preflight.py"
"""Where a bundle has a file of this name, hosts run it before anything is sent there. A program in Python
that comes on stdin and prints a line of JSON, with ``passed``, and ``problems`` in words."""
SCHEMA = 1


@dataclass(frozen=True)
class Manifest:
    """What a bundle holds and how to check it.

    ``check`` is the command, run in the bundle's folder, that compares the model with its golden slice and
    prints one JSON line. ``tolerance`` is what that check must meet against Paddle's outputs. ``runtime``
    names the runtime that the bundle is made for and the limits it was checked against. ``options`` are the
    target's own, as resolved from ``deploy.yaml``. ``executables`` get mode 755, all other files 644.
    """

    kind: str
    model: str
    version: int
    model_digest: Digest
    precision: str
    files: tuple[File, ...]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    opset: int
    ir: int
    tolerance: Tolerance
    check: tuple[str, ...]
    graph: str  # path of the ONNX (or ORT) graph in the bundle
    runtime: Mapping[str, Json] = field(default_factory=dict)
    options: Mapping[str, Json] = field(default_factory=dict)
    executables: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for file in self.files:
            check_path(file.path)
        names = [file.path for file in self.files]
        if names != sorted(set(names)):
            raise ValueError("a manifest lists each file once, sorted by path")

    @cached_property
    def digest(self) -> Digest:
        return Digest.of(self.to_bytes())

    @property
    def release_id(self) -> str:
        """The folder name of a release of this bundle: ``ocr-rec-2-3f9ac2d1e0b4``."""
        return f"{self.model}-{self.version}-{self.digest.short}"

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files) + len(self.to_bytes())

    def mode(self, path: str) -> int:
        """The permissions of a file of the bundle, wherever it is put."""
        return 0o755 if path in self.executables else 0o644

    def file(self, path: str) -> File | None:
        return next((file for file in self.files if file.path == path), None)

    def to_bytes(self) -> bytes:
        """The exact bytes of ``bundle.json``."""
        data = {
            "schema": SCHEMA,
            "kind": self.kind,
            "model": {"name": self.model, "version": self.version, "digest": str(self.model_digest)},
            "precision": self.precision,
            "inputs": [spec.to_json() for spec in self.inputs],
            "outputs": [spec.to_json() for spec in self.outputs],
            "opset": self.opset,
            "ir": self.ir,
            "graph": self.graph,
            "check": {"command": list(self.check), "tolerance": self.tolerance.to_json()},
            "runtime": dict(self.runtime),
            "options": dict(self.options),
            "executables": list(self.executables),
            "files": [file.to_json() for file in self.files],
        }
        return (json.dumps(data, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()

    @classmethod
    def from_bytes(cls, raw: bytes) -> Manifest:
        """Read ``bundle.json``; raises IntegrityError where it is not one that shipway wrote."""
        try:
            data = json.loads(raw)
            if data["schema"] != SCHEMA:
                raise ValueError(f"schema {data['schema']} is not {SCHEMA}")
            return cls(
                kind=data["kind"],
                model=data["model"]["name"],
                version=data["model"]["version"],
                model_digest=Digest.parse(data["model"]["digest"]),
                precision=data["precision"],
                files=tuple(File.from_json(file) for file in data["files"]),
                inputs=tuple(TensorSpec.from_json(spec) for spec in data["inputs"]),
                outputs=tuple(TensorSpec.from_json(spec) for spec in data["outputs"]),
                opset=data["opset"],
                ir=data["ir"],
                tolerance=Tolerance(**data["check"]["tolerance"]),
                check=tuple(data["check"]["command"]),
                graph=data["graph"],
                runtime=data["runtime"],
                options=data["options"],
                executables=tuple(data["executables"]),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise IntegrityError(
                f"{MANIFEST} is not a bundle's manifest.",
                why=str(error),
                remedy="Build the bundle again with 'shipway bundle', or promote it again.",
            ) from error


def check_path(path: str) -> str:
    """Return ``path`` if it is a plain relative POSIX path that stays inside the bundle; else ValueError."""
    parts = PurePosixPath(path).parts
    plain = path and "\\" not in path and all(character.isprintable() for character in path)
    if not plain or path.startswith("/") or ".." in parts or str(PurePosixPath(path)) != path:
        raise ValueError(f"{path!r} is no path inside a bundle")
    if path == MANIFEST:
        raise ValueError(f"{MANIFEST} does not list itself")
    return path


@dataclass(frozen=True, slots=True)
class ManifestDiff:
    """How what is there differs from what a manifest lists, by path."""

    missing: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()

    @property
    def whole(self) -> bool:
        """Whether every listed file is there and right; extra files do no harm."""
        return not self.missing and not self.changed

    def __str__(self) -> str:
        parts = {"missing": self.missing, "changed": self.changed, "extra": self.extra}
        return "; ".join(f"{word}: {', '.join(paths)}" for word, paths in parts.items() if paths) or "equal"


def compare(manifest: Manifest, found: Mapping[str, Digest]) -> ManifestDiff:
    """Hold the digests found at a place, by path and without ``bundle.json``, against the manifest."""
    wanted = {file.path: file.digest for file in manifest.files}
    return ManifestDiff(
        missing=tuple(sorted(set(wanted) - set(found))),
        changed=tuple(sorted(path for path in set(wanted) & set(found) if wanted[path] != found[path])),
        extra=tuple(sorted(set(found) - set(wanted))),
    )

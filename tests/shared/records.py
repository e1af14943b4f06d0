"""Records as shipway writes them, filled in wherever a test does not care."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from shipway.registry.nouns import (
    Digest,
    File,
    Link,
    ModelVersion,
    OutputMeasure,
    TensorSpec,
    Tolerance,
    Variant,
)
from shipway.registry.store.store import Store
from shipway.targets.manifest import Manifest
from shipway.targets.steps import Pointer, Release


def version(**given: Any) -> ModelVersion:
    """A version without files; what is ``given`` stands in for what is made up."""
    made_up: dict[str, Any] = {
        "name": "ocr",
        "version": 1,
        "digest": Digest.of(b"model"),
        "source": Digest.of(b"source"),
        "toolchain": "none",
        "opset": 17,
        "ir": 8,
        "operators": ("Conv",),
        "inputs": (TensorSpec("x", "float32", (1, 3)),),
        "outputs": (TensorSpec("y", "float32", (1, 3)),),
        "links": (),
        "variants": (),
        "golden": (),
    }
    return ModelVersion(**{**made_up, **given})


def manifest(files: Iterable[File] = (), **given: Any) -> Manifest:
    """A bundle's manifest that lists ``files``; what is ``given`` stands in for what is made up."""
    made_up: dict[str, Any] = {
        "kind": "jetson-ort",
        "model": "ocr",
        "version": 1,
        "model_digest": Digest.of(b"model"),
        "precision": "fp32",
        "inputs": (),
        "outputs": (),
        "opset": 17,
        "ir": 8,
        "tolerance": Tolerance(1e-5, 1e-5),
        "check": ("python3", "check.py"),
        "graph": "model/graph.onnx",
    }
    return Manifest(files=tuple(files), **{**made_up, **given})


def kept(store: Store, contents: Mapping[str, bytes]) -> tuple[File, ...]:
    """Files put into the store, as a manifest lists them."""
    return tuple(
        File(path, store.add_bytes(content), len(content)) for path, content in sorted(contents.items())
    )


def release_of(store: Store, contents: Mapping[str, bytes], version: int = 1, **given: Any) -> Release:
    """A release of these files; ``run.sh`` is a program."""
    programs = tuple(path for path in contents if path == "run.sh")
    return Release(manifest(kept(store, contents), version=version, executables=programs, **given))


def pointer_to(release: Release, serial: int = 1) -> Pointer:
    """What ``prod/one`` is, pointed at a release."""
    return Pointer("prod", "one", serial, "ocr", release.manifest.version, release.bundle, release.id)


def registered(store: Store, number: int) -> ModelVersion:
    """A version's record and files as ``register`` leaves them, without a model that anybody runs."""

    def put(path: str, content: bytes) -> File:
        return File(path, store.add_bytes(content), len(content))

    model = put("model.onnx", b"weights %d" % number * 100)
    tensor = {"name": "x", "dtype": "float32", "shape": [1], "file": "0-0.bin"}
    golden = json.dumps({"schema": 1, "cases": [{"inputs": [tensor], "outputs": []}]}).encode()
    measure = OutputMeasure("y", 1e-7, 1e-7, 1.0, 1.0)
    links = (Link("paddle", "onnx", True, (measure,), Tolerance(1e-5, 1e-5)),)
    made = version(
        version=number,
        digest=model.digest,
        source=Digest.of(b"source %d" % number),
        operators=("Relu",),
        inputs=(TensorSpec("x", "float32", (1,)),),
        outputs=(TensorSpec("y", "float32", (1,)),),
        links=links,
        variants=(Variant("fp32", (model,), links),),
        golden=(put("golden/golden.json", golden), put("golden/0-0.bin", b"\0\0\0\0")),
        assets=(put("assets/字典.txt", "一二三".encode()),),
    )
    store.put_version(made)
    return made

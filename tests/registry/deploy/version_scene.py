"""A version as the store keeps it, for tests that promote it."""

from __future__ import annotations

import records

from shipway.registry.config.project import Project
from shipway.registry.nouns import Digest, File, Link, ModelVersion, OutputMeasure, Tolerance, Variant


def register(project: Project, number: int, *, name: str = "ocr", passed: bool = True) -> ModelVersion:
    """A version's record and files as ``register`` leaves them in the store."""
    model, golden = f"{name} {number}".encode(), b'{"schema": 1, "cases": []}'
    graph = File("model.onnx", project.store.add_bytes(model), len(model))
    slice_ = File("golden/golden.json", project.store.add_bytes(golden), len(golden))
    error = 1e-6 if passed else 0.25
    measure = OutputMeasure("y", error, error / 0.5, 0.9, 0.5)
    link = Link("paddle", "onnx", passed, (measure,), Tolerance(1e-5, 1e-5))
    version = records.version(
        name=name,
        version=number,
        digest=Digest.of(model),
        source=Digest.of(model + b" source"),
        links=(link,),
        variants=(Variant("fp32", (graph,)),),
        golden=(slice_,),
    )
    project.store.put_version(version)
    return version

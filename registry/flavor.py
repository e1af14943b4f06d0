"""The files that make a folder with ``model.onnx`` a model of MLflow's flavor ``onnx``.

Written from what is known, because ``mlflow.onnx.save_model`` would import pandas, write the graph anew and
guess at the rest. The format: https://mlflow.org/docs/latest/ml/model/#storage-format; a test holds each key
against what MLflow writes itself.
"""

from __future__ import annotations

import json
import platform
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from shipway.registry.nouns import Json, ModelVersion, TensorSpec

EXAMPLE = "input_example.json"
_SERVED = "serving_input_example.json"


@dataclass(frozen=True, slots=True)
class LoggedModel:
    """MLflow's logged model that the files become: its run, its id, and the releases that make it."""

    run_id: str
    model_id: str
    mlflow: str  # its release
    onnx: str
    at: str  # UTC, as in 2026-01-31 12:00:00.123456


def write(folder: Path, draft: ModelVersion, logged: LoggedModel, example: Mapping[str, Any] | None) -> None:
    """Write MLmodel and its companions beside ``model.onnx``. ``example`` is one input by name, as arrays."""
    requirements = [f"mlflow=={logged.mlflow}", f"onnx>={logged.onnx}", "onnxruntime", "numpy"]
    python = platform.python_version()
    (folder / "requirements.txt").write_text("\n".join(requirements), encoding="utf-8")
    environment: Json = {"python": python, "build_dependencies": ["pip", "setuptools", "wheel"]}
    _yaml(folder / "python_env.yaml", {**environment, "dependencies": ["-r requirements.txt"]})
    packages: list[Json] = [f"python={python}", "pip", {"pip": requirements}]
    _yaml(
        folder / "conda.yaml",
        {"name": "mlflow-env", "channels": ["conda-forge"], "dependencies": packages},
    )
    if example is not None:
        _write_example(folder, example)
    _yaml(folder / "MLmodel", _description(draft, logged, python, size_of(folder), example is not None))


def size_of(folder: Path) -> int:
    """Bytes of all files below ``folder``."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _description(draft: ModelVersion, logged: LoggedModel, python: str, size: int, example: bool) -> Json:
    pyfunc = {
        "data": "model.onnx",
        "env": {"conda": "conda.yaml", "virtualenv": "python_env.yaml"},
        "loader_module": "mlflow.onnx",
        "python_version": python,
    }
    onnx = {
        "code": None,
        "data": "model.onnx",
        "onnx_session_options": None,
        "onnx_version": logged.onnx,
        "providers": ["CPUExecutionProvider"],
    }
    described: dict[str, Json] = {
        "flavors": {"onnx": onnx, "python_function": pyfunc},
        "is_signature_from_type_hint": False,
        "mlflow_version": logged.mlflow,
        "model_id": logged.model_id,
        "model_size_bytes": size,
        "model_uuid": uuid.uuid4().hex,
        "prompts": None,
        "run_id": logged.run_id,
        "signature": {"inputs": _schema(draft.inputs), "outputs": _schema(draft.outputs), "params": None},
        "type_hint_from_example": False,
        "utc_time_created": logged.at,
    }
    if example:
        shown = {"artifact_path": EXAMPLE, "serving_input_path": _SERVED, "type": "ndarray"}
        described["saved_input_example_info"] = shown
    return described


def _schema(specs: Sequence[TensorSpec]) -> str:
    """Tensors by name as MLflow's schema has them: JSON text, -1 for an axis that may vary."""
    return json.dumps(
        [
            {
                "name": spec.name,
                "type": "tensor",
                "tensor-spec": {
                    "dtype": spec.dtype,
                    "shape": [size if isinstance(size, int) else -1 for size in spec.shape],
                },
            }
            for spec in specs
        ]
    )


def _write_example(folder: Path, example: Mapping[str, Any]) -> None:
    values = json.dumps({name: array.tolist() for name, array in example.items()})
    (folder / EXAMPLE).write_text(values, encoding="utf-8")
    (folder / _SERVED).write_text(f'{{"inputs": {values}}}', encoding="utf-8")


def _yaml(path: Path, document: Json) -> None:
    path.write_text(yaml.safe_dump(document, allow_unicode=True), encoding="utf-8")

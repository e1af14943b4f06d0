"""``jetson-ort``: ONNX Runtime on a Jetson board, TensorRT first, with a preflight and a systemd unit."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

from pydantic import Field, field_validator

from shipway.targets.base import BundlePlan, BundleWriter, RuntimeLimits, TargetOptions, VerifiedModel
from shipway.targets.jetpack import JETPACKS, JetPack
from shipway.targets.limits import Size, onnx_runtime
from shipway.targets.manifest import PREFLIGHT
from shipway.targets.parts import (
    OnnxRuntimeKind,
    Provider,
    Threads,
    facts,
    place_engines,
    place_model,
    place_python_server,
    python_requirements,
    python_runtime,
    tensorrt_options,
)
from shipway.targets.profiles import Shapes, check_shapes, profile_options
from shipway.targets.render import label

_OVERHEAD = 3  # a session holds the graph, its optimised copy and the activations


class JetsonOptions(TargetOptions):
    """Options of ``jetson-ort``."""

    jetpack: str = Field("6.1", description=f"JetPack on the boards: {', '.join(JETPACKS)}")
    providers: tuple[Provider, ...] = Field(
        ("tensorrt", "cuda", "cpu"), min_length=1, description="what to run on, best first; all are wanted"
    )
    allow_missing: bool = Field(
        False, description="true: the model may run without those of 'providers' that the host has not"
    )
    shapes: Shapes = Field({})
    threads: Threads = Field(0, description="CPU threads of one run; 0: as many as there are cores")
    workspace: Size = Field(2**28, description="memory that TensorRT may use to build an engine")
    memory: Size = Field(2 * 2**30, description="memory that the service may use")
    python: str = Field(
        "/usr/bin/python3",
        pattern=r"^/[0-9A-Za-z._/+-]+$",
        description="Python on the board, for the service, the check, the engines and the preflight alike",
    )
    root: str = Field(
        "", pattern=r"^(/[ -~]*)?$", description="destination on the board, for the systemd unit"
    )
    host: str = Field(
        "127.0.0.1", pattern=r"^[0-9A-Za-z.:-]+$", description="address that the service listens on"
    )
    port: int = Field(8000, ge=1, le=65535, description="port that the service listens on")
    follow: int = Field(
        5, ge=1, le=3600, description="seconds after which the service notices another live release"
    )
    board: bool = Field(False, description="hosts that are no Jetson are refused before anything is sent")
    power_mode: str | None = Field(
        None, pattern=r"^\S+$", description="hosts in another power mode (nvpmodel -q) are refused, as MAXN"
    )

    @field_validator("jetpack")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in JETPACKS:
            raise ValueError(f"must be one of {', '.join(JETPACKS)} (in quotes)")
        return value


class JetsonOrt(OnnxRuntimeKind[JetsonOptions]):
    """See the module."""

    kind: ClassVar[str] = "jetson-ort"
    options: ClassVar[type[TargetOptions]] = JetsonOptions

    @property
    def _board(self) -> JetPack:
        return JETPACKS[self.chosen.jetpack]

    def limits(self) -> RuntimeLimits:
        return onnx_runtime(self._board.onnxruntime)

    def build(self, model: VerifiedModel, out: BundleWriter) -> BundlePlan:
        options, board = self.chosen, self._board
        check_shapes(options.shapes, model.version.inputs)
        graph = place_model(model, out)
        place_python_server(model, out, "onnxruntime-gpu", board.onnxruntime)
        values: dict[str, Any] = {
            **facts(model),
            "runtime_version": board.onnxruntime,
            "cpu": python_requirements("onnxruntime", board.onnxruntime),
            "board": {"jetpack": options.jetpack, **dataclasses.asdict(board)},
            "python": options.python,
            "engines": "tensorrt" in options.providers,
            "root": options.root or f"/opt/shipway/{label(model.version.name)}",
            "host": options.host,
            "port": options.port,
            "follow": options.follow,
            "memory": options.memory,
            "wanted": {
                "jetpack": options.jetpack,
                "l4t": list(board.l4t),
                "python": board.python,
                "runtime": board.onnxruntime,
                "wheels": board.wheels,
                "board": options.board,
                "power": options.power_mode,
                "memory": _OVERHEAD * model.variant.size + options.workspace,
                "disk": _OVERHEAD * model.variant.size,
            },
        }
        place_engines(out, options.providers)
        for name in (PREFLIGHT, "shipway.service", "README.md"):
            out.render(name, name, **values)
        tensorrt = tensorrt_options(model.variant.precision, options.workspace)
        runtime = python_runtime(
            self.limits(),
            board.onnxruntime,
            options.providers,
            allow_missing=options.allow_missing,
            threads=options.threads,
            provider_options={"tensorrt": {**tensorrt, **profile_options(options.shapes)}},
        )
        board_has = {"jetpack": options.jetpack, "python": options.python}
        return BundlePlan(graph, ("python3", "check.py"), {**runtime, **board_has})

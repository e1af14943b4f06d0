"""The child that holds Paddle: converts a model and runs it. The only module that imports paddle.

Requests: ``convert`` (model, params, opset, upgrade, verbose, out), ``translate`` (model, out: a
``.pdmodel`` into the form of Paddle 3), ``load`` (model, params) and ``run`` (model, params, cases: folders
of ``<index>.npz`` with the inputs by name, out: folder for the outputs, by position; watched: outputs are
inner values, of which none may be merged or folded away). Numbers are repeatable: one thread, plain kernels
(oneDNN off), no GPU.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from shipway.registry import privacy, process
from shipway.registry.convert.translate import translate
from shipway.registry.nouns import Json

_UNUSED = ("httpx", "paddle.utils.cpp_extension", "paddle.utils.cpp_extension.extension_utils")
"""What Paddle (of the one release that is taken) imports to download models and to compile operators.

It brings setuptools and rich along, an eighth of the import. Nothing here does either: empty modules will do.
"""


def _leave_out() -> None:
    for name in _UNUSED:
        sys.modules.setdefault(name, ModuleType(name))


def _prepare() -> Callable[[Json], Json]:
    privacy.no_telemetry()
    _leave_out()
    import paddle  # the slow part, over by the time that the first request comes
    import paddle2onnx

    predictors: dict[tuple[str, str], Any] = {}

    def predictor(request: Json) -> Any:
        key = (request["model"], request["params"])
        if request.get("watched"):  # never asked for again: not kept
            return _predictor(paddle, *key, watched=True)
        if key not in predictors:
            predictors[key] = _predictor(paddle, *key)
        return predictors[key]

    def answer(request: Json) -> Json:
        if request["do"] == "convert":
            return _convert(paddle2onnx, request)
        if request["do"] == "translate":
            translate(paddle, Path(request["model"]), Path(request["out"]))
            return None
        if request["do"] == "load":
            predictor(request)
            return None
        return _run(predictor(request), request)

    return answer


def _convert(paddle2onnx: Any, request: Json) -> Json:
    paddle2onnx.export(
        request["model"],
        request["params"],
        request["out"],
        opset_version=request["opset"],
        auto_upgrade_opset=request["upgrade"],
        # The default installs packages from the network while it runs; we optimise ourselves, and measure.
        optimize_tool="None",
        verbose=request.get("verbose", False),
    )
    return None


def _predictor(paddle: Any, model: str, params: str, *, watched: bool = False) -> Any:
    config = paddle.inference.Config(model, params)
    config.disable_gpu()
    config.disable_mkldnn()
    config.disable_glog_info()
    config.set_cpu_math_library_num_threads(1)
    if model.endswith(".pdmodel") and not watched:
        # Values that nobody reads any more give their memory to others: the numbers are the same to the bit
        # (96 models of the corpus), in half of the time where sizes are new. Not so for Paddle 3's form.
        config.enable_memory_optim()
    if watched:
        for merging in ("common_subexpression_elimination_pass", "constant_folding_pass"):
            config.delete_pass(merging)
    return paddle.inference.create_predictor(config)


def _run(predictor: Any, request: Json) -> Json:
    import numpy as np

    for index, case in enumerate(request["cases"]):
        with np.load(case) as inputs:
            for name in predictor.get_input_names():
                predictor.get_input_handle(name).copy_from_cpu(np.ascontiguousarray(inputs[name]))
        predictor.run()
        outputs = [predictor.get_output_handle(name).copy_to_cpu() for name in predictor.get_output_names()]
        # Else what a .pdmodel assigns in place (x[mask] = 0) is still there in the next run: other numbers.
        predictor.clear_intermediate_tensor()
        path = Path(request["out"]) / f"{index}.npz"
        np.savez(path, **{f"{position:04d}": output for position, output in enumerate(outputs)})
    return None


if __name__ == "__main__":
    process.serve(_prepare)

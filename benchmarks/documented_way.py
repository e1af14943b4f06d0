"""What the documentation of Paddle, paddle2onnx and MLflow tells a user to write: the baseline of register.

    python documented_way.py MODEL_FOLDER NAME

Import, export, compare one random input against Paddle Inference, log and register. Tracking goes to
``MLFLOW_TRACKING_URI``. The export asks for no optimiser: the default one installs packages while it runs.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import mlflow
import mlflow.onnx
import numpy as np
import onnx
import onnxruntime
import paddle.inference
import paddle2onnx


def main(folder: str, name: str) -> None:
    program = str(Path(folder) / "inference.pdmodel")
    parameters = str(Path(folder) / "inference.pdiparams")
    x = np.random.default_rng(0).random((1, 3, 48, 320), dtype=np.float32)

    config = paddle.inference.Config(program, parameters)
    predictor = paddle.inference.create_predictor(config)
    handle = predictor.get_input_handle(predictor.get_input_names()[0])
    handle.copy_from_cpu(x)
    predictor.run()
    expected = predictor.get_output_handle(predictor.get_output_names()[0]).copy_to_cpu()

    with tempfile.TemporaryDirectory() as work:
        exported = str(Path(work) / "model.onnx")
        paddle2onnx.export(program, parameters, exported, opset_version=17, optimize_tool="None")
        session = onnxruntime.InferenceSession(exported)
        (output,) = session.run(None, {session.get_inputs()[0].name: x})
        np.testing.assert_allclose(output, expected, rtol=1e-3, atol=1e-5)
        with mlflow.start_run():
            mlflow.onnx.log_model(
                onnx.load(exported),
                name="model",
                registered_model_name=name,
                signature=mlflow.models.infer_signature(x, output),
                input_example=x,
            )


if __name__ == "__main__":
    main(*sys.argv[1:])

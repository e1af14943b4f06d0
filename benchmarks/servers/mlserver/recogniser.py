"""PP-OCRv4 rec on MLServer, for ``serve.py --against mlserver=8080/json``, as it reads JSON alone.

In an environment of its own (0.4 GB):

    pip install mlserver onnxruntime
    BUNDLE=... mlserver start benchmarks/servers/mlserver
"""

from __future__ import annotations

import os
import sys

from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class Recogniser(MLModel):
    async def load(self) -> bool:
        sys.path.insert(0, os.environ["BUNDLE"])
        from runner import Model

        self.runner = Model()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        outputs = self.runner.run({one.name: NumpyCodec.decode_input(one) for one in payload.inputs})
        tensors = [NumpyCodec.encode_output(name, array) for name, array in outputs.items()]
        return InferenceResponse(model_name=self.name, outputs=tensors)

"""PP-OCRv4 rec on KServe's SDK, for ``serve.py --against kserve=PORT``.

In an environment of its own (0.5 GB):

    pip install kserve onnxruntime
    python benchmarks/servers/kserve_server.py BUNDLE PORT
"""

from __future__ import annotations

import sys
from typing import Any

from kserve import InferOutput, InferResponse, Model, ModelServer


class Recogniser(Model):
    def load(self) -> bool:
        from runner import Model as Runner

        self.runner = Runner()
        self.ready = True
        return True

    def predict(self, payload: Any, headers: Any = None, response_headers: Any = None) -> InferResponse:
        outputs = self.runner.run({tensor.name: tensor.as_numpy() for tensor in payload.inputs})
        tensors = []
        for name, array in outputs.items():
            tensor = InferOutput(name=name, shape=list(array.shape), datatype="FP32")
            tensor.set_data_from_numpy(array, binary_data=True)
            tensors.append(tensor)
        # Without the request's own wishes the SDK answers in JSON text, twelve times slower.
        return InferResponse(payload.id, self.name, tensors, requested_outputs=payload.request_outputs)


if __name__ == "__main__":
    bundle, port = sys.argv[1:]
    del sys.argv[1:]
    sys.path.insert(0, bundle)
    model = Recogniser("rec")
    model.load()
    ModelServer(http_port=int(port), enable_grpc=False).start([model])

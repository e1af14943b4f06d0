"""What the corpus' models give, by Paddle Inference of the Paddle that saved them.

    python tests/corpus/expected.py ROOT NAME...

Writes ``expected-<n>.npz`` beside each ``inputs-<n>.npz`` (outputs by position) and ``expected.json``, which
holds the error where Paddle itself can't run what it saved. One thread, oneDNN off: plain kernels.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import paddle.inference
from forked import attempt

_SECONDS = 120


def run(folder: Path) -> int:
    """Run the model in ``folder`` on each of its inputs; how many there were."""
    (model,) = (path for path in folder.glob("inference.*") if path.suffix in (".json", ".pdmodel"))
    given = sorted(folder.glob("inputs-*.npz"))
    for number, path in enumerate(given):
        # Anew for each: what Paddle 2.6 assigns in place is still there in a predictor's second run.
        predictor = _predictor(model)
        with np.load(path) as inputs:
            for name in predictor.get_input_names():
                predictor.get_input_handle(name).copy_from_cpu(np.ascontiguousarray(inputs[name]))
        predictor.run()
        outputs = [predictor.get_output_handle(name).copy_to_cpu() for name in predictor.get_output_names()]
        arrays = {f"{position:04d}": output for position, output in enumerate(outputs)}
        np.savez(folder / f"expected-{number}.npz", **arrays)
    return len(given)


def _predictor(model: Path) -> paddle.inference.Predictor:
    config = paddle.inference.Config(str(model), str(model.with_suffix(".pdiparams")))
    config.disable_gpu()
    config.disable_glog_info()
    config.disable_mkldnn()
    config.set_cpu_math_library_num_threads(1)
    return paddle.inference.create_predictor(config)


def main() -> None:
    root, *names = sys.argv[1:]
    for name in names:
        folder = (Path(root) / name).resolve()
        result = attempt(lambda folder=folder: run(folder), folder / "expected", _SECONDS)
        (folder / "expected.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main()

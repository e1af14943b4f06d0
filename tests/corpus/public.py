"""Convert models of the corpus with paddle2onnx as a user does, by its own command line.

    python tests/corpus/public.py ROOT LABEL NAME... [--opset N]

Run by the Python of the environment that is tried. Each model is converted in a child of its own with a time
limit, to ``ROOT/NAME/LABEL/model.onnx``, with ``result.json`` beside it. Without ``--opset`` nothing is set
that the documentation does not set, but for one thing: the tool that optimises the result is off, because
with it paddle2onnx 2 installs packages from the network while it converts.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import paddle2onnx
import paddle2onnx.command
from forked import attempt

_SECONDS = 120


def arguments(folder: Path, out: Path, opset: int | None) -> list[str]:
    """The command line for the model in ``folder``."""
    (model,) = (path for path in folder.glob("inference.*") if path.suffix in (".json", ".pdmodel"))
    words = ["--model_dir", str(folder), "--model_filename", model.name]
    words += ["--params_filename", "inference.pdiparams", "--save_file", str(out)]
    if not paddle2onnx.__version__.startswith("1."):
        words += ["--optimize_tool", "None"]
    return [*words, "--opset_version", str(opset)] if opset else words


def convert(folder: Path, out: Path, opset: int | None) -> str:
    """Convert in this process; the command line that was given."""
    words = arguments(folder, out, opset)
    sys.argv = ["paddle2onnx", *words]
    paddle2onnx.command.main()
    return " ".join(words)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("root", type=Path)
    parser.add_argument("label")
    parser.add_argument("names", nargs="+")
    parser.add_argument("--opset", type=int)
    asked = parser.parse_args()
    for name in asked.names:
        folder = (asked.root / name).resolve()
        out = folder / asked.label
        model = out / "model.onnx"
        model.unlink(missing_ok=True)
        result = attempt(lambda f=folder, m=model: convert(f, m, asked.opset), out, _SECONDS)
        (out / "result.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main()

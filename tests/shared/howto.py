"""The how-to pages as tests read them: their fenced blocks, and shell scripts that must end well."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import onnx
from onnx import TensorProto, helper, numpy_helper

ROOT = Path(__file__).resolve().parents[2]
HOW_TO = ROOT / "docs" / "how-to"


def blocks(page: str) -> list[tuple[str, str]]:
    """Each fenced block of a page: what follows the opening fence, and the text."""
    return re.findall(r"^```(.*)\n((?:.*\n)*?)```$", (HOW_TO / page).read_text(), re.MULTILINE)


def file_named(page: str, name: str) -> str:
    """The block that begins with ``# name``."""
    (found,) = [text for _, text in blocks(page) if text.startswith(f"# {name}\n")]
    return found


def run(script: str, folder: Path, **more: str) -> str:
    """What a shell script says on stdout; it must end well, each of its lines too."""
    bin = str(Path(sys.executable).parent)
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env={**os.environ, "PATH": f"{bin}:{os.environ['PATH']}", **more},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def write_models(folder: Path) -> None:
    """``model.onnx``, ``better.onnx`` and ``models/ocr-rec/model.onnx``: small, and each another one."""
    (folder / "models/ocr-rec").mkdir(parents=True)
    for number, name in enumerate(("model.onnx", "better.onnx", "models/ocr-rec/model.onnx")):
        scale = numpy_helper.from_array(onnx.numpy_helper.np.float32([number + 1]), "scale")
        graph = helper.make_graph(
            [helper.make_node("Mul", ["x", "scale"], ["y"])],
            "net",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4])],
            [scale],
        )
        opset = [helper.make_opsetid("", 17)]
        onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), folder / name)

"""What each JetPack brings to a board, and the ONNX Runtime that there is for it.

JetPack releases: https://developer.nvidia.com/embedded/jetpack-archive. GPU wheels for boards are not on PyPI
(https://github.com/microsoft/onnxruntime/issues/20503): for JetPack 5 they are in the Jetson Zoo
(https://elinux.org/Jetson_Zoo#ONNX_Runtime), from 6 on in NVIDIA's Jetson AI Lab index.
"""

from __future__ import annotations

from dataclasses import dataclass

ZOO = "https://elinux.org/Jetson_Zoo#ONNX_Runtime"
LAB = "https://pypi.jetson-ai-lab.io"


@dataclass(frozen=True, slots=True)
class JetPack:
    """One release: Jetson Linux (``l4t``), Python, CUDA, TensorRT, ONNX Runtime and where its wheel is."""

    l4t: str
    python: str
    cuda: str
    tensorrt: str
    onnxruntime: str
    wheels: str


JETPACKS: dict[str, JetPack] = {
    "5.1": JetPack("35.4", "3.8", "11.4", "8.5", "1.18.0", ZOO),
    "6.0": JetPack("36.3", "3.10", "12.2", "8.6", "1.18.0", ZOO),
    "6.1": JetPack("36.4", "3.10", "12.6", "10.3", "1.20.0", f"{LAB}/jp6/cu126"),
    "6.2": JetPack("36.4", "3.10", "12.6", "10.3", "1.20.0", f"{LAB}/jp6/cu126"),
    "7.0": JetPack("38.2", "3.12", "13.0", "10.13", "1.23.0", f"{LAB}/sbsa/cu130"),
}

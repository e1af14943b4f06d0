"""What each JetPack brings to a board, and the ONNX Runtime that there is for it.

JetPack releases: https://developer.nvidia.com/embedded/jetpack-archive. Point releases bring new releases of
Jetson Linux, with the same CUDA and TensorRT: 5.1 to 5.1.5 have 35.2 to 35.6, 6.1 has 36.4.0, 6.2 36.4.3,
6.2.1 36.4.4, 6.2.2 36.5, 7.0 38.2, 7.1 38.4. GPU wheels for boards are not on PyPI
(https://github.com/microsoft/onnxruntime/issues/20503): for JetPack 5 they are in the Jetson Zoo
(https://elinux.org/Jetson_Zoo#ONNX_Runtime), from 6 on in NVIDIA's Jetson AI Lab index.
"""

from __future__ import annotations

from dataclasses import dataclass

ZOO = "https://elinux.org/Jetson_Zoo#ONNX_Runtime"
LAB = "https://pypi.jetson-ai-lab.io"


@dataclass(frozen=True, slots=True)
class JetPack:
    """One release: Python, CUDA, TensorRT, ONNX Runtime and where its wheel is.

    ``l4t``: the releases of Jetson Linux (major and minor) that have this CUDA and this TensorRT.
    """

    l4t: tuple[str, ...]
    python: str
    cuda: str
    tensorrt: str
    onnxruntime: str
    wheels: str


_5_1 = ("35.2", "35.3", "35.4", "35.5", "35.6")
_6_1 = ("36.4", "36.5")

JETPACKS: dict[str, JetPack] = {
    "5.1": JetPack(_5_1, "3.8", "11.4", "8.5", "1.18.0", ZOO),
    "6.0": JetPack(("36.3",), "3.10", "12.2", "8.6", "1.18.0", ZOO),
    "6.1": JetPack(_6_1, "3.10", "12.6", "10.3", "1.20.0", f"{LAB}/jp6/cu126"),
    "6.2": JetPack(_6_1, "3.10", "12.6", "10.3", "1.20.0", f"{LAB}/jp6/cu126"),
    "7.0": JetPack(("38.2", "38.4"), "3.12", "13.0", "10.13", "1.23.0", f"{LAB}/sbsa/cu130"),
}

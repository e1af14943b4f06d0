"""Converters as named, pinned sets of packages.

Newer is not better here: most pairs of paddlepaddle and paddle2onnx convert little, and several say that they
saved a model which then does not load (docs/explanation/toolchains.md). So a toolchain is data: which
packages in which versions, which formats it reads, which opsets it writes.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata

from shipway.registry.errors import ConversionError, UsageError
from shipway.targets.base import RuntimeLimits


@dataclass(frozen=True, slots=True)
class Toolchain:
    """``packages`` must be there in exactly these versions; ``python`` is the first one without wheels.

    ``worker`` is the module of a child that also runs the model (``paddle_worker``). A toolchain without one
    converts only, in an environment of its own (``environment``).
    """

    name: str
    worker: str
    formats: frozenset[str]
    packages: Mapping[str, str]
    opsets: range
    python: tuple[int, int]


PAIR = Toolchain(
    name="paddle-3.2.2+paddle2onnx-2.0.1",
    worker="shipway.registry.convert.paddle_worker",
    formats=frozenset({"pdmodel", "pir"}),
    packages={"paddlepaddle": "3.2.2", "paddle2onnx": "2.0.1"},
    opsets=range(7, 22),
    python=(3, 13),
)
"""The best pair there is; its Paddle also says what is right, whichever toolchain converts."""

ALONE = Toolchain(
    name="paddle2onnx-1.2.4",
    worker="",
    formats=frozenset({"pdmodel"}),
    packages={"paddle2onnx": "1.2.4"},
    opsets=range(7, 20),
    python=(3, 13),
)

TOOLCHAINS = (PAIR, ALONE)

ONNX_AS_IS = "onnx"  # what a version says that was ONNX when it came
DEFAULT_OPSET = (
    17  # where no target is configured: LayerNormalization is in, and every runtime since 2022 has it
)


def choose(format: str, forced: str | None = None) -> tuple[Toolchain, ...]:
    """The toolchains that read ``format``, in the order to try. Raises UsageError on a wrong ``forced``."""
    if forced is not None:
        named = [toolchain for toolchain in TOOLCHAINS if toolchain.name == forced]
        if not named:
            raise UsageError(
                f"There is no toolchain {forced!r}.",
                why=f"There is: {', '.join(toolchain.name for toolchain in TOOLCHAINS)}.",
                remedy="Name one of them, or leave --toolchain away.",
            )
        if format not in named[0].formats:
            raise UsageError(
                f"Toolchain {forced} does not read this format ({format}).",
                remedy="Leave --toolchain away: shipway picks one by the model's format.",
            )
        return tuple(named)
    return tuple(toolchain for toolchain in TOOLCHAINS if format in toolchain.formats)


def installed(toolchain: Toolchain, python: tuple[int, int] = sys.version_info[:2]) -> None:
    """Return if the toolchain is ready to run here; else raise ConversionError with what to install."""
    wrong = []
    for package, wanted in toolchain.packages.items():
        found = _installed_version(package)
        if found is None:
            wrong.append(f"{package} {wanted} is not installed")
        elif found != wanted:
            wrong.append(f"{package} is {found}, not {wanted}")
    if not wrong:
        return
    if python >= toolchain.python:
        newest = f"{toolchain.python[0]}.{toolchain.python[1] - 1}"
        raise ConversionError(
            f"Paddle models can't be converted on Python {python[0]}.{python[1]}.",
            why=f"paddlepaddle {toolchain.packages['paddlepaddle']} has no wheels for it; all else works.",
            remedy=f"Register with Python {newest} or older and promote from here, or give an .onnx file.",
        )
    raise ConversionError(
        f"The toolchain {toolchain.name} is not ready here.",
        why="; ".join(wrong) + ".",
        remedy="Install the pinned pair: pip install 'shipway[paddle]'. 'shipway doctor' checks it.",
    )


def _installed_version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def choose_opset(asked: int | str, limits: Mapping[str, RuntimeLimits], offered: range | None = None) -> int:
    """The opset to convert to: as asked, or for ``auto`` the highest that all targets and the toolchain take.

    ``limits`` by target name. Raises ConversionError where an explicit opset is above a target's ceiling or
    nothing fits.
    """
    ceiling = min((limit.opset for limit in limits.values()), default=None)
    if asked == "auto":
        best = DEFAULT_OPSET if ceiling is None else ceiling
        return min(best, offered[-1]) if offered else best
    opset = int(asked)
    for name, limit in limits.items():
        if opset > limit.opset:
            raise ConversionError(
                f"Opset {opset} is more than target {name!r} runs ({limit.opset}).",
                why=limit.why,
                remedy="Lower convert.opset in deploy.yaml, or set it to auto.",
            )
    if offered and opset not in offered:
        raise ConversionError(
            f"No toolchain writes opset {opset}.",
            why=f"They write {offered[0]} to {offered[-1]}.",
            remedy="Set convert.opset in deploy.yaml to one of these, or to auto.",
        )
    return opset


def names(toolchains: Sequence[Toolchain] = TOOLCHAINS) -> list[str]:
    """The toolchains' names, for messages and for completion."""
    return [toolchain.name for toolchain in toolchains]

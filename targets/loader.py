"""Finds target kinds by their entry points (group ``shipway.targets``). Imports only what is asked for.

The four that are built in are known without asking: reading entry points takes a tenth of a short command.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING

from shipway.registry.errors import ConfigError
from shipway.targets.base import Target

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP = "shipway.targets"
BUILT_IN: Mapping[str, tuple[str, str]] = {
    "server-tensorrt": ("shipway.targets.server_tensorrt", "ServerTensorRT"),
    "jetson-ort": ("shipway.targets.jetson_ort", "JetsonOrt"),
    "mobile-ort": ("shipway.targets.mobile_ort", "MobileOrt"),
    "browser-wasm": ("shipway.targets.browser_wasm", "BrowserWasm"),
}
"""Module and class of each kind that comes with shipway, as in pyproject.toml."""


@cache
def _found() -> dict[str, EntryPoint]:
    from importlib.metadata import entry_points  # brings much with it

    return {entry.name: entry for entry in entry_points(group=GROUP)}


def kinds() -> tuple[str, ...]:
    """Names of all kinds that are installed, sorted."""
    return tuple(sorted(_found()))


def load_kind(kind: str) -> type[Target]:
    """The class of ``kind``. Raises ConfigError where there is none, or where it can't be imported."""
    if kind in BUILT_IN:
        module, name = BUILT_IN[kind]
        return getattr(importlib.import_module(module), name)  # type: ignore[no-any-return]
    entry = _found().get(kind)
    if entry is None:
        raise ConfigError(
            f"There is no target kind {kind!r}.",
            why=f"Installed kinds: {', '.join(kinds()) or 'none'}.",
            remedy="Correct 'kind', or install the package that brings it.",
        )
    try:
        found = entry.load()
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"The target kind {kind} can't be loaded from {entry.value}.",
            why=str(error),
            remedy="Install or mend the package that brings it.",
        ) from error
    if getattr(found, "kind", None) != kind:
        raise ConfigError(
            f"{entry.value} calls itself {getattr(found, 'kind', None)!r}, not {kind!r}.",
            remedy="Give the entry point the name that the class has as 'kind'.",
        )
    return found  # type: ignore[no-any-return]

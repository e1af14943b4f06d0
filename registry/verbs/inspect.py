"""``shipway inspect``: the graph in Netron (https://netron.app), which runs here and sends nothing."""

from __future__ import annotations

import importlib
import importlib.util
import shutil
import tempfile
from pathlib import Path
from typing import Any

from shipway.registry.config.project import Project
from shipway.registry.errors import NotFoundError, UsageError
from shipway.registry.nouns import ModelRef, Variant
from shipway.registry.store.store import Store
from shipway.registry.verbs.resolve import resolve


def inspect(project: Project, ref: ModelRef, precision: str = "fp32") -> None:
    """Serve the graph of a version in the browser until Ctrl-C. Raises UsageError where Netron is missing."""
    if importlib.util.find_spec("netron") is None:
        raise UsageError(
            "Netron is not installed.",
            why="It draws the graph; nothing else needs it.",
            remedy="pip install netron",
        )
    version = resolve(project, ref)
    with tempfile.TemporaryDirectory(prefix="shipway-") as folder:
        graph = lay_out(project.store, version.ref, version.variant(precision), Path(folder))
        netron: Any = importlib.import_module("netron")
        netron.start(str(graph), browse=True)
        netron.wait()


def lay_out(store: Store, ref: ModelRef, variant: Variant | None, folder: Path) -> Path:
    """Copy a variant's files out of the store under their own names; return the graph's path."""
    if variant is None:
        raise NotFoundError(
            f"{ref} has no such precision.", remedy=f"'shipway show {ref}' lists what it has."
        )
    for file in variant.files:
        target = folder / file.path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(store.open(file), target)
    return folder / variant.files[0].path

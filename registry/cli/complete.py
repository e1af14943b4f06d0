"""What the shell offers after TAB. A project that can't be read offers nothing, and says nothing."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from shipway.registry.errors import ShipwayError

if TYPE_CHECKING:
    from shipway.registry.config.project import Project


def _project(context: typer.Context) -> Project:
    from shipway.registry.config.load import load

    return load(Path(context.find_root().params.get("config") or "deploy.yaml"), lazy=True)


def environments(context: typer.Context, incomplete: str) -> list[str]:
    with suppress(ShipwayError):
        return [name for name in _project(context).config.environments if name.startswith(incomplete)]
    return []


def targets(context: typer.Context, incomplete: str) -> list[str]:
    with suppress(ShipwayError):
        return [name for name in _project(context).config.targets if name.startswith(incomplete)]
    return []


def models(context: typer.Context, incomplete: str) -> list[str]:
    with suppress(ShipwayError):
        return [name for name in _project(context).store.names() if name.startswith(incomplete)]
    return []


def references(context: typer.Context, incomplete: str) -> list[str]:
    """Versions of which the store has a record, newest first."""
    with suppress(ShipwayError):
        store = _project(context).store
        found = [str(version.ref) for name in store.names() for version in reversed(store.versions(name))]
        return [ref for ref in found if ref.startswith(incomplete)]
    return []


def toolchains(incomplete: str) -> list[str]:
    from shipway.registry.convert.toolchains import names

    return [name for name in names() if name.startswith(incomplete)]

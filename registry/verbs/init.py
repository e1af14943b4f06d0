"""``shipway init``: a commented deploy.yaml to start from."""

from __future__ import annotations

import re
from pathlib import Path

from shipway.registry import files
from shipway.registry.errors import ConfigError, UsageError

NAME = "deploy.yaml"
_STARTER = Path(__file__).parent.parent / "config" / "starter.yaml"


def init(folder: Path) -> Path:
    """Write ``deploy.yaml`` into ``folder``, made if need be, and return its path.

    The project is called after the folder. Raises UsageError where the file is there already (it is never
    overwritten), ConfigError where it can't be written.
    """
    path = folder / NAME
    text = _STARTER.read_text(encoding="utf-8").replace("project: my-project", f"project: {_project(folder)}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        created = files.create_exclusive(path, text.encode())
    except OSError as error:
        raise ConfigError(
            f"{path} can't be written.",
            why=error.strerror or str(error),
            remedy="Name a folder that you may write to: 'shipway init DIR'.",
        ) from error
    if not created:
        raise UsageError(
            f"{path} is there already; nothing was changed.",
            remedy="Edit it, or name another folder: 'shipway init DIR'.",
        )
    return path


def _project(folder: Path) -> str:
    """The folder's name as far as it can name a project."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", folder.resolve().name).strip("-._")
    return name[:63] or "my-project"

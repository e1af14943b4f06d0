"""What a registration leaves: in the project's folder, and in MLflow's tables."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from shipway.registry import files
from shipway.registry.config.project import Project
from shipway.registry.nouns import Digest


def inventory(root: Path) -> dict[str, Digest]:
    """Every file below ``root``, but for the database, whose rows are compared by ``rows``."""
    return {
        path.relative_to(root).as_posix(): files.digest_of(path)
        for path in sorted(root.rglob("*"))
        if path.is_file() and not path.name.startswith("mlflow.db")
    }


def rows(project: Project, table: str = "model_versions") -> int:
    with sqlite3.connect(project.registry_uri.removeprefix("sqlite:///")) as database:
        found = database.execute(f"select count(*) from {table}").fetchone()[0]
    database.close()
    return int(found)

"""``shipway ship``: register a trained model, then promote what came out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from shipway.registry.config.project import Project
from shipway.registry.deploy.site import Outcome
from shipway.registry.observe import SILENT, Confirm, Observer
from shipway.registry.verbs.promote import promote, refuse_unasked
from shipway.registry.verbs.register import Registered, register


def ship(
    project: Project,
    path: Path,
    name: str,
    environment: str,
    *,
    targets: Sequence[str] = (),
    reason: str = "",
    inputs: Sequence[str] = (),
    samples: Path | None = None,
    assets: Sequence[Path] = (),
    toolchain: str | None = None,
    bisect: bool = False,
    observer: Observer = SILENT,
    confirm: Confirm | None = None,
) -> tuple[Registered, Outcome]:
    """What ``register`` and ``promote`` give, and raise, one after the other."""
    refuse_unasked(project, environment, targets, confirm)  # told before minutes of conversion
    registered = register(
        project,
        path,
        name,
        inputs=inputs,
        samples=samples,
        assets=assets,
        toolchain=toolchain,
        bisect=bisect,
        observer=observer,
    )
    ref = registered.version.ref
    outcome = promote(
        project, ref, environment, targets=targets, reason=reason, observer=observer, confirm=confirm
    )
    return registered, outcome

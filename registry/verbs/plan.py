"""What a promotion would do."""

from __future__ import annotations

from collections.abc import Sequence

from shipway.registry.config.project import Project
from shipway.registry.deploy.site import Outcome
from shipway.registry.nouns import ModelRef
from shipway.registry.observe import SILENT, Observer
from shipway.registry.verbs.promote import promote


def plan(
    project: Project,
    ref: ModelRef,
    environment: str,
    *,
    targets: Sequence[str] = (),
    observer: Observer = SILENT,
) -> Outcome:
    """The plan of ``promote`` and the version, without touching a destination or the ledger.

    Bundles are built (into the store), because only that shows their size and whether the targets can run
    them. Raises what ``promote`` raises before it starts.
    """
    return promote(project, ref, environment, targets=targets, dry_run=True, observer=observer)

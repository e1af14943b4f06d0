"""A person's yes before a promotion (``approve: true`` of an environment).

Asked once everything is decided, before hooks run and anything is claimed; whoever says no has changed
nothing. A rollback never asks: at three in the morning nothing may stand between a person and the way back.
The ledger's ``actor`` is who said yes, at the terminal or by ``--yes``.
"""

from __future__ import annotations

from shipway.registry.config.project import Project
from shipway.registry.deploy.plan import Move, Plan
from shipway.registry.errors import UsageError
from shipway.registry.observe import Confirm
from shipway.registry.units import format_size


def ask(project: Project, plan: Plan, confirm: Confirm | None) -> None:
    """Raises UsageError where the plan needs a yes and gets none."""
    if plan.kind != "promote" or not plan.changes or not project.environment(plan.environment).approve:
        return
    if confirm is None:
        raise unasked(plan.environment)
    if not confirm(question(plan)):
        raise UsageError(
            f"Nothing was changed: the promotion to {plan.environment} was not approved.",
            remedy="Run the command again once it is.",
        )


def unasked(environment: str) -> UsageError:
    """Nobody is there to be asked."""
    return UsageError(
        f"A promotion to {environment} needs to be approved, and nobody is there to be asked.",
        why=f"'approve: true' of {environment} in deploy.yaml, and this is no terminal.",
        remedy="Say --yes to approve it beforehand, or run it on a terminal.",
    )


def question(plan: Plan) -> str:
    """What goes live where, and in place of what."""
    lines = [f"To be made live in {plan.environment}:", *map(_line, plan.changes)]
    return "\n".join([*lines, "Approve?"])


def _line(move: Move) -> str:
    manifest, before = move.release.manifest, move.before
    now = f"in place of {before.model}/{before.version}" if before else "where nothing is live"
    hosts = sum(map(len, move.waves))
    where = f"{hosts} hosts at {move.to}" if move.fleet else move.to
    size = f"{format_size(move.send)} to send"
    return f"  {move.target}: {manifest.model}/{manifest.version} {now}, {where}, {size}"

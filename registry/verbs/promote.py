"""Make a version live."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from shipway.registry.config.project import Project
from shipway.registry.deploy import approval
from shipway.registry.deploy.site import Goal, Outcome, Site
from shipway.registry.deploy.waves import waves
from shipway.registry.errors import UsageError, VerificationError
from shipway.registry.nouns import Link, ModelRef, ModelVersion, Tolerance
from shipway.registry.observe import SILENT, Confirm, Observer
from shipway.registry.verbs.resolve import resolve
from shipway.registry.verbs.trial import refuse_untried


def promote(
    project: Project,
    ref: ModelRef,
    environment: str,
    *,
    targets: Sequence[str] = (),
    reason: str = "",
    accept: str | None = None,
    dry_run: bool = False,
    observer: Observer = SILENT,
    confirm: Confirm | None = None,
) -> Outcome:
    """Make a version live on the targets of an environment: those named, or all.

    ``accept`` is the reason for going past numbers or gates that do not pass; the ledger keeps it. Either
    every target ends with the version live, or every one with what was live before; of a fleet's hosts as
    many may fail as ``deploy.yaml`` says. ``confirm`` is asked for an approval and between waves, where it
    says so. Raises UsageError, NotFoundError, VerificationError, ConversionError (a target can't run it),
    ConflictError, DeliveryError.
    """
    from shipway.registry.verbs.bundle import build_bundles

    refuse_blank(accept)
    if not dry_run:
        refuse_unasked(project, environment, targets, confirm)
    site = Site(project, environment, targets)
    version = resolve(project, ref)
    refuse_wrong_numbers(project, version, site.targets, accept)
    refuse_untried(project, version, site, accept)
    bundles = build_bundles(project, version, site.targets, observer)
    goals = {target: Goal(bundle) for target, bundle in bundles.items()}
    if not dry_run:
        site.recover(observer)
    refuse_other_model(site, version, named=bool(targets))
    plan = site.plan("promote", goals, reason=reason, accept=accept, observer=observer)
    deployments = () if dry_run else site.carry_out(plan, observer=observer, confirm=confirm)
    return Outcome(plan, deployments, version)


def refuse_unasked(
    project: Project, environment: str, targets: Sequence[str], confirm: Confirm | None
) -> None:
    """Raise UsageError where a person must be asked and nobody can be; or for unknown names."""
    if confirm is None and project.environment(environment).approve:
        raise approval.unasked(environment)
    for target, placement in project.placements(environment, targets).items():
        if confirm is None and placement.confirm and len(waves(placement.hosts, placement.waves)) > 1:
            raise UsageError(
                f"Between the waves of {environment}/{target} somebody has to be asked, and nobody is there.",
                why="'confirm: true' in deploy.yaml, and this is no terminal.",
                remedy="Say --yes to answer beforehand, or run it on a terminal.",
            )


def refuse_blank(accept: str | None) -> None:
    """Raise UsageError where ``accept`` gives no reason: all that the ledger keeps of a gate passed by."""
    if accept is not None and not accept.strip():
        raise UsageError(
            "--accept needs a reason, and this one is blank.",
            why="The ledger keeps it beside a release whose numbers or gates did not pass.",
            remedy='Say why: --accept "the camera is broken anyway". Or leave --accept out.',
        )


def refuse_wrong_numbers(
    project: Project, version: ModelVersion, targets: Sequence[str], accept: str | None
) -> None:
    """Raise VerificationError where a link that these targets rely on did not pass and nobody accepts it.

    It must pass by what ``deploy.yaml`` allows today, too: that is what the bundle's own check goes by.
    """
    allowed = project.config.conversion(version.name).allowed
    links = [(link, allowed("fp32")) for link in version.links]
    for precision in sorted({project.config.targets[target].precision for target in targets}):
        variant = version.variant(precision)
        links += [(link, allowed(precision)) for link in (variant.links if variant else ())]
    wrong = [told for link, today in links if (told := _wrong(link, today))]
    if wrong and accept is None:
        raise VerificationError(
            f"The numbers of {version.ref} are wrong.",
            why="\n".join(wrong),
            remedy='Register a model that passes. Past this leads only --accept "reason", which is kept.',
        )


def refuse_other_model(site: Site, version: ModelVersion, *, named: bool) -> None:
    """Raise UsageError where a target that nobody named serves another model."""
    if named:
        return
    others = {target: live.model for target in site.targets if (live := site.live(target))}
    others = {target: model for target, model in others.items() if model != version.name}
    if others:
        free = [target for target in site.targets if target not in others]
        raise UsageError(
            f"{site.environment} serves another model than {version.name}.",
            why=", ".join(f"{target} serves {model}" for target, model in others.items()),
            remedy=f"Name the targets that {version.name} shall go to: "
            + " ".join(f"--target {target}" for target in free or site.targets),
        )


def _wrong(link: Link, today: Tolerance) -> str:
    """What is wrong with a link, by the tolerance of then or of ``today``; empty where nothing is."""
    worst = max(link.outputs, key=lambda output: output.max_rel, default=None)
    numbers = f": {worst.name} is off by {worst.max_abs:.2g} at a scale of {worst.scale:.2g}" if worst else ""
    told = f"{link.source} to {link.target}{numbers}"
    if not link.passed:
        return told
    if not all(today.allows(output.max_abs, output.scale) for output in link.outputs):
        return f"{told}, more than deploy.yaml allows since it was registered"
    # Where no proof was asked for when it was registered, one may be now.
    if link.tolerance.rtol >= 1 and not dataclasses.replace(link, tolerance=today).tells():
        return f"{told}, so flat that it proves nothing: deploy.yaml no longer accepts that"
    return ""

"""What a version must have been through elsewhere before it is promoted: ``after`` and ``soak``."""

from __future__ import annotations

from shipway.registry.config.project import Project
from shipway.registry.deploy.site import Site
from shipway.registry.errors import NotFoundError
from shipway.registry.ledger import owner
from shipway.registry.ledger.events import Place
from shipway.registry.nouns import ModelVersion
from shipway.registry.units import format_age, format_left
from shipway.registry.verbs.status import TargetStatus, look


def refuse_untried(project: Project, version: ModelVersion, site: Site, accept: str | None) -> None:
    """Raise NotFoundError where ``after`` asks for a healthy release of this version elsewhere first.

    It must be live on the targets that both environments have, or on any where they share none, and have
    been for ``soak``. The family is NotFoundError, because a release is missing: nothing is wrong with the
    command, the file or the model.
    """
    environment = project.environment(site.environment)
    first = environment.after
    if first is None or accept is not None:
        return
    statuses = {target: look(project, first, target) for target in project.environment(first).targets}
    shared = [target for target in site.targets if target in statuses]
    good = [target for target, status in statuses.items() if _is_live(status, version)]
    missing = [target for target in shared if target not in good] if shared else [] if good else [first]
    if missing:
        raise NotFoundError(
            f"{version.ref} is not healthy in {first} yet, and {site.environment} comes after it.",
            why=", ".join(f"{first}/{target}: {_short(status)}" for target, status in statuses.items()),
            remedy=f'First: shipway promote {version.ref} --to {first}. Or --accept "reason", which is kept.',
        )
    ages = {target: _live_for(site, Place(first, target), statuses[target]) for target in shared or good}
    age = min(ages.values()) if shared else max(ages.values())
    left = environment.soak - max(0.0, age)
    if left > 0:
        raise NotFoundError(
            f"{version.ref} was not live in {first} for long enough: {site.environment} wants "
            f"{format_left(environment.soak)}, and {format_left(left)} are left.",
            why=", ".join(f"{first}/{target}: {_told(age)}" for target, age in ages.items()),
            remedy='Wait, then run the command again. Or --accept "reason", which is kept.',
        )


def _live_for(site: Site, place: Place, status: TargetStatus) -> float:
    """Seconds since what is live at ``place`` became so; below 0 where the clock that wrote it was ahead."""
    ended = site.ledger.ended(place, status.serial) if status.serial is not None else None
    return owner.seconds_since(ended.at) if ended else 0.0


def _told(age: float) -> str:
    if age < 0:
        return "live since a time that is yet to come, which counts as none: the clocks disagree"
    return f"live for {format_age(max(age, 1))}"


def _is_live(status: TargetStatus, version: ModelVersion) -> bool:
    return status.healthy and (status.model, status.version) == (version.name, version.version)


def _short(status: TargetStatus) -> str:
    if status.model is None:
        return "nothing is live"
    return f"{status.model}/{status.version}" + ("" if status.healthy else f" ({status.problem})")

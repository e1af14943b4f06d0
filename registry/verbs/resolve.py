"""From a reference to the version's record."""

from __future__ import annotations

from shipway.registry.config.check import suggestion
from shipway.registry.config.project import Project
from shipway.registry.deploy.mirror import places_of
from shipway.registry.errors import NotFoundError, UsageError
from shipway.registry.ledger.ledger import Ledger
from shipway.registry.nouns import ModelRef, ModelVersion
from shipway.registry.store.store import Store

_LARGEST = 2**31 - 1  # MLflow keeps a version's number in a column of SQL's type INTEGER


def resolve(project: Project, ref: ModelRef) -> ModelVersion:
    """The version that ``ref`` names: from the store, or from MLflow (slow) where the store lacks it.

    ``NAME@ENV-TARGET`` is answered by the ledger, which is the truth that MLflow's alias mirrors. Raises
    NotFoundError, UsageError for a name alone, DeliveryError where MLflow is needed and down.
    """
    number = _number(project, ref)
    if number > _LARGEST:
        raise NotFoundError(
            f"There is no version {ref.name}/{number}.",
            why=f"The largest number that a registry gives is {_LARGEST}.",
            remedy=f"'shipway versions {ref.name}' lists those that there are.",
        )
    version = project.store.version(ref.name, number)
    if version is None:
        from shipway.registry import catalog

        try:
            version = catalog.fetch_version(project.registry_uri, ref.name, number, project.store)
        except NotFoundError as error:
            why = "\n".join(filter(None, (error.why, _there_is(project.store, ref.name))))
            raise NotFoundError(error.what, why=why, remedy=error.remedy) from error
    return version


def _there_is(store: Store, name: str) -> str:
    """What the store has of the model or, where it has nothing, which model was meant."""
    if known := store.versions(name):
        return f"The store has {', '.join(str(version.ref) for version in known[-5:])}."
    return f"Among the models: {suggestion(name, store.names())}"


def _number(project: Project, ref: ModelRef) -> int:
    if ref.version is not None:
        return ref.version
    if ref.alias is None:
        known = [f"{ref.name}/{version.version}" for version in project.store.versions(ref.name)]
        raise UsageError(
            f"{ref.name!r} names a model, not a version.",
            why=f"There is {', '.join(known[-5:])}." if known else "",
            remedy=f"Write {known[-1] if known else ref.name + '/1'}, or an alias.",
        )
    return _deployed(project, ref.name, ref.alias) or _aliased(project, ref.name, ref.alias)


def _deployed(project: Project, name: str, alias: str) -> int | None:
    """The live version at the place that the alias names, or None where it names no place."""
    place = next((place for place in places_of(project) if place.alias == alias), None)
    if place is None:
        return None
    ledger = Ledger(project.store.objects)
    serial = ledger.head(place).standing.live
    live = ledger.started(place, serial) if serial is not None else None
    if live is None or live.model != name:
        raise NotFoundError(
            f"No version of {name} is live on {place}.",
            why=f"{live.model}/{live.version} is." if live else "Nothing is.",
            remedy="'shipway status' shows what is live where.",
        )
    return live.version


def _aliased(project: Project, name: str, alias: str) -> int:
    from shipway.registry import catalog

    return catalog.resolve_alias(project.registry_uri, name, alias)

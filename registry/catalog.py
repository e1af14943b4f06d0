"""MLflow, the home of versions. Imported here and in ``catalog_worker`` alone, and only inside functions.

What is here reads and sets aliases; mlflow-skinny, SQLAlchemy and Alembic are enough for it. Logging needs
the whole of MLflow and onnx: the child ``catalog_worker`` does it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import sqlite3
import tempfile
import urllib.parse
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shipway.registry import files, privacy, room
from shipway.registry.errors import DeliveryError, IntegrityError, NotFoundError, ShipwayError
from shipway.registry.nouns import Digest, File, Json, ModelVersion
from shipway.registry.store.store import Store

RECORD = "shipway/version.json"  # in the version's artifact folder; its name and number are MLflow's to say
DIGEST_TAG = "shipway.digest"
IDENTITY_TAG = "shipway.identity"

_QUIET = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # the default keeps a person waiting for minutes
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "60",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "GIT_PYTHON_REFRESH": "quiet",
}


@dataclass(frozen=True, slots=True)
class Entry:
    """A registered version as MLflow lists it. ``digest`` is None where shipway did not register it."""

    name: str
    version: int
    created: float  # seconds since the epoch
    digest: Digest | None
    aliases: tuple[str, ...] = ()


def location(file: File, precision: str | None = None) -> str:
    """Where a version's file lies in its MLflow artifact folder.

    The canonical graph and its external data lie at the top, where the flavor ``onnx`` looks; everything
    else below ``shipway/``.
    """
    if precision == "fp32":
        return file.path
    return f"shipway/variants/{precision}/{file.path}" if precision else f"shipway/{file.path}"


def locations(version: ModelVersion) -> dict[str, File]:
    """Every file of a version by its place in the artifact folder."""
    placed = {location(file, v.precision): file for v in version.variants for file in v.files}
    return placed | {location(file): file for file in (*version.golden, *version.assets)}


# reading


def has_version(uri: str, name: str, number: int, digest: Digest) -> bool:
    """Whether MLflow (still) has this version with this digest; without importing mlflow where it is sqlite.

    The sqlite file is read as it lies; where its tables are not as expected, MLflow is asked instead.
    """
    path = sqlite_path(uri)
    if path is not None:
        if not path.is_file():
            return False
        with contextlib.suppress(sqlite3.Error):
            return _has_row(path, name, number, digest)
    with explained(uri):
        from mlflow.exceptions import MlflowException

        try:
            found = client_of(uri).get_model_version(name, str(number))
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return False
            raise
        return bool(found.tags.get(DIGEST_TAG) == str(digest))


def list_versions(uri: str, name: str | None = None) -> list[Entry]:
    """Every registered version, or those of one model, by name and then by number."""
    if _absent(uri):
        return []
    with explained(uri):
        client = client_of(uri)
        aliases: dict[tuple[str, int], list[str]] = {}
        for model in _models(client, name):
            for alias, version in model.aliases.items():
                aliases.setdefault((model.name, int(version)), []).append(alias)
        query = f"name = '{name}'" if name is not None else ""
        entries = [
            Entry(
                name=found.name,
                version=int(found.version),
                created=found.creation_timestamp / 1000,
                digest=_digest(found.tags),
                aliases=tuple(sorted(aliases.get((found.name, int(found.version)), ()))),
            )
            for found in pages(client.search_model_versions, filter_string=query)
        ]
    return sorted(entries, key=lambda entry: (entry.name, entry.version))


def resolve_alias(uri: str, name: str, alias: str) -> int:
    """The version that ``name@alias`` names. Raises NotFoundError."""
    if not _absent(uri):
        with explained(uri):
            from mlflow.exceptions import MlflowException

            try:
                return int(client_of(uri).get_model_version_by_alias(name, alias).version)
            except MlflowException as error:
                if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                    raise
    raise NotFoundError(
        f"There is no {name}@{alias}.",
        why=f"MLflow at {shown(uri)} knows no such alias.",
        remedy="'shipway versions' lists what there is.",
    )


def fetch_version(uri: str, name: str, number: int, store: Store) -> ModelVersion:
    """Copy a version's record and files from MLflow into the store and return the record.

    Raises NotFoundError where there is no such version or shipway did not register it, IntegrityError where
    a file is not what the record says.
    """
    missing = NotFoundError(
        f"There is no {name}/{number}.",
        why=f"MLflow at {shown(uri)} has no such version.",
        remedy="'shipway versions' lists what there is; 'shipway register' adds to it.",
    )
    if _absent(uri):
        raise missing
    with tempfile.TemporaryDirectory(prefix="shipway-") as temporary:
        with explained(uri):
            _import()
            from mlflow.artifacts import download_artifacts
            from mlflow.exceptions import MlflowException

            try:
                client = client_of(uri)
                client.get_model_version(name, str(number))
                source = client.get_model_version_download_uri(name, str(number))
                folder = Path(download_artifacts(artifact_uri=source, dst_path=temporary, tracking_uri=uri))
            except MlflowException as error:
                if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                    raise missing from error
                raise
        return _take_in(folder, name, number, store)


def _take_in(folder: Path, name: str, number: int, store: Store) -> ModelVersion:
    if not (folder / RECORD).is_file():
        raise NotFoundError(
            f"{name}/{number} was not registered by shipway.",
            why=f"Its artifacts hold no {RECORD}, so nothing vouches for its numbers.",
            remedy=f"Register its model: shipway register model.onnx --name {name}",
        )
    record = json.loads((folder / RECORD).read_bytes())
    version = ModelVersion.from_json({**record, "name": name, "version": number})
    placed = locations(version)
    for place, file in placed.items():
        path = folder / place
        if not files.is_inside(folder, place) or not path.is_file() or files.digest_of(path) != file.digest:
            raise IntegrityError(
                f"The artifacts of {name}/{number} were altered: {place} is not what was registered.",
                remedy="Register the model again and delete this version in MLflow.",
            )
    for place, file in placed.items():
        store.add_file(folder / place, file.digest)
    store.put_version(version)
    return version


# aliases


def set_aliases(uri: str, wanted: Mapping[str, tuple[str, int] | None]) -> None:
    """Make each alias name exactly this version, or nothing (None), whichever model held it before."""
    with explained(uri):
        client = client_of(uri)
        for model in _models(client):
            for alias, version in dict(model.aliases).items():
                if alias in wanted and wanted[alias] != (model.name, int(version)):
                    client.delete_registered_model_alias(model.name, alias)
        for alias, target in wanted.items():
            if target is not None:
                client.set_registered_model_alias(target[0], alias, str(target[1]))


# identity


def identity_of(version: ModelVersion) -> Digest:
    """What makes two registrations the same version: the model, what travels with it, and what decided its
    other precisions: the gates that they passed, and the samples that they were made for and judged on."""
    parts: dict[str, Json] = {
        "digest": str(version.digest),
        "assets": sorted(str(asset.digest) + asset.path for asset in version.assets),
        "precisions": {
            variant.precision: variant.links[-1].tolerance.to_json() if variant.links else None
            for variant in version.variants
        },
        "samples": version.extra.get("samples"),
    }
    if any(len(variant.files) > 1 for variant in version.variants):
        parts["external_data"] = ["always"]
    return Digest.of(json.dumps(parts, sort_keys=True).encode())


def draft_record(draft: ModelVersion) -> bytes:
    """The content of ``RECORD``."""
    return json.dumps(dataclasses.replace(draft, version=0).to_json(), sort_keys=True).encode()


# MLflow itself


def _import() -> Any:
    """Import mlflow, quiet and without its telemetry. A user's own environment variables win."""
    privacy.no_telemetry()
    for key, value in _QUIET.items():
        os.environ.setdefault(key, value)
    import mlflow

    for noisy in ("mlflow", "alembic"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    return mlflow


def select(uri: str) -> None:
    """Make ``uri`` MLflow's own default: some of its calls know no other. For processes of our own only."""
    mlflow = _import()
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)


def client_of(uri: str) -> Any:
    return _import().MlflowClient(tracking_uri=uri, registry_uri=uri)


def _models(client: Any, name: str | None = None) -> Iterator[Any]:
    query = f"name = '{name}'" if name is not None else None
    return pages(client.search_registered_models, filter_string=query)


def pages(search: Any, **arguments: Any) -> Iterator[Any]:
    token = None
    while True:
        page = search(page_token=token, **arguments)
        yield from page
        token = page.token
        if not token:
            return


@contextlib.contextmanager
def explained(uri: str) -> Iterator[None]:
    """Turn what MLflow, SQLAlchemy or the network raise into a DeliveryError; keep their warnings quiet."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of MLflow about SQLAlchemy: nothing that a user could act on
            yield
    except ShipwayError:
        raise
    except ImportError as error:
        raise DeliveryError(
            "MLflow can't be used.",
            why=f"{error}",
            remedy="Install what registering needs: pip install 'shipway[convert]'",
        ) from error
    except Exception as error:
        if room.is_full(error):
            raise DeliveryError(
                f"There is no room left where the registry {shown(uri)} and its artifacts lie.",
                why=_place(error) or str(error).strip()[-500:],
                remedy="Free space there, or name another place in deploy.yaml: 'registry' for the numbers; "
                "of a sqlite registry, the artifacts lie in the folder 'artifacts' beside it.",
            ) from error
        first = str(error).strip().splitlines()
        raise DeliveryError(
            f"The registry {shown(uri)} can't be used.",
            why=first[0][:500] if first else type(error).__name__,
            remedy="Is it up, reachable and writable? 'registry' in deploy.yaml (or MLflow's own environment "
            "variables for credentials) says where it is.",
        ) from error


def _place(error: BaseException) -> str:
    """Which file could not be written, where the error says."""
    if not isinstance(error, OSError) or error.errno is None:
        return ""
    return f"{error.strerror}: {error.filename2 or error.filename or ''}".rstrip(": ")


def shown(uri: str) -> str:
    """The URI without the password it may carry."""
    parts = urllib.parse.urlsplit(uri)
    return uri.replace(f":{parts.password}@", ":***@") if parts.password else uri


def sqlite_path(uri: str) -> Path | None:
    return Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None


def is_database(uri: str) -> bool:
    """Whether MLflow reaches a database itself, be it sqlite, and not a server in front of one."""
    return uri.partition(":")[0].partition("+")[0] in ("sqlite", "postgresql", "mysql", "mssql")


def _absent(uri: str) -> bool:
    """Whether the registry is a sqlite file that is not there yet: reading must not create it."""
    path = sqlite_path(uri)
    return path is not None and not path.is_file()


def _has_row(path: Path, name: str, number: int, digest: Digest) -> bool:
    address = f"file:{urllib.parse.quote(str(path.absolute()))}?mode=ro"
    with contextlib.closing(sqlite3.connect(address, uri=True, timeout=5)) as database:
        row = database.execute(
            "select 1 from model_versions v join model_version_tags t using (name, version)"
            " where v.name = ? and v.version = ? and t.key = ? and t.value = ?"
            " and v.current_stage != 'Deleted_Internal'",  # how MLflow's SQL store deletes a version
            (name, number, DIGEST_TAG, str(digest)),
        ).fetchone()
    return row is not None


def _digest(tags: Mapping[str, str]) -> Digest | None:
    try:
        return Digest.parse(tags.get(DIGEST_TAG, ""))
    except ValueError:
        return None

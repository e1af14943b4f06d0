"""The logging half of the catalog, in a child: it imports all of MLflow while its parent converts a model.

A version is logged in this order: files, numbers, then the registered version. So a process that is killed
before the end has registered nothing; one that fails or is asked to end takes back what it logged.
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import importlib.metadata
import math
import os
import shutil
import sqlite3
import sys
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shipway.registry import catalog, files, flavor, process
from shipway.registry.errors import ConfigError
from shipway.registry.nouns import Digest, Json, ModelVersion


@dataclass(frozen=True, slots=True)
class Logged:
    """What ``log_version`` came to: ``created`` is False where MLflow had the same model already."""

    version: int
    created: bool


def open_registry(uri: str) -> None:
    """Connect and ask what will be asked, so that nobody waits for imports and a fresh database's migrations.

    Nor for SQLAlchemy: it puts a query together once for each engine.
    """
    with catalog.explained(uri):
        path = catalog.sqlite_path(uri)
        if path is not None and not path.exists():
            _make_database(path)
        client = catalog.client_of(uri)
        _versions(client, "shipway", "")
        client.get_experiment_by_name("shipway")


def _make_database(path: Path) -> None:
    """Make MLflow's tables elsewhere and move them in when they are whole.

    MLflow can't go on from a database that it was killed in while making it: table already exists.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    made = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        _make_tables(made)
        try:
            os.link(made, path)
        except FileExistsError:
            pass  # another process was first: theirs is as good
        except OSError:  # a file system without hard links
            with _locked(path.parent):
                if not path.exists():
                    made.replace(path)
    finally:
        made.unlink(missing_ok=True)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One process at a time; the system lets go of it where one dies."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _make_tables(path: Path) -> None:
    """A database of MLflow's tables and nothing in them.

    MLflow makes them by all migrations that there ever were. What they leave depends on its release alone, so
    it is kept for other projects of this machine.
    """
    import mlflow

    kept = files.cache_folder("mlflow") / f"tables-{mlflow.__version__}.db"
    with contextlib.suppress(OSError, sqlite3.Error):
        files.copy_atomic(kept, path)
        with contextlib.closing(sqlite3.connect(path)) as database:
            if (
                database.execute("pragma quick_check").fetchone() == ("ok",)
                and database.execute("select version_num from alembic_version").fetchone()
            ):
                return
    path.unlink(missing_ok=True)
    from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore

    SqlAlchemyStore(f"sqlite:///{path}")  # type: ignore[no-untyped-call]
    with contextlib.suppress(OSError):  # a help, never a need
        files.copy_atomic(path, kept)


def _without_pandas() -> None:
    """Have MLflow do as where pandas is not installed: it is a fifth of its import, and not needed."""
    sys.modules.setdefault("pandas", None)  # type: ignore[arg-type]


def log_version(
    uri: str, artifacts: Path, experiment: str, draft: ModelVersion, folder: Path, example: Path | None
) -> Logged:
    """Log ``folder`` (laid out by ``locations``) as a model of flavor ``onnx`` and register it as a version.

    ``artifacts`` is where files go when the registry is a local sqlite; a server knows its own place.
    ``example`` is an ``.npz`` with one input example. Where MLflow has a version of the same identity
    already, that one is returned and nothing is logged. On any error, Ctrl-C included, what was logged is
    taken back.
    """
    identity = catalog.identity_of(draft)
    with catalog.explained(uri):
        catalog.select(uri)
        client = catalog.client_of(uri)
        known = _find(client, draft.name, identity)
        if known is not None:
            return Logged(known, created=False)
        place = _experiment(client, experiment, uri, artifacts)
        run_id = client.create_run(place, run_name=f"register {draft.name}").info.run_id
        model = None
        created = False
        try:
            # MLflow takes a dot in a registered model's name, and none in that of what is logged.
            model = client.create_logged_model(
                place,
                name=draft.name.replace(".", "-"),
                source_run_id=run_id,
                tags=_tags(draft, identity),
                model_type="onnx",
            )
            model_id = model.model_id
            _write_flavor(folder, draft, run_id, model_id, example)
            client.log_model_artifacts(model_id, str(folder))
            _record_numbers(client, run_id, model_id, draft)
            client.finalize_logged_model(model_id, "READY")
            client.set_terminated(run_id)
            version, created = _register(client, draft.name, run_id, model_id, _tags(draft, identity))
        finally:
            if not created:
                local = catalog.sqlite_path(uri) is not None
                _take_back(client, draft.name, identity, run_id, model, local=local)
        return Logged(version, created)


def _register(
    client: Any, name: str, run_id: str, model_id: str, tags: Mapping[str, str]
) -> tuple[int, bool]:
    """Make the logged model a version: its number, and whether it is ours.

    A request whose answer is lost was carried out all the same, and MLflow's client sends it again: then
    there are two versions. Another process may register the same model at the same time, too. Of several
    versions of one identity the lowest number is the one, and those of ours above it go.
    """
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    identity = tags[catalog.IDENTITY_TAG]
    try:
        client.create_model_version(
            name, source=f"models:/{model_id}", run_id=run_id, model_id=model_id, tags=dict(tags)
        )
    except Exception:
        if not any(owner == run_id for _, owner in _versions(client, name, identity)):
            raise
    (number, owner), *others = _versions(client, name, identity)
    for other, theirs in others:
        if theirs == run_id:
            client.delete_model_version(name, str(other))
    return number, owner == run_id


def _write_flavor(
    folder: Path, draft: ModelVersion, run_id: str, model_id: str, example: Path | None
) -> None:
    """Write MLmodel and its companions beside the model, whose bytes stay as they are."""
    import mlflow
    import numpy as np

    now = datetime.datetime.now(datetime.timezone.utc).replace(tzinfo=None)
    onnx = importlib.metadata.version("onnx")
    logged = flavor.LoggedModel(run_id, model_id, mlflow.__version__, onnx, at=str(now))
    flavor.write(folder, draft, logged, dict(np.load(example)) if example is not None else None)


def _record_numbers(client: Any, run_id: str, model_id: str, draft: ModelVersion) -> None:
    from mlflow.entities import Metric, Param

    numbers = {
        f"{link.source}-to-{link.target}/{_plain(output.name)}/{key}": getattr(output, key)
        for link in draft.chain
        for output in link.outputs
        for key in ("max_abs", "max_rel", "cosine", "scale")
    }
    numbers |= {f"seconds/{phase}": value for phase, value in draft.extra.get("seconds", {}).items()}
    metrics = [Metric(k, float(v), 0, 0, model_id=model_id) for k, v in numbers.items() if math.isfinite(v)]
    params = {
        "toolchain": draft.toolchain,
        "opset": str(draft.opset),
        "ir": str(draft.ir),
        "precisions": ", ".join(variant.precision for variant in draft.variants),
    }
    client.log_batch(run_id, metrics[:1000], [Param(key, value) for key, value in params.items()])


def _take_back(client: Any, name: str, identity: Digest, run_id: str, model: Any, *, local: bool) -> None:
    """Undo as much as can be undone: the disk may be full, the server gone. Files first: they are large.

    A server that does not answer may have made a version all the same: then all that it needs stays.
    """
    with contextlib.suppress(Exception):
        try:
            for number, owner in _versions(client, name, str(identity)):
                if owner == run_id:
                    client.delete_model_version(name, str(number))
        except Exception:
            if not local:
                raise
        if model is not None and local:
            place = _local_path(model.artifact_location)
            own = place.parent if place.parent.name == model.model_id else place  # models/<id>/artifacts
            shutil.rmtree(own, ignore_errors=True)
        if model is not None:
            client.delete_logged_model(model.model_id)
        client.delete_run(run_id)


def _experiment(client: Any, name: str, uri: str, artifacts: Path) -> str:
    """The experiment's id; it is made where there is none. Raises ConfigError: see ``_no_place``."""
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        where = None
        if catalog.sqlite_path(uri) is not None:
            artifacts.mkdir(parents=True, exist_ok=True)
            where = artifacts.as_uri()
        elif catalog.is_database(uri):
            raise _no_place(name, uri)
        try:
            return str(client.create_experiment(name, artifact_location=where))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            found = client.get_experiment_by_name(name)  # another process made it in the meantime
    if found.lifecycle_stage != "active":
        client.restore_experiment(found.experiment_id)
    return str(found.experiment_id)


def _no_place(name: str, uri: str) -> ConfigError:
    """Nobody says where files go: MLflow would take the working folder, which here is a temporary one."""
    shown = catalog.shown(uri)
    return ConfigError(
        f"registry: {shown} is a database without a server, and it has no experiment {name!r} yet.",
        why="Only an experiment says where the files of versions go.",
        remedy="Make it once: MLFLOW_TRACKING_URI=... mlflow experiments create --experiment-name "
        f"{name} --artifact-location s3://bucket/mlflow. Or put 'mlflow server' in front of the database.",
    )


def _find(client: Any, name: str, identity: Digest) -> int | None:
    return next((number for number, _ in _versions(client, name, str(identity))), None)


def _versions(client: Any, name: str, identity: str) -> list[tuple[int, str]]:
    """Number and run of every version that is this very model, the lowest number first."""
    query = f"name = '{name}' and tag.`{catalog.IDENTITY_TAG}` = '{identity}'"
    found = catalog.pages(client.search_model_versions, filter_string=query)
    return sorted((int(version.version), str(version.run_id)) for version in found)


def _tags(draft: ModelVersion, identity: Digest) -> dict[str, str]:
    return {
        catalog.DIGEST_TAG: str(draft.digest),
        catalog.IDENTITY_TAG: str(identity),
        "shipway.source": str(draft.source),
        "shipway.toolchain": draft.toolchain,
    }


def _local_path(uri: str) -> Path:
    parts = urllib.parse.urlsplit(uri)
    return Path(urllib.parse.unquote(parts.path)) if parts.scheme == "file" else Path(uri)


def _plain(name: str) -> str:
    """``name`` as far as MLflow takes it in a metric's key."""
    return "".join(c if c.isalnum() or c in "_-. " else "_" for c in name)


def _prepare() -> Callable[[Json], Json]:
    _without_pandas()
    return _answer


def _answer(request: Json) -> Json:
    uri = request["uri"]
    if request["do"] == "open":
        open_registry(uri)
        return None
    logged = log_version(
        uri,
        artifacts=Path(request["artifacts"]),
        experiment=request["experiment"],
        draft=ModelVersion.from_json(request["draft"]),
        folder=Path(request["folder"]),
        example=Path(request["example"]) if request["example"] is not None else None,
    )
    return {"version": logged.version, "created": logged.created}


if __name__ == "__main__":
    process.serve(_prepare)

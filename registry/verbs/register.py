"""``register``: a trained model in, a verified version out."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from shipway.registry import catalog, room, threads
from shipway.registry.config.project import Project
from shipway.registry.convert import openmp, running, toolchains
from shipway.registry.convert.running import Bench
from shipway.registry.convert.source import Source, read_source
from shipway.registry.errors import DeliveryError
from shipway.registry.nouns import Digest, Json, ModelVersion, check_model_name
from shipway.registry.observe import SILENT, Observer
from shipway.registry.process import Worker, WorkerError
from shipway.registry.registration import scratch
from shipway.registry.registration.draft import Clock, Wish, import_early, verified

CATALOG_WORKER = "shipway.registry.catalog_worker"


@dataclass(frozen=True, slots=True)
class Registered:
    """``created`` is False where the same model was registered before; ``seconds`` by phase of this call."""

    version: ModelVersion
    created: bool
    seconds: Mapping[str, float]


def register(
    project: Project,
    path: Path,
    name: str,
    *,
    inputs: Sequence[str] = (),
    samples: Path | None = None,
    assets: Sequence[Path] = (),
    toolchain: str | None = None,
    bisect: bool = False,
    observer: Observer = SILENT,
) -> Registered:
    """Convert, verify and log the model at ``path`` as a version of ``name``.

    ``inputs`` are ``NAME:DTYPE:SHAPE``, ``samples`` real inputs (``.npz``, ``.npy`` or a folder of them),
    ``assets`` files that travel with it. With ``bisect`` the error of a link that fails names the first layer
    that differs. Raises UsageError, ConversionError, VerificationError or DeliveryError; then nothing
    is registered: no version, no record. Files that got into the store by then stay there: they are named by
    their content, harmless, and another registration may rely on them.
    """
    began = time.monotonic()
    threads.no_spinning()
    clock = Clock(observer)
    with clock.phase("read"):
        check_model_name(name)
        wish = _wish(project, read_source(path, assets), name, inputs, samples, toolchain, bisect)
        identity = wish.identity()
        known = _registered_before(project, name, identity)
    if known is None:
        with _work_folder() as work:
            version, created = _make(project, wish, identity, work, clock)
    else:
        version, created = known, False
    clock.seconds["total"] = round(time.monotonic() - began, 3)
    return Registered(version, created, clock.seconds)


def _wish(
    project: Project,
    source: Source,
    name: str,
    inputs: Sequence[str],
    samples: Path | None,
    forced: str | None,
    bisect: bool,
) -> Wish:
    """What was asked for, with what ``deploy.yaml`` says of the model and its targets need of it."""
    chains: tuple[toolchains.Toolchain, ...] = ()
    if source.format != "onnx" or forced is not None:
        chains = toolchains.choose(source.format, forced)
    config = project.config.conversion(name)
    limits = {target: project.target(target).limits() for target in project.config.targets}
    precisions: dict[str, tuple[str, ...]] = {"fp32": ()}
    for target, settings in project.config.targets.items():
        precisions[settings.precision] = (*precisions.get(settings.precision, ()), target)
    opset = toolchains.choose_opset(config.opset, limits, chains[0].opsets if chains else None)
    return Wish(name, source, tuple(inputs), samples, chains, opset, limits, precisions, config, bisect)


def _registered_before(project: Project, name: str, identity: Digest) -> ModelVersion | None:
    """The version that this very source became, if it is still whole: in the store and in MLflow."""
    known = project.store.find_by_source(name, identity)
    if known is None or not _is_whole(project, known):
        return None
    return known


def _is_whole(project: Project, version: ModelVersion) -> bool:
    """Whether the store has all its files, unaltered (about as much to hash as the source), and MLflow it."""
    everything = catalog.locations(version).values()
    return all(project.store.is_intact(file) for file in everything) and catalog.has_version(
        project.registry_uri, version.name, version.version, version.digest
    )


def _make(
    project: Project, wish: Wish, identity: Digest, work: Path, clock: Clock
) -> tuple[ModelVersion, bool]:
    with contextlib.ExitStack() as children:
        bench = children.enter_context(_paddle(wish, work)) if wish.chains else None
        if bench is not None:
            import_early()  # of all that is imported MLflow is needed last: its child is not to be in the way
        place = work / "mlflow"
        place.mkdir()
        logger = children.enter_context(Worker(CATALOG_WORKER, cwd=place, env=_scratch(place), grace=10.0))
        logger.send({"do": "open", "uri": project.registry_uri})
        draft, folder, example = verified(wish, identity, work, bench, clock)
        return _keep(project, draft, folder, example, logger, clock)


def _paddle(wish: Wish, work: Path) -> Bench:
    """Paddle in a child, importing from now on: the judge of every Paddle model, and its first converter."""
    toolchains.installed(toolchains.PAIR)
    place = work / "paddle"
    place.mkdir()
    # Paddle makes folders in its user's home when it is imported.
    env = {**_scratch(place), "HOME": str(place), **running.heap(), **openmp.environment(place)}
    memory = running.memory_limit(wish.config.memory)
    return Bench(lambda: Worker(toolchains.PAIR.worker, cwd=place, env=env, memory=memory, offline=True))


def _keep(
    project: Project, draft: ModelVersion, folder: Path, example: Path, logger: Worker, clock: Clock
) -> tuple[ModelVersion, bool]:
    """Give the draft its number: an older one's where it is the same model, else a new one from MLflow."""
    store = project.store
    wanted = catalog.identity_of(draft)
    for version in store.versions(draft.name):
        if catalog.identity_of(version) == wanted and _is_whole(project, version):
            store.remember_source(draft.name, draft.source, version.version)
            return version, False
    with clock.phase("log"):
        (folder / catalog.RECORD).parent.mkdir(parents=True, exist_ok=True)
        (folder / catalog.RECORD).write_bytes(catalog.draft_record(draft))
        with _logging_explained():
            logger.receive()
        # Before MLflow knows of it: a version whose files the store can't take is not to be one.
        for place, file in catalog.locations(draft).items():
            store.add_file(folder / place, file.digest)
        request: Json = {
            "do": "log",
            "uri": project.registry_uri,
            "artifacts": str(project.artifacts),
            "experiment": project.config.project,
            "draft": draft.to_json(),
            "folder": str(folder),
            "example": str(example),
        }
        with _logging_explained():
            answer = logger.ask(request)
        if not answer["created"]:
            found = catalog.fetch_version(project.registry_uri, draft.name, answer["version"], store)
            store.remember_source(draft.name, draft.source, found.version)
            return found, False
        version = dataclasses.replace(draft, version=answer["version"])
        try:
            store.put_version(version)
        except DeliveryError as error:
            # MLflow has it, and whoever asks the store for it is given MLflow's: so it is registered.
            clock.observer.note(
                f"{version.ref} is registered, but the store could not take its record, which is fetched "
                f"from MLflow when it is needed. {error.what} {error.why}"
            )
        return version, True


@contextlib.contextmanager
def _logging_explained() -> Iterator[None]:
    try:
        yield
    except WorkerError as error:
        raise DeliveryError(
            "MLflow could not log the version.",
            why=f"{error.message}\n{error.log[-600:]}".strip(),
            remedy="'shipway doctor' checks the registry.",
        ) from error


@contextlib.contextmanager
def _work_folder() -> Iterator[Path]:
    try:
        work = scratch.make()
    except OSError as error:
        raise _no_room(error, Path(tempfile.gettempdir())) from error
    try:
        yield work
    except OSError as error:
        raise _no_room(error, work) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _no_room(error: OSError, work: Path) -> DeliveryError:
    if room.is_full(error):
        return room.full(work, f"{error.strerror or error}")
    # Of a copy it is the second name that can't be written; the first is the user's own file.
    place = error.filename2 or error.filename or work
    return DeliveryError(
        "The model could not be registered.",
        why=f"{error.strerror or error}: {place}",
        remedy="Free space, or set TMPDIR to a folder that has some. Nothing was registered.",
    )


def _scratch(folder: Path) -> dict[str, str]:
    """A child's temporary files go where they are removed with the rest."""
    return {"TMPDIR": str(folder)}

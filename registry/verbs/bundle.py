"""``shipway bundle``: a version packaged for a target, in the store and in a folder to look at or to run."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from shipway.registry import files
from shipway.registry.bundling import build
from shipway.registry.catalog import locations
from shipway.registry.config.project import Project
from shipway.registry.errors import DeliveryError, IntegrityError, NotFoundError, UsageError
from shipway.registry.nouns import File, ModelRef, ModelVersion
from shipway.registry.observe import SILENT, Observer
from shipway.registry.store.store import Store
from shipway.registry.verbs.resolve import resolve
from shipway.targets.base import VerifiedModel
from shipway.targets.manifest import MANIFEST, Manifest


def bundle(project: Project, ref: ModelRef, target: str, out: Path, observer: Observer = SILENT) -> Manifest:
    """Build the bundle of a version for a target, and copy it to ``out``.

    Raises NotFoundError where there is no such version, and what ``build_bundle`` and ``export`` raise.
    """
    manifest = build_bundle(project, resolve(project, ref), target, observer)
    export(project.store, manifest, out)
    return manifest


def build_bundle(
    project: Project, version: ModelVersion, target_name: str, observer: Observer = SILENT
) -> Manifest:
    """The bundle of ``version`` for a target of ``deploy.yaml``; its files are in the store afterwards.

    Built once: the same version, options and templates give what was built before. Raises NotFoundError where
    the version lacks the target's precision, UnsupportedModelError where the target's runtime can't run it.
    """
    target = project.target(target_name)
    options = project.config.targets[target_name].options
    variant = version.variant(options.precision)
    if variant is None:
        raise NotFoundError(
            f"{version.ref} has no {options.precision} form, which target {target_name!r} asks for.",
            why=f"It has {', '.join(have.precision for have in version.variants)}.",
            remedy="Register the model again: that makes what the targets of deploy.yaml ask for.",
        )
    tolerance = project.config.conversion(version.name).allowed(options.precision)
    with observer.phase(f"bundle for {target_name}"):
        return build(
            target, options, VerifiedModel(version, variant, tolerance), project.store, project.templates
        )


def build_bundles(
    project: Project, version: ModelVersion, targets: Sequence[str], observer: Observer = SILENT
) -> dict[str, Manifest]:
    """The same for several targets, built side by side: while one compresses, another hashes and writes.

    Where one can't be built the others are built all the same; raises what the first of those met.
    """
    if len(targets) <= 1:
        return {target: build_bundle(project, version, target, observer) for target in targets}
    with ThreadPoolExecutor(len(targets), "shipway-bundle") as pool:
        made = {t: pool.submit(build_bundle, project, version, t, observer) for t in targets}
    return {target: future.result() for target, future in made.items()}


def export(store: Store, manifest: Manifest, out: Path) -> None:
    """Copy a bundle out of the store to ``out``, which appears whole or not at all.

    Copies, never links: whoever asked for the folder may edit it. Raises UsageError where ``out`` holds
    something, DeliveryError where it can't be written, IntegrityError where the store's bytes are not the
    bundle's.
    """
    try:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise UsageError(f"{out} is not an empty folder.", remedy="Name a new folder with --out.")
        out.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{out.name[:64]}.", suffix=".tmp", dir=out.parent))
        try:
            _fill(store, manifest, staging)
            staging.chmod(0o755)
            staging.rename(out)
        finally:
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(staging)
    except OSError as error:
        raise DeliveryError(
            f"The bundle can't be written to {out}.",
            why=f"{error.strerror or error}: {error.filename or out}",
            remedy="Free space or mend the permissions there, or name another folder.",
        ) from error


def _fill(store: Store, manifest: Manifest, folder: Path) -> None:
    for file in manifest.files:
        try:
            files.copy_atomic(store.open(file), folder / file.path, expect=file.digest)
        except ValueError as error:
            raise _altered(store, manifest, file, error) from error
        (folder / file.path).chmod(manifest.mode(file.path))
    (folder / MANIFEST).write_bytes(manifest.to_bytes())
    (folder / MANIFEST).chmod(0o644)


def _altered(store: Store, manifest: Manifest, file: File, error: ValueError) -> IntegrityError:
    """Who puts the file back: ``register`` a version's own, the next build what it made itself."""
    version = store.version(manifest.model, manifest.version)
    own = {file.digest for file in locations(version).values()} if version else set()
    if file.digest not in own:
        store.drop_altered(file)
        remedy = "It was removed. Run the command again: that makes it anew."
    else:
        remedy = f"Register the model again, as {manifest.model}: that puts the right file back."
    return IntegrityError(f"The store's copy of {file.path} was altered.", why=str(error), remedy=remedy)

"""``shipway verify``: digests and numbers again, of a bundle in a folder or of a version in the store."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import json
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from shipway.registry import files
from shipway.registry.config.project import Project
from shipway.registry.errors import DeliveryError, IntegrityError, NotFoundError, VerificationError
from shipway.registry.nouns import Digest, File, Json, Link, ModelRef, ModelVersion, Variant
from shipway.registry.observe import SILENT, Advance, Observer
from shipway.registry.store.store import Store
from shipway.registry.verbs.resolve import resolve
from shipway.targets.manifest import MANIFEST, Manifest, compare

if TYPE_CHECKING:
    from shipway.registry.verify.slice import Case

TIMEOUT_S = 600  # seconds after which a bundle's check counts as failed
_RELEASE = re.compile(r".+-[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class Verified:
    """What was held against its record and found right.

    ``digest`` is the bundle's or the model's; ``files`` and ``size`` (bytes) say how much was read. ``check``
    is the verdict of the bundle's own golden check, None where it was not run; ``links`` are a version's
    numbers, measured again, empty where ONNX Runtime is not installed. ``vouched`` says whose word the
    record is: the ``store``'s, that of the ``digest`` that was given, that of the ``release``'s folder name;
    empty where a bundle is held against nothing but its own ``bundle.json``. ``extra`` are
    files that no record lists.
    """

    model: str
    version: int
    digest: Digest
    files: int
    size: int
    kind: str | None = None
    check: Json | None = None
    links: tuple[Link, ...] = ()
    vouched: str = "store"
    extra: tuple[str, ...] = ()

    def to_json(self) -> Json:
        return {
            "model": self.model,
            "version": self.version,
            "digest": str(self.digest),
            "kind": self.kind,
            "files": self.files,
            "size": self.size,
            "check": self.check,
            "links": [link.to_json() for link in self.links],
            "vouched": self.vouched or None,
            "extra": list(self.extra),
        }


def is_bundle(text: str) -> bool:
    """Whether ``text``, what the user gave, is a bundle's folder and no reference to a version."""
    return Path(text).is_dir() or "/" in text.removeprefix("models:/").partition("/")[2]


def verify_bundle(
    folder: Path,
    *,
    digest: Digest | None = None,
    store: Store | None = None,
    run: bool = True,
    observer: Observer = SILENT,
) -> Verified:
    """Hold a bundle's files against its ``bundle.json`` and, with ``run``, run its golden check there.

    That file itself is held against ``digest`` or, where none is given, looked for in ``store``: a store that
    does not know it, or can't be asked, does not vouch for it, which is no error. Raises NotFoundError where
    there is no bundle, IntegrityError naming the files that are missing or changed or where it is not the
    bundle ``digest``, VerificationError where the check does not pass or can't be run.
    """
    manifest = _read_manifest(folder)
    if digest is not None and manifest.digest != digest:
        raise IntegrityError(
            f"{folder} is not the bundle {digest}.",
            why=f"It is {manifest.digest}.",
            remedy="Get the right one, or leave --digest away to see whether this one is whole.",
        )
    vouched = "digest" if digest is not None else _vouched(folder, manifest, store)
    found = {}
    with observer.phase("digests", manifest.size) as progress:
        for file in manifest.files:
            path = folder / file.path
            if path.is_file():
                found[file.path] = files.digest_of(path)
            progress.advance(file.size)
    difference = compare(manifest, found)
    if not difference.whole:
        raise IntegrityError(
            f"{folder} is not the bundle that its {MANIFEST} describes.",
            why=str(difference),
            remedy=f"Get it again: shipway bundle {manifest.model}/{manifest.version} --target T --out DIR. "
            "A release is put back by promoting its version.",
        )
    extra = _extra(folder, manifest)
    check = None
    if run:
        with observer.phase("golden check"):
            check = _run_check(folder, manifest)
    return Verified(
        manifest.model,
        manifest.version,
        manifest.digest,
        len(manifest.files),
        manifest.size,
        kind=manifest.kind,
        check=check,
        vouched=vouched,
        extra=extra,
    )


def verify_version(
    project: Project, ref: ModelRef, *, run: bool = True, observer: Observer = SILENT
) -> Verified:
    """Hash every file of a version in the store again and, with ``run``, measure its golden slice again.

    Measuring needs ONNX Runtime; without it ``links`` stays empty. Raises NotFoundError where the store lost
    a file, IntegrityError naming the files whose bytes changed, VerificationError where the numbers did.
    """
    version = resolve(project, ref)
    listed = {file.digest: file for file in _files_of(version)}
    wrong = []
    with observer.phase("digests", sum(file.size for file in listed.values())) as progress:
        for file in listed.values():
            if files.digest_of(project.store.open(file)) != file.digest:
                wrong.append(file.path)
            progress.advance(file.size)
    if wrong:
        raise IntegrityError(
            f"The store's files of {version.ref} were altered.",
            why=f"changed: {', '.join(sorted(wrong))}",
            remedy=f"Register the model again, as {version.name}: that puts the right files back.",
        )
    links: tuple[Link, ...] = ()
    if run and _can_measure():
        with observer.phase("numbers", len(version.variants)) as progress:
            links = tuple(_measure(project, version, progress))
    bad = [link for link in links if not link.passed]
    if bad:
        raise VerificationError(
            f"The numbers of {version.ref} are wrong on this machine.",
            why="\n".join(_told(link) for link in bad),
            remedy="Compare ONNX Runtime's version with the one that registered it: shipway show.",
        )
    size = sum(file.size for file in listed.values())
    return Verified(version.name, version.version, version.digest, len(listed), size, links=links)


def _read_manifest(folder: Path) -> Manifest:
    try:
        manifest = Manifest.from_bytes((folder / MANIFEST).read_bytes())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFoundError(
            f"There is no bundle in {folder}.",
            why=f"It has no {MANIFEST}.",
            remedy="Name the folder that holds bundle.json, or a version as NAME/VERSION.",
        ) from error
    name = folder.resolve().name
    if _is_release(folder) and name != manifest.release_id:
        raise IntegrityError(
            f"{MANIFEST} in {folder} was altered.",
            why=f"It belongs to {manifest.release_id}, the folder is {name}.",
            remedy="Promote the version once more.",
        )
    return manifest


def _vouched(folder: Path, manifest: Manifest, store: Store | None) -> str:
    if store is not None:
        with contextlib.suppress(NotFoundError, IntegrityError, DeliveryError):
            store.bundle(manifest.digest)
            return "store"
    return "release" if _is_release(folder) else ""


def _extra(folder: Path, manifest: Manifest) -> tuple[str, ...]:
    own = {MANIFEST, *(file.path for file in manifest.files)}
    there = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())
    return tuple(sorted(set(there) - own))


def _is_release(folder: Path) -> bool:
    """Whether the folder's place and name say which bundle it holds, as far as twelve digits go."""
    resolved = folder.resolve()
    return resolved.parent.name == "releases" and _RELEASE.fullmatch(resolved.name) is not None


def _run_check(folder: Path, manifest: Manifest) -> Json:
    from shipway.registry import process
    from shipway.targets.deliveries.gates import local_command

    command = " ".join(manifest.check)
    clean = {"PYTHONDONTWRITEBYTECODE": "1"}  # Python would leave __pycache__ in the bundle
    try:
        done = process.run(local_command(manifest.check), cwd=folder, env=clean, timeout=TIMEOUT_S)
    except OSError as error:
        raise VerificationError(
            f"The golden check '{command}' can't be started.",
            why=f"{error.strerror}: {error.filename}",
            remedy="Install it ('shipway doctor' says how), or check the digests alone.",
        ) from error
    try:
        verdict = done.last_document()
    except ValueError:
        verdict = {}
    if done.code != 0 or not isinstance(verdict, dict) or verdict.get("passed") is not True:
        said = json.dumps(verdict) if verdict else (done.stderr.strip()[-800:] or "It printed no verdict.")
        raise VerificationError(
            f"The golden check '{command}' did not pass in {folder}.",
            why="It took too long." if done.timed_out else said,
            remedy="Run it there yourself; the bundle's README says what its words mean.",
        )
    return verdict


def _files_of(version: ModelVersion) -> Iterator[File]:
    for variant in version.variants:
        yield from variant.files
    yield from version.golden
    yield from version.assets


def _can_measure() -> bool:
    return all(importlib.util.find_spec(name) is not None for name in ("numpy", "onnxruntime"))


def _measure(project: Project, version: ModelVersion, progress: Advance) -> Iterator[Link]:
    from shipway.registry.verify import slice as golden_slice

    with tempfile.TemporaryDirectory(prefix="shipway-") as name:
        folder = Path(name)
        _lay_out(project, version.golden, folder)
        cases = golden_slice.read(folder / "golden")
        for variant in version.variants:
            yield _measure_variant(project, version, variant, cases, folder / "variants" / variant.precision)
            progress.advance()


def _measure_variant(
    project: Project, version: ModelVersion, variant: Variant, cases: list[Case], folder: Path
) -> Link:
    from shipway.registry.verify import measure, parity

    _lay_out(project, variant.files, folder)
    loaded = measure.session(folder / variant.files[0].path)
    inputs = [{tensor.name: tensor.values for tensor in case.inputs} for case in cases]
    results = measure.run(loaded, inputs)
    names = [output.name for output in loaded.get_outputs()]
    tolerance = project.config.conversion(version.name).allowed(variant.precision)
    measures = []
    for tensor_name in [tensor.name for tensor in cases[0].outputs]:
        pairs, scale = [], 0.0
        for case, outputs in zip(cases, results, strict=True):
            tensor = next(tensor for tensor in case.outputs if tensor.name == tensor_name)
            output = outputs[names.index(tensor_name)]
            thinned = output.reshape(-1)[:: tensor.stride] if tensor.stride > 1 else output
            pairs.append((tensor.values, thinned))
            scale = max(scale, tensor.max_abs)
        one, _ = parity.measure_output(tensor_name, pairs, tolerance)
        # The slice may be thinned: the scale is that of the whole output, as in every bundle's check.
        relative = one.max_abs / scale if scale else one.max_rel
        measures.append(dataclasses.replace(one, scale=scale, max_rel=relative))
    passed = all(tolerance.allows(one.max_abs, one.scale) for one in measures)
    return Link("golden", variant.precision, passed, tuple(measures), tolerance)


def _lay_out(project: Project, listed: tuple[File, ...], folder: Path) -> None:
    for file in listed:
        files.copy_atomic(project.store.open(file), folder / file.path)


def _told(link: Link) -> str:
    worst = ", ".join(
        f"{output.name}: max_abs {output.max_abs:.2g} of {output.scale:.2g}" for output in link.outputs
    )
    return f"{link.target}: {worst}"

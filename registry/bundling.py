"""From a verified version to a bundle in the store: the same inputs give the same digest, and are built once.

Every file goes into the store as it is written; the manifest comes last, so that an interrupted build leaves
nothing but blobs that the next build finds again. No clock, host or random order has a way in.
"""

from __future__ import annotations

import json
from pathlib import Path

from shipway.registry.nouns import Digest, File, Json
from shipway.registry.store.store import Store
from shipway.targets.base import BundlePlan, Target, TargetOptions, VerifiedModel
from shipway.targets.limits import check_size
from shipway.targets.manifest import Manifest, check_path
from shipway.targets.render import Renderer

FORMAT = 1
"""Raised when the code that builds changes what comes out for the same inputs."""


class StoreWriter:
    """The ``BundleWriter`` over a store: each write returns its record, the records make the manifest."""

    def __init__(self, store: Store, renderer: Renderer) -> None:
        self._store = store
        self._renderer = renderer
        self._files: dict[str, File] = {}
        self._executables: set[str] = set()

    def _record(self, file: File, executable: bool = False) -> File:
        self._files[file.path] = file
        if executable:
            self._executables.add(file.path)
        return file

    def _free(self, path: str) -> str:
        check_path(path)
        taken = {existing.lower() for existing in self._files}  # some file systems do not tell case apart
        if path.lower() in taken:
            raise ValueError(f"{path} is written twice")
        return path

    def write(self, path: str, content: str | bytes, *, executable: bool = False) -> File:
        data = content.encode() if isinstance(content, str) else content
        return self._record(File(self._free(path), self._store.add_bytes(data), len(data)), executable)

    def add(self, path: str, source: Path) -> File:
        digest = self._store.add_file(source)
        return self._record(File(self._free(path), digest, source.stat().st_size))

    def take(self, path: str, file: File) -> File:
        return self._record(File(self._free(path), file.digest, file.size))

    def open(self, file: File) -> Path:
        return self._store.open(file)

    def render(self, path: str, template: str, *, executable: bool = False, **values: Json) -> File:
        return self.write(path, self._renderer.render(template, values), executable=executable)

    def manifest(self, kind: str, options: TargetOptions, model: VerifiedModel, plan: BundlePlan) -> Manifest:
        """Everything written so far, listed."""
        version = model.version
        return Manifest(
            kind=kind,
            model=version.name,
            version=version.version,
            model_digest=version.digest,
            precision=model.variant.precision,
            files=tuple(sorted(self._files.values())),
            inputs=version.inputs,
            outputs=version.outputs,
            opset=version.opset,
            ir=version.ir,
            tolerance=model.tolerance,
            check=plan.check,
            graph=plan.graph,
            runtime=plan.runtime,
            options=options.model_dump(mode="json"),
            executables=tuple(sorted(self._executables)),
        )


def renderer_of(target: Target, overrides: Path | None) -> Renderer:
    """A plugin names its own folder of templates in the class attribute ``templates`` (a ``Path``)."""
    return Renderer(target.kind, getattr(target, "templates", None), overrides)


def inputs_digest(target: Target, options: TargetOptions, model: VerifiedModel, templates: Digest) -> Digest:
    """Names all that shapes a bundle. What does not reach it (when it was registered) is left out."""
    version = model.version.to_json()
    shaping = (
        *("name", "version", "digest", "toolchain", "opset", "ir", "operators"),
        *("inputs", "outputs", "golden", "assets"),
    )
    document = {
        "format": FORMAT,
        "kind": target.kind,
        "version": {key: version[key] for key in shaping},
        "variant": [file.to_json() for file in model.variant.files],
        "precision": model.variant.precision,
        "tolerance": model.tolerance.to_json(),
        "options": options.model_dump(mode="json"),
        "templates": str(templates),
        "fingerprint": [str(digest) for digest in target.fingerprint()],
    }
    return Digest.of(json.dumps(document, sort_keys=True).encode())


def build(
    target: Target, options: TargetOptions, model: VerifiedModel, store: Store, overrides: Path | None = None
) -> Manifest:
    """The bundle of ``model`` for ``target``, from the store where it was built before.

    ``options`` are the ones that ``target`` was made with, ``overrides`` the project's folder of templates.
    Raises UnsupportedModelError where the runtime can't run the model or the bundle is too large.
    """
    target.check(model.info)
    renderer = renderer_of(target, overrides)
    inputs = inputs_digest(target, options, model, renderer.digest)
    known = store.built(inputs)
    if known is not None:
        return known
    writer = StoreWriter(store, renderer)
    manifest = writer.manifest(target.kind, options, model, target.build(model, writer))
    check_size(target.kind, f"The bundle of {model.version.ref}", manifest.size, target.limits())
    store.remember_build(inputs, manifest)
    return manifest

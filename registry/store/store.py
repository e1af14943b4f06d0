"""The store's layout, over any ``Objects``.

========================================  =========================================================
``blobs/sha256/ab/<hex>``                 a file's bytes, shared between versions and targets
``bundles/<hex>.json``                    a bundle's manifest, byte for byte its ``bundle.json``
``builds/<hex>.json``                     which bundle came out of which inputs: not built twice
``versions/NAME/<number>.json``           a version's record: promote need not ask MLflow
``versions/NAME/sources/<hex>.json``      which version a source became: not registered twice
``ledger/...``                            see ``shipway.registry.ledger``
========================================  =========================================================

All but the ledger is immutable and can be made again. A version's home is MLflow; its record here is a copy.
"""

from __future__ import annotations

import json
from pathlib import Path

from shipway.registry import files
from shipway.registry.errors import IntegrityError, NotFoundError
from shipway.registry.nouns import Digest, File, ModelVersion
from shipway.registry.store.objects import Objects
from shipway.targets.manifest import Manifest


def _blob(digest: Digest) -> str:
    return f"blobs/{digest.algorithm}/{digest.hex[:2]}/{digest.hex}"


class Store:
    """Files by content, bundles and version records."""

    def __init__(self, objects: Objects) -> None:
        self.objects = objects

    # files by content

    @staticmethod
    def key(digest: Digest) -> str:
        """The key of a file's bytes in ``objects``: for deliveries that copy within one service."""
        return _blob(digest)

    def has(self, digest: Digest) -> bool:
        return self.objects.exists(_blob(digest))

    def is_intact(self, file: File) -> bool:
        """Whether the file's bytes are here and still are what their name says; hashes them."""
        return self.objects.is_intact(_blob(file.digest), file.digest)

    def add_file(self, source: Path, digest: Digest | None = None) -> Digest:
        """Store a file's bytes once; return their digest (computed where the caller does not know it).

        Bytes that are there but were altered are replaced.
        """
        digest = digest or files.digest_of(source)
        if not self.objects.is_intact(_blob(digest), digest):
            self.objects.put_file(_blob(digest), source, digest)
        return digest

    def add_bytes(self, data: bytes) -> Digest:
        """The same of small content."""
        digest = Digest.of(data)
        if not self.objects.is_intact(_blob(digest), digest):
            self.objects.put(_blob(digest), data)
        return digest

    def open(self, file: File) -> Path:
        """A local, read-only path of the file's bytes. Raises NotFoundError where the store lost them."""
        path = self.objects.local(_blob(file.digest))
        if path is None:
            raise NotFoundError(
                f"The store {self.objects.address} does not hold {file.path} ({file.digest.short}).",
                remedy="Was the store cleaned by hand? Register the model again: it puts the files back.",
            )
        return path

    def drop_altered(self, file: File) -> None:
        """Remove a file's bytes if they are not what their name says: then they are written anew when built.

        Bytes that are right are never removed: others may rely on them.
        """
        if not self.is_intact(file):
            self.objects.delete(_blob(file.digest))

    # bundles

    def add_bundle(self, manifest: Manifest) -> None:
        self.objects.put(f"bundles/{manifest.digest.hex}.json", manifest.to_bytes())

    def bundle(self, digest: Digest) -> Manifest:
        """Raises NotFoundError, or IntegrityError where the manifest is not what its name says."""
        raw = self.objects.get(f"bundles/{digest.hex}.json")
        if raw is None:
            raise NotFoundError(
                f"The store {self.objects.address} has no bundle {digest.short}.",
                remedy="Promote the version again: that builds the bundle.",
            )
        if Digest.of(raw) != digest:
            raise IntegrityError(
                f"The manifest of bundle {digest.short} in {self.objects.address} was altered.",
                remedy="Promote the version again: that writes it anew.",
            )
        return Manifest.from_bytes(raw)

    def built(self, inputs: Digest) -> Manifest | None:
        """The bundle that these inputs gave before, if its manifest and all its files are still here."""
        raw = self.objects.get(f"builds/{inputs.hex}.json")
        if raw is None:
            return None
        try:
            manifest = self.bundle(Digest.parse(json.loads(raw)["bundle"]))
        except (NotFoundError, IntegrityError):
            return None
        return manifest if all(self.has(file.digest) for file in manifest.files) else None

    def remember_build(self, inputs: Digest, manifest: Manifest) -> None:
        self.add_bundle(manifest)
        document = json.dumps({"bundle": str(manifest.digest)}).encode()
        self.objects.put(f"builds/{inputs.hex}.json", document)

    # version records

    def put_version(self, version: ModelVersion) -> None:
        """Keep a record; the pointer to it follows, so that a found pointer always leads to a record."""
        record = json.dumps(version.to_json(), sort_keys=True).encode()
        self.objects.put(f"versions/{version.name}/{version.version}.json", record)
        self.remember_source(version.name, version.source, version.version)

    def remember_source(self, name: str, source: Digest, number: int) -> None:
        """Note that a source became a version that exists."""
        pointer = json.dumps({"version": number}).encode()
        self.objects.put(f"versions/{name}/sources/{source.hex}.json", pointer)

    def version(self, name: str, number: int) -> ModelVersion | None:
        raw = self.objects.get(f"versions/{name}/{number}.json")
        return ModelVersion.from_json(json.loads(raw)) if raw is not None else None

    def versions(self, name: str) -> list[ModelVersion]:
        """Every record of one model, oldest first."""
        numbers = []
        for key in self.objects.list(f"versions/{name}/"):
            stem = key.removeprefix(f"versions/{name}/").removesuffix(".json")
            if stem.isdigit():
                numbers.append(int(stem))
        found = (self.version(name, number) for number in sorted(numbers))
        return [version for version in found if version is not None]

    def names(self) -> list[str]:
        """Every model that has a record here."""
        return sorted({key.split("/")[1] for key in self.objects.list("versions/")})

    def find_by_source(self, name: str, source: Digest) -> ModelVersion | None:
        raw = self.objects.get(f"versions/{name}/sources/{source.hex}.json")
        return self.version(name, json.loads(raw)["version"]) if raw is not None else None

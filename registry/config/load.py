"""Read ``deploy.yaml`` into a Project, or say everything that is wrong with it, with keys and lines."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from shipway.registry.config import check, document, inventory
from shipway.registry.config.document import Document, Problem
from shipway.registry.config.explain import explain
from shipway.registry.config.model import DeployConfig, TargetConfig
from shipway.registry.config.project import Project
from shipway.registry.errors import ConfigError, ShipwayError
from shipway.targets.base import TargetOptions
from shipway.targets.loader import load_kind

_REMEDY = "The commented deploy.yaml of 'shipway init' shows each key; 'shipway schema' lists them all."


def load(path: Path, *, lazy: bool = False) -> Project:
    """Read the file at ``path``; raises ConfigError with key paths and lines.

    ``lazy`` leaves each target's options unread until they are needed; without it all are checked now.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(
            f"{path}: there is no such file.",
            remedy="Go to the folder that holds it, name it with --config, or write one with 'shipway init'.",
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path}: can't be read.", why=str(error), remedy="It must be a UTF-8 text file."
        ) from error
    return load_text(text, path.parent, source=str(path), lazy=lazy)


def load_text(text: str, root: Path, *, source: str = "deploy.yaml", lazy: bool = False) -> Project:
    """The same for text; relative paths in it start at ``root``, errors call it ``source``."""
    found = document.read(text)
    problems = list(found.problems)
    data, root = found.data, root.resolve()
    config, hosts = None, inventory.NONE
    if not isinstance(data, dict):
        if not problems:
            problems.append(Problem((), "must be a mapping: 'project: ...' and so on"))
    else:
        data, hosts, wrong = inventory.resolve(data, root, source)
        problems += [*wrong, *check.problems(data, hosts)]
        targets, more = _targets(found, root, source)
        problems += more
        for name in () if lazy else targets:
            problems += _options(name, data["targets"][name], root)[1]
        try:
            config = DeployConfig.model_validate({**data, "targets": targets} if targets else data)
        except ValidationError as error:
            known = {problem.path for problem in problems}
            problems += [more for more in explain(error, DeployConfig, ()) if more.path not in known]
    if problems or config is None:
        raise _error(problems, found, source)
    project = Project(config, root, source, found.lines, hosts)
    if not lazy and project.templates is not None and not project.templates.is_dir():
        # Else the built-in ones would stand in for all, and nobody would notice.
        raise _error([Problem(("templates",), f"there is no folder {config.templates}")], found, source)
    return project


def _targets(found: Document, root: Path, source: str) -> tuple[dict[str, TargetConfig], list[Problem]]:
    """Each target with what parses its options."""
    raw = found.data.get("targets")
    targets: dict[str, TargetConfig] = {}
    problems: list[Problem] = []
    for name, body in (raw if isinstance(raw, dict) else {}).items():
        if isinstance(body, dict) and isinstance(body.get("kind"), str):
            targets[name] = TargetConfig(body["kind"], partial(_parse, found, name, body, root, source))
        else:
            message = "must be a mapping with a 'kind', as in {kind: browser-wasm}"
            problems.append(Problem(("targets", name), message))
    return targets, problems


def _options(name: str, body: dict[str, Any], root: Path) -> tuple[TargetOptions | None, list[Problem]]:
    """A target's options by its kind's own class, which is told ``root``; or what is wrong with them."""
    path = ("targets", name)
    try:
        kind = load_kind(body["kind"])
    except ShipwayError as error:
        return None, [Problem((*path, "kind"), " ".join(filter(None, (error.what, error.why))))]
    given = {key: value for key, value in body.items() if key != "kind"}
    try:
        return kind.options.model_validate(given, context={"root": root}), []
    except ValidationError as error:
        return None, explain(error, kind.options, path)


def _parse(found: Document, name: str, body: dict[str, Any], root: Path, source: str) -> TargetOptions:
    options, problems = _options(name, body, root)
    if options is None:
        raise _error(problems, found, source)
    return options


def _error(problems: Iterable[Problem], found: Document, source: str) -> ConfigError:
    """One ConfigError for all problems, each once, in the order of the file."""
    placed = set()
    for problem in problems:
        line = problem.line or (found.line(problem.path) if problem.source is None else None) or 0
        placed.add((problem.source or "", line, str(problem)))
    texts = [
        f"{where or source}:{line}: {text}" if line else f"{where or source}: {text}"
        for where, line, text in sorted(placed)
    ]
    if len(texts) == 1:
        return ConfigError(texts[0], remedy=_REMEDY)
    return ConfigError(f"{source} has {len(texts)} errors.", why="\n".join(texts), remedy=_REMEDY)

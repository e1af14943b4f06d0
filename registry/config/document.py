"""YAML to plain data, with the line of every key. Knows nothing of what the keys mean.

Refused on purpose: duplicate keys (YAML would let the last one win silently), keys that are not text, and
anchors (what one place says should not depend on another; write it out).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

Path = tuple[str | int, ...]
"""Where in the document: keys and list positions from the top."""

_Loader: type[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the C one is several times as fast


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong: where, and what."""

    path: Path
    message: str
    line: int | None = None  # where the path alone does not tell the line
    source: str | None = None  # where it is another file than the one that is read

    def __str__(self) -> str:
        return f"{dotted(self.path)}: {self.message}" if self.path else self.message


@dataclass(frozen=True, slots=True)
class Document:
    """Plain data, the line (from 1) of each key, and what is wrong with it already."""

    data: Any
    lines: Mapping[Path, int]
    problems: tuple[Problem, ...]

    def line(self, path: Path) -> int | None:
        """The line of ``path``, or of the nearest thing around it that is in the document."""
        for end in range(len(path), -1, -1):
            if path[:end] in self.lines:
                return self.lines[path[:end]]
        return None


def dotted(path: Path) -> str:
    """``targets.mobile.precision``, ``environments.prod.jetson.waves[1]``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def read(text: str) -> Document:
    """Read YAML. Never raises: ``problems`` says what is wrong; ``data`` is None where nothing is usable."""
    try:
        node = yaml.compose(text, Loader=_Loader)
    except yaml.YAMLError as error:
        return Document(None, {}, (_syntax_problem(error),))
    if node is None:
        return Document(None, {}, (Problem((), "the file is empty"),))
    reader = _Reader()
    data = reader.value(node, ())
    return Document(data, reader.lines, tuple(reader.problems))


def _syntax_problem(error: yaml.YAMLError) -> Problem:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    message = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
    if "\\t" in message or "'\t'" in message or "cannot start any token" in message:
        message += " (YAML is indented with spaces; tabs, '@' and '`' can't start a value)"
    return Problem((), f"not YAML: {message}", mark.line + 1 if mark is not None else None)


class _Reader:
    """Walks composed nodes; collects lines and problems on the way."""

    def __init__(self) -> None:
        self.lines: dict[Path, int] = {}
        self.problems: list[Problem] = []
        self._seen: set[int] = set()
        self._scalars = yaml.SafeLoader("")

    def value(self, node: yaml.Node, path: Path) -> Any:
        line = self.lines.setdefault(path, node.start_mark.line + 1)
        if id(node) in self._seen:  # an alias is the very node that its anchor named
            self.problems.append(Problem(path, "anchors and aliases are not supported; write it out", line))
            return None
        self._seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            return dict(self._items(node, path))
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, (*path, index)) for index, item in enumerate(node.value)]
        try:
            return self._scalars.construct_object(node)
        except (yaml.YAMLError, ValueError) as error:
            reason = getattr(error, "problem", None) or error
            self.problems.append(Problem(path, f"can't be read: {reason}", line))
            return None

    def _items(self, node: yaml.MappingNode, path: Path) -> Iterator[tuple[str, Any]]:
        found: dict[str, int] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            key = key_node.value
            place = (*path, key)
            if key_node.tag == "tag:yaml.org,2002:merge":
                self.problems.append(Problem(path, "'<<' is not supported; write it out", line))
            elif not isinstance(key_node, yaml.ScalarNode) or key_node.tag != "tag:yaml.org,2002:str":
                shown = key if isinstance(key, str) else "..."
                self.problems.append(Problem(path, f"the key {shown} must be text; put it in quotes", line))
            elif key in found:
                where = f"stands here twice (first in line {found[key]})"
                self.problems.append(Problem(place, where, line))
            else:
                found[key] = self.lines[place] = line
                yield key, self.value(value_node, place)

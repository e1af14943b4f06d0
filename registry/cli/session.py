"""What the global options decide, for one run of the command line."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from shipway.registry.cli import output
from shipway.registry.nouns import Json
from shipway.registry.observe import Confirm, Observer

if TYPE_CHECKING:
    from shipway.registry.config.project import Project


@dataclass
class Session:
    """``json``: one document on stdout and nothing else there. ``quiet``: no progress and no notes."""

    config: Path
    json: bool = False
    quiet: bool = False

    @classmethod
    def of(cls, context: typer.Context) -> Session:
        found = context.find_object(cls)
        if found is None:
            raise RuntimeError("the command line's callback makes the session")
        return found

    @cached_property
    def project(self) -> Project:
        """``deploy.yaml``, read when a command needs it and checked whole. Raises ConfigError."""
        return self._load(lazy=False)

    @cached_property
    def placed(self) -> Project:
        """The same for commands that package nothing: the targets' options are left unread."""
        return self._load(lazy=True)

    def _load(self, *, lazy: bool) -> Project:
        with _without_plugins():
            from shipway.registry.config.load import load

            return load(self.config, lazy=lazy)

    def observing(self) -> AbstractContextManager[Observer]:
        from shipway.registry.cli.progress import observing

        return observing(quiet=self.quiet)

    def asking(self, observer: Observer, *, yes: bool) -> Confirm | None:
        from shipway.registry.cli.progress import asking

        return asking(observer, yes=yes)

    def emit(self, document: Callable[[], Json], blocks: Callable[[], Iterable[output.Block]]) -> None:
        """Print the result: the document for programs or the blocks for people, whichever is wanted."""
        if self.json:
            output.print_json(document())
        else:
            output.print_blocks(blocks())


@contextmanager
def _without_plugins() -> Iterator[None]:
    """Keep pydantic from reading the metadata of every installed package to find plugins for its models."""
    before = os.environ.get("PYDANTIC_DISABLE_PLUGINS")
    os.environ["PYDANTIC_DISABLE_PLUGINS"] = "__all__"
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYDANTIC_DISABLE_PLUGINS"]
        else:
            os.environ["PYDANTIC_DISABLE_PLUGINS"] = before

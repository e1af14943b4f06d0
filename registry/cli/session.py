"""What the global options decide, for one run of the command line."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import typer

from shipway.registry.cli import output
from shipway.registry.nouns import Json
from shipway.registry.observe import Confirm, Observer

if TYPE_CHECKING:
    from shipway.registry.config.project import Project


reading = ExitStack()  # what holds while the command line is read, and not while the command does its work


def begin() -> ExitStack:
    """Have the command line read without pydantic's plugins: typer has pydantic look at every option."""
    reading.enter_context(_without_plugins())
    return reading


@dataclass
class Session:
    """``json``: one document on stdout and nothing else there. ``quiet``: no progress and no notes."""

    config: Path
    json: bool = False
    quiet: bool = False

    @classmethod
    def of(cls, context: typer.Context) -> Session:
        """The session of the command that begins now: the command line has been read."""
        reading.close()
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
def _metadata_later() -> Iterator[None]:
    """Have ``importlib.metadata`` imported when something of it is used, not where it is named."""
    name = "importlib.metadata"
    if name in sys.modules:
        yield
        return
    stand_in = ModuleType(name)

    def real() -> ModuleType:
        if sys.modules.get(name) is stand_in:
            del sys.modules[name]
        return importlib.import_module(name)

    def entry_points(**chosen: str) -> object:
        return real().entry_points(**chosen)

    def other(used: str) -> object:
        if used.startswith("__"):  # of the import system, which looks for a package
            raise AttributeError(used)
        return getattr(real(), used)

    stand_in.__dict__.update(entry_points=entry_points, __getattr__=other)
    sys.modules[name] = stand_in
    importlib.metadata = stand_in  # what who imports it by that name meanwhile goes on to use
    try:
        yield
    finally:
        if sys.modules.get(name) is stand_in:
            del sys.modules[name]


@contextmanager
def _without_plugins() -> Iterator[None]:
    """Keep pydantic from reading the metadata of every installed package to find plugins for its models.

    What it would read them with takes a twentieth of ``status`` to import, so that is put off as well.
    """
    before = os.environ.get("PYDANTIC_DISABLE_PLUGINS")
    os.environ["PYDANTIC_DISABLE_PLUGINS"] = "__all__"
    try:
        with _metadata_later():
            yield
    finally:
        if before is None:
            del os.environ["PYDANTIC_DISABLE_PLUGINS"]
        else:
            os.environ["PYDANTIC_DISABLE_PLUGINS"] = before

"""The way in: ``main`` runs one command and turns what happened into an exit code.

Exit codes are in ``failures.py``; the commands are in ``commands.py``.
"""

from __future__ import annotations

import gc
import signal
import sys
from collections.abc import Sequence
from typing import Any

import typer

from shipway.registry import interrupts
from shipway.registry.cli import failures, output
from shipway.registry.cli.commands import app
from shipway.registry.cli.session import begin
from shipway.registry.errors import ShipwayError, UsageError

_FLAGS = {"--json", "--quiet", "-q"}
_VALUES = {"--config", "-c"}
_click: Any = sys.modules[typer.BadParameter.__module__]  # newer typer brings a click of its own


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code. Nothing but results goes to stdout."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            # a terminal without UTF-8 must not end a deployment
            stream.reconfigure(errors="backslashreplace")
    if arguments is None:  # a process of our own: what it imports stays, to look there for garbage is waste
        gc.set_threshold(1_000_000, 20, 20)
        interrupts.install()
    given = hoist(sys.argv[1:] if arguments is None else arguments)
    as_json = "--json" in given[: given.index("--")] if "--" in given else "--json" in given
    try:
        return _run(given, as_json=as_json)
    except BrokenPipeError:  # the reader went away (shipway history | head)
        output.leave_stdout()
        return failures.BROKEN_PIPE
    except output.UnwrittenError as error:
        sys.stderr.write(
            f"Error: The result can't be written to stdout: {error}.\n"
            "  What the command did stands; 'shipway status' and 'shipway versions' show it.\n"
        )
        return failures.UNWRITTEN
    finally:
        if arguments is None:
            gc.freeze()  # nor is there a use in looking for it at the end: all of the memory goes back


def hoist(arguments: Sequence[str]) -> list[str]:
    """Move the global options to the front, so that they may stand after the command as well.

    What follows ``--`` is left alone.
    """
    front: list[str] = []
    rest: list[str] = []
    words = iter(arguments)
    for word in words:
        if word == "--":
            rest += [word, *words]
        elif word in _FLAGS or (word.partition("=")[0] in _VALUES and "=" in word):
            front.append(word)
        elif word in _VALUES:
            front += [word, *[value for value in [next(words, None)] if value is not None]]
        else:
            rest.append(word)
    return front + rest


def _run(arguments: list[str], *, as_json: bool) -> int:
    try:
        with begin():
            code = app(arguments, prog_name="shipway", standalone_mode=False)
    except ShipwayError as error:
        return failures.report(error, as_json=as_json)
    except _click.ClickException as error:
        return _usage(error, as_json=as_json)
    except (typer.Abort, KeyboardInterrupt):
        return _interrupted(as_json=as_json)
    except (BrokenPipeError, output.UnwrittenError):
        raise
    except SystemExit as error:  # that is how typer leaves when the reader went away
        if isinstance(error.__context__, BrokenPipeError):
            raise error.__context__ from None
        raise
    except Exception as error:
        if interrupts.caught():  # a library made an error of its own of it
            return _interrupted(as_json=as_json)
        sys.excepthook(type(error), error, error.__traceback__)
        if as_json:
            output.print_json(failures.document(error))
        return failures.BUG.exit
    if code == failures.INTERRUPTED.exit:  # that is how newer typer answers Ctrl-C
        return _interrupted(as_json=as_json)
    return code if isinstance(code, int) else 0


def _usage(error: Any, *, as_json: bool) -> int:
    if type(error).__name__ == "NoArgsIsHelpError" and not as_json:
        sys.stderr.write(error.format_message() + "\n")
        return failures.FAMILIES[UsageError].exit
    context = getattr(error, "ctx", None)
    usage = context.get_usage() if context is not None else ""
    remedy = f"Try '{context.command_path} --help'." if context is not None else "Try 'shipway --help'."
    what = error.format_message() if type(error).__name__ != "NoArgsIsHelpError" else "No command was given."
    return failures.report(UsageError(what, why=usage, remedy=remedy), as_json=as_json)


def _interrupted(*, as_json: bool) -> int:
    ended = interrupts.caught() == signal.SIGTERM
    kind, code = failures.TERMINATED if ended else failures.INTERRUPTED
    what = "Interrupted."
    remedy = "Run the same command again: it finishes or undoes what was begun."
    if as_json:
        output.print_json({"error": {"kind": kind, "exit": code, "what": what, "why": "", "remedy": remedy}})
    sys.stderr.write(f"\n{what}\n  {remedy}\n")
    return code

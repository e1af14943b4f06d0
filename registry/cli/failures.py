"""Errors to exit codes, and to words. The one table of both."""

from __future__ import annotations

import contextlib
import sys
from typing import NamedTuple

from shipway.registry import errors
from shipway.registry.cli import output
from shipway.registry.nouns import Json


class Family(NamedTuple):
    """What ``--json`` calls a family of errors, and how the process ends."""

    kind: str
    exit: int


FAMILIES: dict[type[errors.ShipwayError], Family] = {
    errors.UsageError: Family("usage", 2),
    errors.ConfigError: Family("config", 3),
    errors.ConversionError: Family("conversion", 4),
    errors.VerificationError: Family("verification", 5),
    errors.NotFoundError: Family("not-found", 6),
    errors.ConflictError: Family("conflict", 7),
    errors.DeliveryError: Family("delivery", 8),
    errors.IntegrityError: Family("integrity", 9),
}
BUG = Family("bug", 1)
INTERRUPTED = Family("interrupted", 130)
TERMINATED = Family("interrupted", 143)  # 128 + SIGTERM, as with Ctrl-C
UNWRITTEN = 74  # EX_IOERR of sysexits.h
BROKEN_PIPE = 141  # 128 + SIGPIPE, as the shell reports a program that died of it


def family(error: BaseException) -> Family:
    """The family of ``error``; what is none of ours is a bug."""
    return next((FAMILIES[base] for base in type(error).__mro__ if base in FAMILIES), BUG)


def document(error: BaseException) -> Json:
    """The one JSON document of a failed command."""
    found = family(error)
    what, why, remedy = (
        (error.what, error.why, error.remedy)
        if isinstance(error, errors.ShipwayError)
        else (
            f"{type(error).__name__}: {error}",
            "This is a bug in shipway.",
            "Report it with the traceback.",
        )
    )
    return {
        "error": {"kind": found.kind, "exit": found.exit, "what": what, "why": why, "remedy": remedy},
    }


def report(error: errors.ShipwayError, *, as_json: bool) -> int:
    """Say what failed, why and what to do; return the exit code."""
    if as_json:
        with contextlib.suppress(output.UnwrittenError):  # the exit code and the words tell it, too
            output.print_json(document(error))
    red, bold, plain = ("\x1b[31;1m", "\x1b[1m", "\x1b[0m") if output.colours(sys.stderr) else ("", "", "")
    what, why, remedy = (output.harmless(t, lines=True) for t in (error.what, error.why, error.remedy))
    lines = [f"{red}Error:{plain} {bold}{what}{plain}"]
    lines += [f"  {line}" for line in why.splitlines()]
    lines += [f"  {line}" for line in remedy.splitlines()]
    sys.stderr.write("\n".join(lines) + "\n")
    return family(error).exit

"""Repairs: known defects mended in a copy of the program before conversion, operators rebuilt after it.

How a converter uses them::

    mended = repairs.mend(source.model, source.params, folder)    # writes programs in folder, or nothing
    for piece in mended.pieces:                                   # one, where nothing was cut out
        convert(piece.model, piece.params, piece.out)
    applied = repairs.finish(mended, out)                         # one ONNX file at out

The expected numbers come from ``mended.reference``: an older Paddle can't read what a newer one wrote, and
a copy in the older form gives the same numbers to the bit. Only Paddle 3's ``.json`` is mended; a
``.pdmodel`` is brought into that form first (``convert/translate.py``).
"""

from __future__ import annotations

import json
import traceback
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from shipway.registry.convert.repairs import cut, cuts, pir
from shipway.registry.convert.repairs.pir_doubles import DOUBLES
from shipway.registry.convert.repairs.pir_indices import INDEXING
from shipway.registry.convert.repairs.pir_layout import CHANNELS_LAST
from shipway.registry.convert.repairs.pir_loops import GROWING
from shipway.registry.convert.repairs.pir_rewrites import REWRITES
from shipway.registry.convert.repairs.rules import Applied, Program, Rule
from shipway.registry.errors import ConversionError

__all__ = ["RULES", "Applied", "Mended", "Piece", "Rule", "finish", "mend", "mend_program"]

RULES: tuple[Rule, ...] = (*DOUBLES, *REWRITES, *INDEXING, GROWING, CHANNELS_LAST)


@dataclass(frozen=True, slots=True)
class Piece:
    """A program to convert, with its parameters, to the ONNX file ``out``."""

    model: Path
    params: Path | None
    out: Path


@dataclass(frozen=True, slots=True)
class Mended:
    """What ``mend`` made: pieces to convert, and what ``finish`` needs to make one model of them.

    ``reference`` is the program to run for the expected numbers.
    """

    reference: Path
    pieces: tuple[Piece, ...]
    parts: tuple[cut.Part, ...]
    applied: tuple[Applied, ...]


def mend_program(program: Program, rules: Sequence[Rule] = RULES) -> tuple[Program, list[Applied]]:
    """Apply every rule that applies, each to the result of those before it. Pure."""
    applied = []
    for rule in rules:
        count = rule.places(program)
        if count:
            program = rule.apply(program)
            applied.append(Applied(rule.name, count, rule.reference))
    return program, applied


def _cut(program: Program) -> tuple[tuple[cut.Part, ...], list[Applied]]:
    """Divide a program at the operators that no converter maps, or leave it whole."""
    found = cut.to_cut(program, lambda op, types: cuts.find(op, types) is not None)
    if not found:
        return (), []
    parts = cut.divide(program, lambda op, types: cuts.find(op, types) is not None)
    lines = {line.kind: line for line in cuts.CUTS}
    counts = Counter((lines[pir.kind(op)].name, lines[pir.kind(op)].reference) for op in found)
    return parts, [Applied(name, many, reference) for (name, reference), many in counts.items()]


def mend(model: Path, params: Path | None, folder: Path) -> Mended:
    """Mend ``model`` (a Paddle 3 ``.json``) into copies in ``folder``; the given files stay as they are.

    A program of a form that is not known is left as it is: the converter says what is wrong with it. Raises
    ConversionError where a repair stumbles over the program, so that it is told.
    """
    untouched = Mended(model, (Piece(model, params, folder / "main.onnx"),), (), ())
    if model.suffix != ".json":
        return untouched
    try:
        given = json.loads(model.read_bytes())
        pir.main_block(given)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError):
        return untouched
    try:
        readable, applied = mend_program(given, DOUBLES)
        program, rewritten = mend_program(readable, RULES[len(DOUBLES) :])
        parts, cut_out = _cut(program)
    except pir.UnknownFormError:
        return untouched
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        raise ConversionError(
            "The repairs stumbled over the program; it is converted as it is.",
            why=f"{type(error).__name__}: {error} ({Path(last.filename).name}, line {last.lineno}).",
            remedy="Report this with the model.",
        ) from error
    reference = _write(readable, folder / "reference.json") if applied else model
    applied += [*rewritten, *cut_out]
    if not applied:
        return untouched
    whole = (cut.Part(cut.MAIN, program, ()),)
    pieces = tuple(
        Piece(_write(part.program, folder / f"{part.name}.json"), params, folder / f"{part.name}.onnx")
        for part in parts or whole
    )
    return Mended(reference, pieces, parts, tuple(applied))


def _write(program: Program, path: Path) -> Path:
    path.write_text(json.dumps(program), encoding="utf-8")
    return path


def finish(mended: Mended, out: Path) -> tuple[Applied, ...]:
    """Make one ONNX file at ``out`` of the converted pieces, and return the repairs that are in it.

    Raises ValueError where a piece was converted to something that does not fit.
    """
    if not mended.parts:
        mended.pieces[0].out.replace(out)
        return mended.applied
    import onnx

    from shipway.registry.convert.repairs.stitch import stitch

    models = {
        part.name: onnx.load(str(piece.out)) for part, piece in zip(mended.parts, mended.pieces, strict=True)
    }
    onnx.save(stitch(mended.parts, models, cuts.EMITS), str(out))
    return mended.applied

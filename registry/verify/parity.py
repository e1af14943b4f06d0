"""The verdict on two sets of numbers. Pure.

An output passes where ``max_abs <= atol + rtol * scale`` over all golden cases, scale being the largest
magnitude of the reference. NaN or infinity on either side never passes, nor does another shape or sort of
dtype.

That an output passes tells something only where it is far nearer than a constant could be: that one is out by
half of what lies between the smallest and the largest element (the spread). Otherwise the output is flat.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from shipway.registry.nouns import ERROR_EDGES, NARROW, Link, OutputMeasure, Tolerance

Array = NDArray[np.generic]
Outputs = Sequence[Array]
"""A run's outputs, in the graph's order."""

_TOLD = 0.01  # of its spread: an output that is further out than this tells little
TOLD_NARROW = 0.5  # the same of fp16 and int8, which are further out by nature
_ROUNDING = 1e-6  # of the scale: what float32 makes of a constant varies by no more
_CLASSES = 3  # fewest scores in a row for which 'the class that wins' means something


def compare(
    source: str,
    target: str,
    names: Sequence[str],
    reference: Sequence[Outputs],
    candidate: Sequence[Outputs],
    tolerance: Tolerance,
    notes: Sequence[str] = (),
) -> Link:
    """The link from ``source`` to ``target``: per output, over all cases. Cases and outputs must pair up."""
    measures = []
    said = list(notes)
    passed = bool(reference)
    for position, name in enumerate(names):
        pairs = [(r[position], c[position]) for r, c in zip(reference, candidate, strict=True)]
        measure, why = measure_output(name, pairs, tolerance, share_of(target, tolerance))
        measures.append(measure)
        if why:
            said.append(f"{name}: {why}")
        passed = passed and tolerance.allows(measure.max_abs, measure.scale)
        if differ := _whole_that_differ(pairs, measure):
            said.append(f"{name}: whole numbers, {differ} differ: what that means, the tolerance can't tell")
        if measure.flat and not why:
            varies = f"varies by {2 * spread_of([r for r, _ in pairs]):.2g}, is out by {measure.max_abs:.2g}"
            said.append(f"{name}: so flat ({varies}) that its agreement proves little")
    return Link(source, target, passed, tuple(measures), tolerance, tuple(said))


def _whole_that_differ(pairs: Sequence[tuple[Array, Array]], measure: OutputMeasure) -> str:
    """How many of an output's integers are others, in words; of ids and places, near is not right."""
    whole = any(reference.dtype.kind in "iu" for reference, _ in pairs)
    total, same = sum(measure.histogram), measure.histogram[:1]
    return f"{total - same[0]} of {total}" if whole and same and same[0] < total else ""


def share_of(target: str, tolerance: Tolerance) -> float:
    """By how much of its spread an output of the link to ``target`` may be out and still tell something.

    Where the tolerance leaves a wider share of the scale, the share is wider as well.
    """
    if target in NARROW:
        return TOLD_NARROW
    return min(TOLD_NARROW, max(_TOLD, 5 * tolerance.rtol))


def measure_output(
    name: str, pairs: Sequence[tuple[Array, Array]], tolerance: Tolerance, share: float = TOLD_NARROW
) -> tuple[OutputMeasure, str]:
    """One output over all cases of (reference, candidate), and why it can't pass whatever the tolerance.

    Where it can't (another shape, NaN), ``max_abs`` is infinite. It is flat where it is further out than this
    ``share`` of its spread.
    """
    why = next(filter(None, (_incomparable(r, c) for r, c in pairs)), "")
    references = [np.asarray(r, dtype=np.float64) for r, _ in pairs if r.size]
    finite = [r[np.isfinite(r)] for r in references]
    scale = max((float(np.abs(r).max()) for r in finite if r.size), default=0.0)
    if why:
        return OutputMeasure(name, math.inf, math.inf, 0.0, scale), why
    max_abs, hits, rows = 0.0, 0, 0
    allowed = tolerance.bound(scale)
    histogram = np.zeros(len(ERROR_EDGES) + 2, np.int64)
    for reference, candidate in pairs:
        if reference.size == 0:
            continue
        r, c = reference.astype(np.float64), candidate.astype(np.float64)
        error = np.abs(r - c)
        max_abs = max(max_abs, float(error.max()))
        histogram += _counts(error, allowed)
        if _is_classifier(reference):
            hits += int((r.argmax(-1) == c.argmax(-1)).sum())
            rows += r.size // r.shape[-1]
    return (
        OutputMeasure(
            name=name,
            max_abs=max_abs,
            max_rel=max_abs / scale if scale else (0.0 if max_abs == 0 else math.inf),
            cosine=cosine_similarity([r for r, _ in pairs], [c for _, c in pairs]),
            scale=scale,
            top1=hits / rows if rows else None,
            flat=max_abs <= allowed and (not varies(references) or max_abs > share * spread_of(references)),
            histogram=tuple(int(count) for count in histogram),
        ),
        "",
    )


def _counts(error: NDArray[np.float64], allowed: float) -> NDArray[np.int64]:
    """How many elements are exact, then how many lie up to each of ``ERROR_EDGES``, then the rest."""
    bounds = [0.0, *(edge * allowed for edge in ERROR_EDGES)]
    upto = [int((error <= bound).sum()) for bound in bounds]
    return np.diff([0, *upto, error.size])


def excess(output: OutputMeasure, tolerance: Tolerance) -> float:
    """``max_abs`` over what is allowed: at most 1.0 passes."""
    allowed = tolerance.bound(output.scale)
    if allowed == 0:
        return 0.0 if output.max_abs == 0 else math.inf
    return output.max_abs / allowed


def spread_of(references: Sequence[Array]) -> float:
    """How far the nearest constant is out: half of what lies between the smallest and the largest element."""
    filled = [r for r in references if r.size]
    if not filled:
        return 0.0
    return (max(float(r.max()) for r in filled) - min(float(r.min()) for r in filled)) / 2


def varies(references: Sequence[Array]) -> bool:
    """Whether an output is more than one value and what rounding makes of it."""
    scale = max((float(np.abs(r).max()) for r in references if r.size), default=0.0)
    return spread_of(references) > _ROUNDING * scale


def cosine_similarity(a: Sequence[Array], b: Sequence[Array]) -> float:
    """Of two lists of arrays, each taken as one vector; 1.0 where both are zero, 0.0 where one is."""
    x, y = (np.concatenate([np.zeros(0), *(part.astype(np.float64).ravel() for part in s)]) for s in (a, b))
    largest = max(float(np.abs(x).max(initial=0)), float(np.abs(y).max(initial=0)))
    if largest == 0:
        return 1.0
    x, y = x / largest, y / largest  # so that squares neither overflow nor vanish
    norms = float(np.linalg.norm(x)) * float(np.linalg.norm(y))
    return max(-1.0, min(1.0, float(x @ y) / norms)) if norms else 0.0


def _incomparable(reference: Array, candidate: Array) -> str:
    if reference.shape != candidate.shape:
        return f"shape {list(candidate.shape)} instead of {list(reference.shape)}"
    if (reference.dtype.kind == "f") != (candidate.dtype.kind == "f"):
        return f"{candidate.dtype} instead of {reference.dtype}"
    if not np.isfinite(reference.astype(np.float64)).all():
        return "the reference itself holds NaN or infinity on the golden inputs"
    if not np.isfinite(candidate.astype(np.float64)).all():
        return "NaN or infinity"
    return ""


def _is_classifier(output: Array) -> bool:
    return output.dtype.kind == "f" and output.ndim in (2, 3) and output.shape[-1] >= _CLASSES


def table(links: Sequence[Link]) -> str:
    """Links as lines of text for an error message: each output's error, scale and verdict."""
    rows = [("link", "output", "max_abs", "allowed", "scale", "cosine", "")]
    for link in links:
        for output in link.outputs:
            allowed = link.tolerance.bound(output.scale)
            passed = link.tolerance.allows(output.max_abs, output.scale)
            good = "ok" if not output.flat else "flat"
            rows.append(
                (
                    f"{link.source} -> {link.target}",
                    output.name,
                    f"{output.max_abs:.3g}",
                    f"{allowed:.3g}",
                    f"{output.scale:.3g}",
                    f"{output.cosine:.6f}",
                    good if passed else "WRONG",
                )
            )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return "\n".join(line.rstrip() for line in lines)

"""A version as one page to look at or to hand on: the chain of proof, errors, latency. It needs no script."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path

from shipway.registry import files
from shipway.registry.errors import UsageError
from shipway.registry.nouns import ERROR_EDGES, Link, ModelVersion, OutputMeasure
from shipway.registry.units import format_size

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem }
body { background: #fff; color: #1c2430 }
h1 { font-size: 1.5rem } h2 { font-size: 1.1rem; margin-top: 2rem }
.wide { overflow-x: auto } code { overflow-wrap: anywhere }
table { border-collapse: collapse; width: 100% }
th, td { padding: .3rem .6rem; text-align: left; white-space: nowrap }
th { border-bottom: 2px solid #c6ccd6 }
td { border-bottom: 1px solid #e4e8ee; font-variant-numeric: tabular-nums }
.passed { color: #17703a } .failed { color: #b3261e } .note { color: #5b6472 }
figure { display: inline-block; margin: 0 2rem 1rem 0; max-width: 100% } figcaption { font-size: .85rem }
svg { max-width: 100%; height: auto }
svg text { font: 10px system-ui, sans-serif; fill: #5b6472 }
@media (prefers-color-scheme: dark) {
  body { background: #14181f; color: #dfe4ec } td { border-color: #2a313c } .passed { color: #62c98a }
  .failed { color: #ff8a80 } .note { color: #9aa5b4 } svg text { fill: #9aa5b4 }
}
"""
_CPU = "CPUExecutionProvider"
_PREFERRED = ("TensorrtExecutionProvider", "CUDAExecutionProvider")  # what targets with a GPU run on
_BINS = (
    "0",
    *(f"{edge:g}" if edge > 0.005 else f"{edge:.0e}".replace("e-0", "e-") for edge in ERROR_EDGES),
    "more",
)


def write_report(version: ModelVersion, path: Path) -> None:
    """Write the page to ``path``, replaced in one step. Raises UsageError where it can't be written."""
    try:
        files.write_atomic(path, page(version).encode())
    except OSError as error:
        raise UsageError(
            f"The report can't be written to {path}.",
            why=f"{error.strerror or error}",
            remedy="Give --report a file in a folder that you may write to.",
        ) from error


def page(version: ModelVersion) -> str:
    """The page as HTML. Pure, and the same for the same version."""
    body = "\n".join(_body(version))
    title = escape(str(version.ref))
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>{title}</title>\n'
        f"<style>{_STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def _body(version: ModelVersion) -> Iterator[str]:
    links = version.chain
    yield f"<h1>{escape(str(version.ref))}</h1>"
    yield f"<p>{escape(version.toolchain)}, opset {version.opset}<br><code>{version.digest}</code></p>"
    yield "<h2>Chain</h2>"
    yield _table(
        ("link", "output", "max abs", "allowed", "scale", "cosine", "top-1", "verdict"),
        [_row(link, output) for link in links for output in link.outputs],
    )
    yield from _notes(version, links)
    yield "<h2>Errors</h2>"
    yield (
        '<p class="note">Elements by the size of their error, in units of what is allowed: up to 1 passes. '
        "Heights are logarithmic.</p>"
    )
    yield from (_histogram(link, output) for link in links for output in link.outputs if output.histogram)
    yield from _latency(version)
    sizes = [(v.precision, file.path, format_size(file.size)) for v in version.variants for file in v.files]
    yield "<h2>Files</h2>"
    yield _table(("precision", "file", "size"), [tuple(map(escape, row)) for row in sizes])


def _row(link: Link, output: OutputMeasure) -> tuple[str, ...]:
    allowed = link.tolerance.bound(output.scale)
    verdict = "passed" if link.passed or output.max_abs <= allowed else "failed"
    said = "flat: proves little" if output.flat and verdict == "passed" else verdict
    return (
        escape(f"{link.source} \u2192 {link.target}"),
        escape(output.name),
        f"{output.max_abs:.2g}",
        f"{allowed:.2g}",
        f"{output.scale:.3g}",
        f"{output.cosine:.6f}",
        "" if output.top1 is None else f"{output.top1:.1%}",
        f'<span class="{verdict}">{said}</span>',
    )


def _notes(version: ModelVersion, links: Sequence[Link]) -> Iterator[str]:
    said = [
        f"repaired {r['rule']} ({r['count']}): {r['reference']}" for r in version.extra.get("repairs", ())
    ]
    said += [f"tried {t['toolchain']}: {t['why']}" for t in version.extra.get("tried", ())]
    said += [*version.extra.get("notes", ()), *(f"{link.target}: {n}" for link in links for n in link.notes)]
    if said:
        yield f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in said)}</ul>"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    titles = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    lines = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>\n" for row in rows)
    head_and_body = f"<thead><tr>{titles}</tr></thead>\n<tbody>{lines}</tbody>"
    return f'<div class="wide"><table>{head_and_body}</table></div>'


def _histogram(link: Link, output: OutputMeasure) -> str:
    """Columns as high as the number of digits of their count, so that one wrong element is seen."""
    bars = []
    for index, (count, name) in enumerate(zip(output.histogram, _BINS, strict=True)):
        height = 14 * len(str(count)) if count else 0
        colour = "#b3261e" if index >= len(_BINS) - 2 else "#3b6fb6"
        left = 34 * index
        bars.append(
            f'<rect x="{left + 3}" y="{120 - height}" width="28" height="{height}" fill="{colour}">'
            f"<title>{count}</title></rect>"
            f'<text x="{left + 17}" y="134" text-anchor="middle">{name}</text>'
        )
    caption = escape(f"{link.source} \u2192 {link.target}: {output.name}")
    size = f'viewBox="0 0 {34 * len(_BINS)} 140" width="{34 * len(_BINS)}" height="140"'
    drawing = f'<svg {size} role="img" aria-label="{caption}">{"".join(bars)}</svg>'
    return f"<figure>{drawing}<figcaption>{caption}</figcaption></figure>"


def _latency(version: ModelVersion) -> Iterator[str]:
    """By provider: those that were measured, and those that targets prefer and this machine lacked."""
    measured = version.extra.get("latency_by_provider") or {_CPU: version.extra.get("latency_ms", {})}
    if not any(measured.values()):
        return
    yield "<h2>Latency</h2>"
    yield (
        '<p class="note">Median of a run on the golden case that travels, one CPU thread, where it was '
        "registered. What a destination needs, its gate measures there.</p>"
    )
    for provider, times in measured.items():
        if times:
            caption = f"{escape(provider)}, by precision"
            yield f"<figure>{_bars(times)}<figcaption>{caption}</figcaption></figure>"
    absent = [name for name in _PREFERRED if not measured.get(name)]
    if absent:
        yield f'<p class="note">Not measured, absent there: {escape(", ".join(absent))}.</p>'


def _bars(latency: Mapping[str, float]) -> str:
    longest = max(latency.values())
    lines = []
    for index, (name, milliseconds) in enumerate(latency.items()):
        top, width = 24 * index, 300 * milliseconds / longest if longest else 0
        lines.append(
            f'<text x="0" y="{top + 15}">{escape(name)}</text>'
            f'<rect x="50" y="{top + 3}" width="{width:.1f}" height="16" fill="#3b6fb6"/>'
            f'<text x="{width + 56:.1f}" y="{top + 15}">{milliseconds:.2f} ms</text>'
        )
    height = 24 * len(latency)
    return (
        f'<svg viewBox="0 0 460 {height}" width="460" height="{height}" role="img" '
        f'aria-label="latency">{"".join(lines)}</svg>'
    )

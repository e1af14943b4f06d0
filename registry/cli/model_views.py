"""What people and programs see of versions, bundles and the doctor's findings. No I/O, nothing heavy here."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from shipway.registry.cli.layout import Cell, Table
from shipway.registry.cli.output import Block
from shipway.registry.nouns import Json, Link, ModelVersion, TensorSpec, Variant
from shipway.registry.units import format_size

if TYPE_CHECKING:
    from shipway.registry.verbs.doctor import Finding
    from shipway.registry.verbs.register import Registered
    from shipway.registry.verbs.verify import Verified
    from shipway.registry.verbs.versions import Difference, Listed
    from shipway.targets.manifest import Manifest

GOOD, BAD, WARN, DIM, BOLD = "green", "red", "yellow", "dim", "bold"


def number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2g}"


def registered(done: Registered) -> Iterator[Block]:
    version = done.version
    if not done.created:
        yield Cell(f"{version.ref} is this model already; nothing was added.", BOLD)
        return
    yield Cell(f"Registered {version.ref}", BOLD)
    yield f"  {version.digest}, {version.toolchain}, opset {version.opset}"
    yield from _story(version)
    yield links(version.chain)


def registered_json(done: Registered) -> Json:
    version = done.version
    return {
        "name": version.name,
        "version": version.version,
        "created": done.created,
        "digest": str(version.digest),
        "toolchain": version.toolchain,
        "opset": version.opset,
        "links": [link.to_json() for link in version.chain],
        "repairs": list(version.extra.get("repairs", ())),
        "tried": list(version.extra.get("tried", ())),
        "notes": list(version.extra.get("notes", ())),
        "seconds": dict(done.seconds),
    }


def links(found: Sequence[Link]) -> Table:
    """Every link with every output's numbers."""
    rows: list[tuple[str | Cell, ...]] = []
    for link in found:
        for output in link.outputs:
            good = link.passed or link.tolerance.allows(output.max_abs, output.scale)
            verdict = Cell("failed", BAD) if not good else Cell("passed", GOOD)
            rows.append(
                (
                    f"{link.source} -> {link.target}",
                    output.name,
                    number(output.max_abs),
                    number(output.max_rel),
                    f"{output.cosine:.6f}",
                    number(output.scale),
                    "-" if output.top1 is None else f"{output.top1:.1%}",
                    Cell("flat: proves little", WARN) if good and output.flat else verdict,
                )
            )
    columns = ("link", "output", "max abs", "max rel", "cosine", "scale", "top-1", "verdict")
    gives = ("scale", "cosine", "max rel", "top-1")
    return Table(columns, rows, gives=gives, wraps={"verdict": len("proves")})


def versions(found: Sequence[Listed]) -> Iterator[Block]:
    from shipway.registry.verbs.versions import model_size, worst

    if not found:
        yield "Nothing is registered yet. 'shipway register PATH --name NAME' makes the first version."
        return
    rows: list[tuple[str | Cell, ...]] = []
    for item in found:
        record, live = item.record, Cell(places(item.live) or "-", GOOD if item.live else "")
        if record is None:
            rows.append((f"{item.name}/{item.version}", *["-"] * 6, live))
            continue
        rows.append(
            (
                f"{item.name}/{item.version}",
                record.digest.short,
                record.toolchain,
                str(record.opset),
                ", ".join(variant.precision for variant in record.variants),
                format_size(model_size(record)),
                number(worst(record)),
                live,
            )
        )
    columns = ("version", "digest", "toolchain", "opset", "precisions", "size", "max abs", "live on")
    gives = ("toolchain", "opset", "precisions", "digest", "max abs")
    yield Table(columns, rows, gives=gives, wraps={"live on": 24})


def places(live: Sequence[str]) -> str:
    """``prod: server, jetson; staging: server`` for ENV/TARGET pairs."""
    by_environment: dict[str, list[str]] = {}
    for place in live:
        environment, _, target = place.partition("/")
        by_environment.setdefault(environment, []).append(target)
    return "; ".join(f"{name}: {', '.join(targets)}" for name, targets in by_environment.items())


def shown(version: ModelVersion, live: Sequence[str]) -> Iterator[Block]:
    yield Cell(f"{version.ref}", BOLD)
    yield f"  digest     {version.digest}"
    yield f"  source     {version.source}"
    yield f"  toolchain  {version.toolchain}"
    yield f"  ONNX       opset {version.opset}, IR {version.ir}"
    yield f"  operators  {', '.join(version.operators)}"
    yield f"  live on    {places(live) or 'nothing'}"
    yield from _story(version)
    yield Table(
        ("interface", "name", "type", "shape"),
        [*_specs("input", version.inputs), *_specs("output", version.outputs)],
    )
    yield links(version.chain)
    yield Table(("file", "size", "sha256"), list(_files(version)))


def _story(version: ModelVersion) -> Iterator[Block]:
    """How it came to be: repairs, what was tried before, notes of the model and of its links, latency."""
    extra = version.extra
    for repair in extra.get("repairs", ()):
        yield f"  repaired   {repair['rule']} ({repair['count']}): {repair['reference']}"
    for attempt in extra.get("tried", ()):
        repairs = f" with repairs ({', '.join(attempt['repairs'])})" if attempt["repairs"] else ""
        first, *more = attempt["why"].splitlines() or [""]
        yield Cell(f"  tried      {attempt['toolchain']}{repairs}: {first}", WARN)
        yield from (f"             {line}" for line in more)
    for note in (*extra.get("notes", ()), *_said(version.chain)):
        yield f"  note       {note}"
    if latency := extra.get("latency_ms"):
        times = ", ".join(f"{name} {ms:.1f} ms" for name, ms in latency.items())
        yield f"  latency    {times} (median on one CPU thread)"


def _said(found: Sequence[Link]) -> Iterator[str]:
    """What links have to say, each thing once: with the forms that it is said of, unless that is all."""
    said: dict[str, list[str]] = {}
    for link in found:
        for note in link.notes:
            said.setdefault(note, []).append(link.target)
    for note, targets in said.items():
        yield note if len(targets) == len(found) else f"{', '.join(targets)}: {note}"


def _specs(role: str, specs: Sequence[TensorSpec]) -> Iterator[tuple[str, ...]]:
    for spec in specs:
        yield role, spec.name, spec.dtype, shape(spec)


def shape(spec: TensorSpec) -> str:
    return f"[{', '.join(map(str, spec.shape))}]"


def _files(version: ModelVersion) -> Iterator[tuple[str, ...]]:
    for variant in version.variants:
        for file in variant.files:
            yield f"{variant.precision}/{file.path}", format_size(file.size), file.digest.short
    for file in (*version.golden, *version.assets):
        yield file.path, format_size(file.size), file.digest.short


def difference(found: Difference) -> Iterator[Block]:
    from shipway.registry.verbs.versions import latency

    left, right = found.left, found.right
    rows: list[tuple[str | Cell, ...]] = []

    def row(name: str | Cell, a: str, b: str) -> None:
        rows.append((name, Cell(a, "", _broken(a)), Cell(b, WARN if a != b else DIM, _broken(b))))

    row("digest", left.digest.short, right.digest.short)
    row("toolchain", left.toolchain, right.toolchain)
    row("opset", str(left.opset), str(right.opset))
    row("inputs", *(_interface(side.inputs) for side in (left, right)))
    row("outputs", *(_interface(side.outputs) for side in (left, right)))
    only_left, only_right = found.operators
    row("operators", _more(left, only_left), _more(right, only_right))
    for precision in dict.fromkeys(v.precision for side in (left, right) for v in side.variants):
        row(f"size {precision}", _size(left.variant(precision)), _size(right.variant(precision)))
        if precision in latency(left) or precision in latency(right):
            times = (latency(side).get(precision) for side in (left, right))
            row(f"latency {precision}", *("-" if time is None else f"{time:.1f} ms" for time in times))
    for (source, target, output), (a, b) in found.numbers.items():
        name = Cell(f"{source} -> {target}: {output}", short=f"{target}: {output}")
        row(name, *(f"max abs {number(side.max_abs)}" if side else "-" for side in (a, b)))
    for path, (first, second) in found.files.items():
        row(path, *(digest.partition(":")[2][:12] if digest else "-" for digest in (first, second)))
    names = (str(left.ref), str(right.ref))
    yield Table(("", *names), rows, gives=(*names, ""), wraps=dict.fromkeys(names, 24))
    if found.same_model:
        yield "Both are the same model: equal graph and weights."


def _broken(value: str) -> str:
    """With a place for a line to end between the parts of a toolchain's name."""
    return value.replace("+paddle", " +paddle")


def _interface(specs: Sequence[TensorSpec]) -> str:
    return "; ".join(f"{spec.name} {spec.dtype}{shape(spec)}" for spec in specs)


def _more(version: ModelVersion, own: Sequence[str]) -> str:
    return f"{len(version.operators)}" + (f", only here: {', '.join(own)}" if own else "")


def _size(variant: Variant | None) -> str:
    return format_size(variant.size) if variant else "-"


def bundle_json(manifest: Manifest, out: Path) -> Json:
    return {
        "out": str(out),
        "bundle": str(manifest.digest),
        "kind": manifest.kind,
        "model": manifest.model,
        "version": manifest.version,
        "files": len(manifest.files),
        "size": manifest.size,
        "check": list(manifest.check),
    }


def bundle(manifest: Manifest, out: Path) -> Iterator[Block]:
    yield Cell(f"Wrote {out}: {manifest.kind} bundle of {manifest.model}/{manifest.version}", BOLD)
    yield f"  {manifest.digest}, {len(manifest.files)} files, {format_size(manifest.size)}"
    yield f"  Check it: cd {shlex.quote(str(out))} && {shlex.join(manifest.check)}"


def verified(done: Verified) -> Iterator[Block]:
    version = f"{done.model}/{done.version}"
    what = f"{done.kind} bundle of {version}" if done.kind else f"version {version}"
    if done.vouched:
        yield Cell(f"The {what} is as it was recorded.", BOLD)
    else:
        yield Cell(f"The files of this {what} match its own bundle.json.", BOLD)
    yield f"  {done.files} files, {format_size(done.size)}, {done.digest}"
    if not done.vouched:
        yield "  Nothing else vouches for that: compare the digest, or give the right one as --digest."
    if done.extra:
        more = f" and {len(done.extra) - 5} more" if len(done.extra) > 5 else ""
        yield f"  Not the bundle's own: {', '.join(done.extra[:5])}{more}"
    if done.check is not None:
        worst, p50 = number(done.check["max_abs"]), done.check["p50_ms"]
        yield f"  Golden check on {done.check['provider']}: max abs {worst}, p50 {p50:.1f} ms"
    if done.links:
        yield links(done.links)
    if done.check is None and not done.links:
        yield "  The numbers were not measured."


def findings(found: Sequence[Finding], *, grid: bool) -> Iterator[Block]:
    """For a terminal, what is to be done stands under what was found; other programs get a column each."""
    styles = {"ok": GOOD, "missing": WARN, "broken": BAD}
    states = [Cell(item.state, styles[item.state]) for item in found]
    if not grid:
        rows = [
            (i.name, state, i.detail, i.needed_for, i.remedy) for i, state in zip(found, states, strict=True)
        ]
        yield Table(("what", "state", "found", "needed for", "how to get it"), rows)
        return
    told = [
        item.detail if item.state == "ok" else f"{item.detail}\nneeded for: {item.needed_for}\n{item.remedy}"
        for item in found
    ]
    lines = [(i.name, state, text.strip()) for i, state, text in zip(found, states, told, strict=True)]
    yield Table(("what", "state", "found"), lines, wraps={"found": 30})

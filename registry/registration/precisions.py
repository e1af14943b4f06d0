"""fp16 and int8 of the model that is being registered, and its data in a file of their own: each measured."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from shipway.registry import catalog, files, room
from shipway.registry.errors import ConversionError, VerificationError
from shipway.registry.nouns import Digest, File, Link, Variant
from shipway.registry.registration import layers

if TYPE_CHECKING:
    import onnx

    from shipway.registry.registration.attempts import Proved
    from shipway.registry.registration.draft import Wish
    from shipway.registry.verify.chain import GoldenSet
    from shipway.registry.verify.golden import Case


_SLOWER = 1.25  # times: less is what two runs of the same model differ by
_NO_SMALLER = 0.9  # of the size


def small(wish: Wish, precision: str, path: Path, found: Proved, work: Path, folder: Path) -> Variant:
    """Of the model at ``path``, the first recipe whose numbers pass, its file in ``folder``.

    Raises VerificationError naming who asks for the precision.
    """
    from shipway.registry.convert import graph, quantiser, running, variants

    proof, tolerance = found.proof, wish.config.allowed(precision)
    place = _place(folder, precision)
    attempt = work / f"{precision}.onnx"

    def judge(model: onnx.ModelProto, quick: bool) -> float:
        attempt.write_bytes(graph.to_bytes(model))
        try:
            return proof.excess(attempt, tolerance, quick=quick)
        except ConversionError:  # it does not even load
            return math.inf

    tried: list[Link] = []
    failures: list[str] = []
    model = graph.load(path)
    cases = to_round_for(model, proof, samples=wish.samples is not None)
    tools = quantiser.Quantiser(work, wish.config.timeout_s, running.memory_limit(wish.config.memory))
    for recipe in variants.recipes(precision, model, tools, cases, real=bool(wish.samples and cases)):
        try:
            model, note = recipe.make(path, judge)
            attempt.write_bytes(graph.to_bytes(model))
            link = proof.link(attempt, precision, tolerance)
        except ConversionError as error:
            room.require(work, error.why)
            failures.append(f"{recipe.name}: {error.what} {error.why}".strip())
            continue
        except Exception as error:  # the tools raise whatever they stumble over
            room.require(work, f"{type(error).__name__}: {error}")
            failures.append(f"{recipe.name}: {type(error).__name__}: {error}"[:500])
            continue
        link = dataclasses.replace(link, notes=(recipe.name, *filter(None, [note]), *link.notes))
        if link.passed:
            attempt.replace(place)
            return Variant(precision, _described(place), (link,))
        tried.append(_explained(wish, link, path, attempt, found))
    raise _not_good_enough(wish, precision, tried, failures)


def large(wish: Wish, precision: str, path: Path, found: Proved, work: Path, folder: Path) -> Variant:
    """The same for a model whose data lie in a file beside it: its weights alone, one in memory at a time.

    All of them or none: trying which of them the numbers allow would take as many runs of a large model.
    """
    from shipway.registry.convert import variants

    tolerance = wish.config.allowed(precision)
    place = _place(folder, precision)
    try:
        note = variants.outside(precision, path, place)
        link = found.proof.link(place, precision, tolerance)
    except ConversionError as error:
        room.require(work, error.why)
        raise _not_good_enough(wish, precision, [], [f"{error.what} {error.why}"]) from error
    link = dataclasses.replace(link, notes=(note, *link.notes))
    if not link.passed:
        raise _not_good_enough(wish, precision, [_explained(wish, link, path, place, found)], [])
    return Variant(precision, _described(place), (link,))


def outside(wish: Wish, variant: Variant, proof: GoldenSet, folder: Path) -> Variant:
    """The variant with its tensors' data in a file beside the graph, and measured so."""
    import onnx

    from shipway.registry.convert import external, graph
    from shipway.registry.verify import chain

    place = folder / catalog.location(variant.files[0], variant.precision)
    model = graph.load(place)
    for tensor in graph.tensors(model.graph):
        if not tensor.HasField("raw_data") and tensor.data_type != onnx.TensorProto.STRING:
            name = tensor.name
            tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor), name))
    data = place.with_name(f"{place.name}.data")
    external.gather(model, folder, data)
    if not data.stat().st_size:  # all its tensors are small
        data.unlink()
    place.write_bytes(graph.to_bytes(model))
    before = variant.links[-1]
    link = proof.link(place, before.target, wish.config.allowed(variant.precision))
    chain.require(
        [link],
        f"The {variant.precision} form of {wish.name} is wrong with its data in a file of their own.",
        "Nothing was registered. Set convert.external_data to auto in deploy.yaml.",
    )
    link = dataclasses.replace(link, notes=before.notes)
    return Variant(variant.precision, _described(place), (*variant.links[:-1], link))


def latency(variants: Sequence[Variant], proof: GoldenSet, folder: Path) -> dict[str, dict[str, float]]:
    """Provider to precision to median milliseconds, for each provider that is here and takes the model."""
    from shipway.registry.convert import external
    from shipway.registry.verify import measure

    paths = {v.precision: folder / catalog.location(v.files[0], v.precision) for v in variants}
    groups = [paths]
    if sum(variant.size for variant in variants) > external.LARGE:  # too much to have in memory at a time
        groups = [{precision: path} for precision, path in paths.items()]
    found: dict[str, dict[str, float]] = {}
    for provider in measure.providers():
        found[provider] = {}
        for group in groups:
            found[provider] |= proof.medians_ms(group, provider)
    return found


def no_gain(variants: Sequence[Variant], milliseconds: Mapping[str, float]) -> list[str]:
    """What is to be said of precisions that are slower than fp32, or no smaller. Pure."""
    full = next(variant for variant in variants if variant.precision == "fp32")
    notes = []
    for variant in variants:
        now, before = milliseconds[variant.precision], milliseconds["fp32"]
        slower, share = now > _SLOWER * before, variant.size / full.size
        if variant is not full and (slower or share > _NO_SMALLER):
            notes.append(
                f"{variant.precision} has {share:.0%} of fp32's size and takes {now / before:.0%} of its "
                "time, on one CPU thread of this machine"
            )
    return notes


def _place(folder: Path, precision: str) -> Path:
    place = folder / catalog.location(File("model.onnx", Digest(""), 0), precision)
    place.parent.mkdir(parents=True)
    return place


def _described(place: Path) -> tuple[File, ...]:
    """The graph, and the file with its data where there is one."""
    paths = (place, place.with_name(f"{place.name}.data"))
    return tuple(files.describe(path, path.name) for path in paths if path.exists())


def to_round_for(model: onnx.ModelProto, proof: GoldenSet, *, samples: bool) -> Sequence[Case]:
    """What to round weights for and to find ranges on; of the user's samples every other one.

    The rest is what judges: an error is several times smaller on inputs that the weights were rounded for. A
    single sample is left to judge.
    """
    from shipway.registry.convert import graph
    from shipway.registry.verify import golden, runs

    if samples:
        return proof.cases[1 : proof.given : 2]
    inputs, limits = graph.info(model, 0).inputs, graph.id_limits(model)
    whole = golden.range_of(golden.counts(inputs, limits), proof.cases)
    return golden.to_round_for(inputs, proof.sizes[-1], limits, seed=runs.SEED, whole=whole)


def _explained(wish: Wish, link: Link, good: Path, bad: Path, found: Proved) -> Link:
    """With ``--bisect``, the link with the layer that differs first."""
    if not wish.bisect:
        return link
    layer = layers.of_forms(good, bad, found, link.tolerance)
    return dataclasses.replace(link, notes=(*link.notes, layer))


def _not_good_enough(
    wish: Wish, precision: str, tried: Sequence[Link], failures: Sequence[str]
) -> VerificationError:
    from shipway.registry.verify import parity

    asking = ", ".join(repr(target) for target in wish.precisions[precision])
    table = [parity.table(tried)] if tried else []
    return VerificationError(
        f"The {precision} form of {wish.name}, which target {asking} asks for, is not good enough.",
        why="\n".join([*table, *(note for link in tried for note in link.notes), *failures]),
        remedy=f"Nothing was registered. Set precision: fp32 for {asking} in deploy.yaml, raise "
        f"convert.tolerance_{precision} there if the difference is one that you accept (to an rtol of 1 "
        "where outputs are too flat to prove anything), or give real inputs with --samples: they judge "
        "fairer, and int8 needs them to find its ranges.",
    )

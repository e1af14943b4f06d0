"""The gate ``url``: a server of the Open Inference Protocol must serve the new version, rightly and in time.

Asked from this machine, in this order: the version is ready, and where the server tells its bundle (ours
does, Triton does not) it is this very bundle; the golden inputs give the golden outputs within the tolerance
of ``bundle.json``, and come from that version though the request names none, as clients' requests do; 95 of
100 answers come within ``p95_ms``, one request at a time over one connection.

A server that loads by itself needs its time: until ``timeout_s`` has passed since the gate began, one that is
not ready or still serves another version is asked again.
"""

from __future__ import annotations

import itertools
import json
import struct
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from shipway.registry.errors import DeliveryError
from shipway.registry.nouns import Digest, Json, Tolerance
from shipway.targets.deliveries.base import Fetch, UnprovenError
from shipway.targets.deliveries.v2_client import (
    Answer,
    Client,
    Inferred,
    Request,
    Tensor,
    Unanswered,
    inferred,
    request,
    unpack,
)
from shipway.targets.manifest import Manifest
from shipway.targets.steps import Gate

TIMEOUT_S = (
    300.0  # to wait for the version, unless the gate says otherwise: engines may take minutes to build
)
REQUESTS, LATE = 100, 5  # of so many timed requests so many may be late: what is left is the 95th percentile
_ANSWER_S = 60.0  # seconds after which a request counts as unanswered
_PAUSES_S = (0.1, 0.2, 0.5, 1.0)  # between looks at a server that is not there yet; the last one repeats


@dataclass(frozen=True, slots=True)
class Expected:
    """A golden output: ``values`` are every ``stride``-th of the flattened tensor of ``shape``."""

    name: str
    shape: tuple[int, ...]
    values: tuple[float, ...]
    stride: int
    scale: float


@dataclass(frozen=True, slots=True)
class Case:
    inputs: tuple[Tensor, ...]
    outputs: tuple[Expected, ...]


def judge(gate: Gate, fetch: Fetch, host: str = "") -> None:
    """Hold a server against a release. ``fetch`` reads the store; ``host`` stands for ``{host}`` in the url.

    Raises UnprovenError, saying what was wrong; DeliveryError where the golden slice can't be read.
    """
    manifest, options = gate.release.manifest, gate.options
    url = options["url"].replace("{host}", f"[{host}]" if ":" in host else host)
    limit = options.get("timeout_s") or TIMEOUT_S
    deadline = time.monotonic() + limit
    client = Client(url, min(_ANSWER_S, limit))
    try:
        case, *_ = cases = read_golden(manifest, fetch)
        _wait(lambda: _not_there(client, manifest), url, manifest, deadline)
        binary = client.takes_bytes()
        prepared = request(case.inputs, binary=binary)
        wrong = []
        for one in cases:
            asked = prepared if one is case else request(one.inputs, binary=binary)
            found = _infer(client, manifest, asked, url, deadline)
            wrong += differences(found.outputs, one.outputs, manifest.tolerance)
        if wrong:
            raise UnprovenError(
                f"{url} gives other numbers than {manifest.model}/{manifest.version}.",
                why="\n".join(wrong),
                remedy="Run the golden check in the release's folder on that machine: python3 check.py.",
            )
        if options.get("p95_ms"):
            hurry(url, _timed(client, manifest, prepared), options["p95_ms"])
    except Unanswered as error:
        raise UnprovenError(
            f"{url} stopped answering in the middle of the gate.",
            why=str(error),
            remedy="Look at the server's log, then promote again.",
        ) from error
    finally:
        client.close()


def _wait(look: Callable[[], str], url: str, manifest: Manifest, deadline: float) -> None:
    """Look until nothing is amiss or time is up."""
    for pause in itertools.chain(_PAUSES_S, itertools.repeat(_PAUSES_S[-1])):
        try:
            problem = look()
        except Unanswered as error:
            problem = f"It gives no answer: {error}."
        if not problem:
            return
        if time.monotonic() + pause >= deadline:
            raise UnprovenError(
                f"{url} does not serve {manifest.model}/{manifest.version}.",
                why=problem,
                remedy="Is it up? Does it follow this destination (serve.py --root DESTINATION --follow 5)? "
                "The gate's 'timeout_s' gives it longer.",
            )
        time.sleep(pause)


def _not_there(client: Client, manifest: Manifest) -> str:
    """What keeps the server from serving this very bundle, or nothing."""
    model = f"/v2/models/{manifest.model}"
    ready = client.get(f"{model}/versions/{manifest.version}/ready")
    if ready.ok:
        config = client.get(f"{model}/versions/{manifest.version}/config").json()
        return _other_bundle(config, manifest.digest)
    known = client.get(model)
    versions = known.json().get("versions") if known.ok else None
    if isinstance(versions, list) and str(manifest.version) not in versions:
        return f"It serves version {', '.join(map(str, versions)) or 'none'} of {manifest.model}."
    server = client.get("/v2/health/ready")
    return f"It is not ready ({server if not server.ok else ready})."


def _other_bundle(config: Json, wanted: Digest) -> str:
    try:
        told = config["parameters"]["bundle"]["string_value"]
    except (KeyError, TypeError):
        return ""  # a server of somebody else's, which knows nothing of bundles
    if told == str(wanted):
        return ""
    return f"It serves that version from another bundle ({str(told)[:19]}, not {wanted.short})."


def _infer(client: Client, manifest: Manifest, asked: Request, url: str, deadline: float) -> Inferred:
    """Ask as clients do, without a version, until the version that answers is the right one."""
    kept: list[Inferred] = []

    def look() -> str:
        answer = client.infer(f"/v2/models/{manifest.model}/infer", asked)
        if answer.status in (429, 503):
            return f"It has no time for the golden inputs ({answer})."
        if not answer.ok:
            raise UnprovenError(
                f"{url} does not take the golden inputs of {manifest.model}/{manifest.version}.",
                why=str(answer),
                remedy="Look at the server's log; shipway sent what the bundle's own check runs on.",
            )
        found = inferred(answer)
        if found.version not in (None, str(manifest.version)):
            return f"Requests that name no version are answered by version {found.version}."
        kept.append(found)
        return ""

    _wait(look, url, manifest, deadline)
    return kept[-1]


def _timed(client: Client, manifest: Manifest, asked: Request) -> Iterator[tuple[float, Answer]]:
    """Milliseconds and answer of ``REQUESTS`` requests, each sent when it is asked for."""
    for _ in range(REQUESTS):
        began = time.perf_counter()
        answer = client.infer(f"/v2/models/{manifest.model}/infer", asked)
        yield (time.perf_counter() - began) * 1e3, answer


def hurry(url: str, timed: Iterable[tuple[float, Answer]], p95_ms: float) -> None:
    """Raise UnprovenError as soon as one more than ``LATE`` answers came too late, or were none."""
    late: list[float] = []
    for count, (took, answer) in enumerate(timed, start=1):
        if took > p95_ms or not answer.ok:
            late.append(took)
        if len(late) > LATE:
            raise UnprovenError(
                f"{url} is too slow: {len(late)} of {count} requests were not answered within {p95_ms:g} ms.",
                why=f"They took {', '.join(f'{value:.1f}' for value in late)} ms; the last one ended with "
                f"{answer}. Of {REQUESTS} requests {LATE} may be late.",
                remedy="Is that machine busy? Promote again when it is not, or raise 'p95_ms' of the gate.",
            )


def differences(found: Mapping[str, Tensor], expected: Sequence[Expected], tolerance: Tolerance) -> list[str]:
    """What is wrong with each output, by the rule of ``Tolerance``; a NaN never passes."""
    wrong = []
    for output in expected:
        given = found.get(output.name)
        if given is None:
            wrong.append(f"{output.name} is missing; it gives {', '.join(found) or 'nothing'}")
        elif (given.shape or (1,)) != (output.shape or (1,)):
            wrong.append(f"{output.name} has the shape {list(given.shape)}, not {list(output.shape)}")
        else:
            values = given.values(output.stride)
            errors = [abs(a - b) for a, b in zip(values, output.values, strict=True)]
            worst = max(errors, key=lambda error: error if error == error else float("inf"), default=0.0)
            if not tolerance.allows(worst, output.scale):
                allowed = tolerance.atol + tolerance.rtol * output.scale
                wrong.append(f"{output.name} is off by {worst:.3g}; {allowed:.3g} is allowed")
    return wrong


def read_golden(manifest: Manifest, fetch: Fetch) -> tuple[Case, ...]:
    """The cases of a bundle's golden slice (``shipway.registry.verify.slice`` says what lies in it)."""

    def content(name: str) -> bytes:
        file = manifest.file(f"golden/{name}")
        if file is None:
            raise KeyError(f"no golden/{name}")
        return fetch(file).read_bytes()

    try:
        document = json.loads(content("golden.json"))
        cases = tuple(
            Case(
                tuple(_input(entry, content(entry["file"])) for entry in case["inputs"]),
                tuple(_output(entry, content(entry["file"])) for entry in case["outputs"]),
            )
            for case in document["cases"]
        )
        if not cases:
            raise KeyError("no cases")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DeliveryError(
            f"The golden slice of {manifest.model}/{manifest.version} can't be read.",
            why=f"{type(error).__name__}: {error}",
            remedy="Build the bundle again (register the model again), or leave 'url' out of the gate.",
        ) from error
    return cases


def _input(entry: Json, raw: bytes) -> Tensor:
    if "encoding" in entry:
        scale, zero = entry["encoding"]["scale"], entry["encoding"]["zero_point"]
        table = [struct.pack("<f", (level - zero) * scale) for level in range(256)]
        raw = b"".join([table[level] for level in raw])
    return Tensor(entry["name"], entry["dtype"], tuple(entry["shape"]), raw)


def _output(entry: Json, raw: bytes) -> Expected:
    values = unpack(entry["dtype"], raw)
    return Expected(entry["name"], tuple(entry["shape"]), values, entry.get("stride", 1), entry["max_abs"])

"""What is registered: a list, one version whole, two compared.

The store has a record of every version that went through it, so that these answer at once; MLflow is asked
for what the store lacks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from shipway.registry.config.project import Project
from shipway.registry.deploy.mirror import places_of
from shipway.registry.errors import NotFoundError
from shipway.registry.ledger.ledger import Ledger
from shipway.registry.nouns import Json, ModelRef, ModelVersion, OutputMeasure, check_model_name
from shipway.registry.verbs.resolve import resolve


@dataclass(frozen=True, slots=True)
class Listed:
    """A registered version. ``record`` is None where only MLflow has it; ``live`` are ENV/TARGET pairs."""

    name: str
    version: int
    record: ModelVersion | None
    live: tuple[str, ...] = ()

    def to_json(self) -> Json:
        record = self.record
        known = (
            {
                "digest": str(record.digest),
                "toolchain": record.toolchain,
                "opset": record.opset,
                "precisions": [variant.precision for variant in record.variants],
                "size": model_size(record),
                "passed": record.passed,
                "max_abs": worst(record),
            }
            if record
            else {}
        )
        return {"name": self.name, "version": self.version, "live": list(self.live), **known}


def versions(project: Project, name: str | None = None, *, ask_mlflow: bool = False) -> list[Listed]:
    """Every version by name and number, or those of one model. Raises NotFoundError where ``name`` has none.

    MLflow is asked where the store has nothing to list, or where ``ask_mlflow`` says so (it takes seconds
    to import).
    """
    if name is not None:
        check_model_name(name)
    store = project.store
    names = [name] if name is not None else store.names()
    records = {(record.name, record.version): record for each in names for record in store.versions(each)}
    found = set(records)
    if ask_mlflow or not records:
        from shipway.registry import catalog

        found |= {(entry.name, entry.version) for entry in catalog.list_versions(project.registry_uri, name)}
    if name is not None and not found:
        raise NotFoundError(
            f"There is no version of {name!r}.",
            why=f"Registered models: {', '.join(store.names()) or 'none'}.",
            remedy=f"'shipway register PATH --name {name}' makes the first one.",
        )
    live = _live(project)
    return [Listed(key[0], key[1], records.get(key), live.get(key, ())) for key in sorted(found)]


def show(project: Project, ref: ModelRef) -> tuple[ModelVersion, tuple[str, ...]]:
    """One version whole, and the ENV/TARGET pairs where it is live. Raises NotFoundError."""
    version = resolve(project, ref)
    return version, _live(project).get((version.name, version.version), ())


@dataclass(frozen=True, slots=True)
class Difference:
    """Two versions side by side. The properties say what differs."""

    left: ModelVersion
    right: ModelVersion

    @property
    def same_model(self) -> bool:
        return self.left.digest == self.right.digest

    @property
    def operators(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Operators that only the left, and that only the right one has."""
        left, right = set(self.left.operators), set(self.right.operators)
        return tuple(sorted(left - right)), tuple(sorted(right - left))

    @property
    def files(self) -> Mapping[str, tuple[str | None, str | None]]:
        """Path to (left, right) digest, for every file that is not the same in both."""
        left, right = _files(self.left), _files(self.right)
        pairs = {path: (left.get(path), right.get(path)) for path in sorted({*left, *right})}
        return {path: pair for path, pair in pairs.items() if pair[0] != pair[1]}

    @property
    def numbers(self) -> Mapping[tuple[str, str, str], tuple[OutputMeasure | None, OutputMeasure | None]]:
        """(from, to, output) to both measures, for all links of both."""
        left, right = _measures(self.left), _measures(self.right)
        return {key: (left.get(key), right.get(key)) for key in dict.fromkeys([*left, *right])}

    def to_json(self) -> Json:
        only_left, only_right = self.operators
        return {
            "left": _side(self.left),
            "right": _side(self.right),
            "same_model": self.same_model,
            "operators": {"only_left": list(only_left), "only_right": list(only_right)},
            "files": [{"path": path, "left": a, "right": b} for path, (a, b) in self.files.items()],
            "numbers": [
                {
                    "from": source,
                    "to": target,
                    "output": output,
                    "left": a.to_json() if a else None,
                    "right": b.to_json() if b else None,
                }
                for (source, target, output), (a, b) in self.numbers.items()
            ],
        }


def diff(project: Project, left: ModelRef, right: ModelRef) -> Difference:
    """Compare two versions, of one model or of two. Raises NotFoundError."""
    return Difference(resolve(project, left), resolve(project, right))


def model_size(version: ModelVersion) -> int:
    """Bytes of the canonical fp32 model."""
    canonical = version.variant("fp32")
    return canonical.size if canonical else 0


def worst(version: ModelVersion) -> float | None:
    """The largest absolute error of the chain from the trained model to the canonical one."""
    return max((output.max_abs for link in version.links for output in link.outputs), default=None)


def latency(version: ModelVersion) -> Mapping[str, float]:
    """Median milliseconds of one run by precision, as far as they were measured at registration."""
    found = version.extra.get("latency_ms", {})
    return found if isinstance(found, dict) else {}


def _live(project: Project) -> dict[tuple[str, int], tuple[str, ...]]:
    """(model, version) to the places where the ledger says it is live."""
    ledger = Ledger(project.store.objects)
    found: dict[tuple[str, int], tuple[str, ...]] = {}
    for place in places_of(project):
        serial = ledger.head(place).standing.live
        if serial is not None:
            started = ledger.started(place, serial)
            key = (started.model, started.version)
            found[key] = (*found.get(key, ()), str(place))
    return found


def _files(version: ModelVersion) -> dict[str, str]:
    files = {file.path: file for file in (*version.golden, *version.assets)}
    for variant in version.variants:
        files |= {f"{variant.precision}/{file.path}": file for file in variant.files}
    return {path: str(file.digest) for path, file in files.items()}


def _measures(version: ModelVersion) -> dict[tuple[str, str, str], OutputMeasure]:
    return {
        (link.source, link.target, output.name): output for link in version.chain for output in link.outputs
    }


def _side(version: ModelVersion) -> Json:
    return {
        "name": version.name,
        "version": version.version,
        "digest": str(version.digest),
        "toolchain": version.toolchain,
        "opset": version.opset,
        "inputs": [spec.to_json() for spec in version.inputs],
        "outputs": [spec.to_json() for spec in version.outputs],
        "sizes": {variant.precision: variant.size for variant in version.variants},
        "latency_ms": dict(latency(version)),
    }

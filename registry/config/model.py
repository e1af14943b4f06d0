"""What ``deploy.yaml`` may hold: every key and its meaning. The commented example is ``deploy.yaml`` itself.

Only shapes are checked here, and values (by the types of ``values.py``). What needs two places at once (names
that lead nowhere, two destinations in one folder) is in ``check.py``, reading with file lines in ``load.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, WithJsonSchema, model_validator

from shipway.registry.config.values import (
    Bool,
    Destination,
    Duration,
    Float,
    Host,
    Int,
    Limit,
    Memory,
    Opset,
    Url,
    Wave,
)
from shipway.registry.nouns import Tolerance
from shipway.targets.base import TargetOptions


class Section(BaseModel):
    """A mapping of ``deploy.yaml``: unknown keys are errors, and nothing changes once it is read.

    Validators are built when the first file is read: once for the whole, instead of for each class; defaults
    are constructed without one. That is a good part of what ``shipway status`` has to wait for.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


class ToleranceConfig(Section):
    """An output passes where its largest absolute error <= atol + rtol * its largest magnitude."""

    atol: Float = Field(ge=0, description="absolute part")
    rtol: Float = Field(ge=0, description="part relative to the largest magnitude of the output")

    @property
    def value(self) -> Tolerance:
        return Tolerance(self.atol, self.rtol)


class ConvertConfig(Section):
    """How models are converted and judged."""

    opset: Opset = Field(
        default="auto", description="ONNX opset, or auto: the highest that every target runs"
    )
    tolerance: ToleranceConfig = Field(
        default_factory=lambda: ToleranceConfig.model_construct(atol=1e-5, rtol=1e-5),
        description="what fp32 must meet against the trained model",
    )
    tolerance_fp16: ToleranceConfig = Field(
        default_factory=lambda: ToleranceConfig.model_construct(atol=1e-3, rtol=1e-2),
        description="what fp16 must meet against the trained model",
    )
    tolerance_int8: ToleranceConfig = Field(
        default_factory=lambda: ToleranceConfig.model_construct(atol=1e-2, rtol=1e-1),
        description="what int8 must meet against the trained model",
    )
    timeout_s: Float = Field(default=600.0, gt=0, description="seconds after which a conversion is given up")
    external_data: Literal["auto", "always"] = Field(
        default="auto",
        description="tensors' data in a file of their own beside the graph: auto (above 1.5 GB), or always",
    )
    memory: Memory | None = Field(
        default=None,
        description="memory that a conversion may use (16GB); none: 3/4 of the machine's, 8GB at least",
    )

    def allowed(self, precision: str) -> Tolerance:
        """The tolerance of ``fp32``, ``fp16`` or ``int8``; KeyError on another precision."""
        of = {"fp32": self.tolerance, "fp16": self.tolerance_fp16, "int8": self.tolerance_int8}
        return of[precision].value


class ModelConfig(ConvertConfig):
    """What one model does differently: any key of ``convert``."""


class S3Config(Section):
    """How an S3 service is reached. Credentials are found as AWS tools find them."""

    endpoint: str | None = Field(default=None, description="URL of an S3-compatible service that is not AWS")
    region: str | None = Field(default=None, description="region of the bucket")
    profile: str | None = Field(default=None, description="profile in the AWS configuration")


class StoreConfig(S3Config):
    """Where files, bundles and the ledger are kept: a folder, or a bucket with how to reach it."""

    to: Destination = Field(description="a folder, or s3://bucket/prefix")

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return {"to": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _fitting(self) -> StoreConfig:
        if self.to.startswith("ssh://"):
            raise ValueError("must be a folder or s3://bucket/prefix")
        if not self.to.startswith("s3://") and (self.endpoint or self.region or self.profile):
            raise ValueError("endpoint, region and profile go with s3:// only")
        return self


class GateConfig(Section):
    """What a release must pass at its destination before it counts as live."""

    check: Bool = Field(default=False, description="run the bundle's own golden check at the destination")
    command: list[str] | None = Field(
        default=None,
        min_length=1,
        description="a command of yours, run in the release's folder; exit 0 passes",
    )
    url: Url | None = Field(
        default=None, description="an Open Inference Protocol server that must serve the version"
    )
    p95_ms: Float | None = Field(
        default=None, gt=0, description="95 of 100 answers of that server must come within this time"
    )
    timeout_s: Float | None = Field(
        default=None, gt=0, description="seconds that the server may take to serve the version; none: 300"
    )

    @model_validator(mode="after")
    def _fitting(self) -> GateConfig:
        if self.url is None and (self.p95_ms or self.timeout_s):
            raise ValueError("p95_ms and timeout_s are about the server at 'url', and there is none")
        return self


class SshConfig(Section):
    """How the hosts of an ssh:// destination are reached, past what the SSH configuration says."""

    known_hosts: str | None = Field(
        default=None, min_length=1, description="file with the hosts' keys; none: ~/.ssh/known_hosts"
    )
    keys: list[str] = Field(
        default=[], description="files with private keys; none: the agent's and those in ~/.ssh"
    )


class InventoryConfig(Section):
    """``hosts`` in a file of their own."""

    file: str = Field(min_length=1, description="YAML file with hosts and groups of them")
    groups: list[str] = Field(default=[], description="whose hosts to take, each once; none: all in the file")


class HostConfig(Section):
    """How one host of an inventory differs from what ``to`` says."""

    address: Host | None = Field(default=None, description="stands in for {host}; none: the host's name")
    user: str | None = Field(
        default=None, pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]*$", description="in place of the one in 'to'"
    )
    port: Int | None = Field(default=None, ge=1, le=65535, description="in place of the one in 'to'")

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return {} if value is None else value  # "line-2:" and nothing after it


class PlacementConfig(Section):
    """One target in one environment: where its bundle goes."""

    to: Destination = Field(description="a folder, s3://bucket/prefix or ssh://user@{host}/folder")
    gate: GateConfig = Field(
        default_factory=GateConfig.model_construct, description="what must pass before the release counts"
    )
    hosts: list[Host] = Field(
        default=[], description="hosts that stand in for {host} in an ssh:// destination, or a file of them"
    )
    waves: list[Wave] = Field(default=[], description="how many hosts at a time: numbers or shares")
    failures: Limit = Field(
        default=0, description="how many hosts may fail, a number or a share, until all are taken back"
    )
    pause: Duration = Field(default=0.0, description="time between two waves: seconds, 30s, 10m or 1h")
    confirm: Bool = Field(default=False, description="ask between two waves whether to go on")
    s3: S3Config | None = Field(
        default=None, description="how the service of s3:// is reached; none: as the store's, if that is one"
    )
    ssh: SshConfig = Field(
        default_factory=SshConfig.model_construct, description="how the hosts of ssh:// are reached"
    )
    keep: Int = Field(
        default=5, ge=1, description="old releases to keep there besides live and rollback candidate"
    )

    @model_validator(mode="after")
    def _fitting(self) -> PlacementConfig:
        if not self.to.startswith("s3://") and self.s3 is not None:
            raise ValueError("s3: for s3:// destinations only")
        own = {"hosts", "waves", "failures", "pause", "confirm", "ssh"} & self.model_fields_set
        if not self.to.startswith("ssh://") and own:
            raise ValueError(f"{', '.join(sorted(own))}: for ssh:// destinations only")
        if self.hosts and "{host}" not in self.to:
            raise ValueError("hosts need {host} in 'to': ssh://user@{host}/folder")
        if len(set(self.hosts)) < len(self.hosts):
            raise ValueError("hosts names one twice")
        if "{host}" in self.to and not self.hosts:
            raise ValueError("'to' names {host}, so it needs hosts: [...]")
        url = self.gate.url or ""
        if "{host}" in url and not self.to.startswith("ssh://"):
            raise ValueError("{host} in the gate's url is for ssh:// destinations only")
        if self.hosts and url and "{host}" not in url:
            raise ValueError("the gate's url needs {host}: each host's own server is asked")
        return self


class HooksConfig(Section):
    """Commands of yours around a deployment, run beside ``deploy.yaml``; they get it as JSON on stdin."""

    before_promote: list[str] | None = Field(
        default=None, min_length=1, description="must exit with 0, or nothing is deployed"
    )
    after_promote: list[str] | None = Field(
        default=None, min_length=1, description="runs once a promotion is live"
    )
    after_rollback: list[str] | None = Field(
        default=None, min_length=1, description="runs once a rollback is live"
    )
    timeout_s: Float = Field(default=600.0, gt=0, description="seconds after which one of them has failed")


class EnvironmentConfig(Section):
    """Where versions go: under each target's name, its destination."""

    after: str | None = Field(default=None, description="environment where a version must be healthy first")
    soak: Duration = Field(
        default=0.0, description="how long it must have been live and healthy there: 30s, 10m, 2h or 1d"
    )
    approve: Bool = Field(default=False, description="ask a person before a promotion, or have --yes said")
    hooks: HooksConfig = Field(
        default_factory=HooksConfig.model_construct, description="commands of yours around a deployment"
    )
    targets: dict[str, PlacementConfig] = Field(
        default={}, description="destinations, written beside 'after'"
    )

    @model_validator(mode="before")
    @classmethod
    def _flat_form(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        own = {key: item for key, item in value.items() if key in ENVIRONMENT_KEYS}
        return {**own, "targets": {key: item for key, item in value.items() if key not in own}}

    @model_validator(mode="after")
    def _fitting(self) -> EnvironmentConfig:
        if self.soak and self.after is None:
            raise ValueError(
                "soak says how long a version must be live in another environment: name it, 'after'"
            )
        return self


ENVIRONMENT_KEYS = frozenset(EnvironmentConfig.model_fields) - {"targets"}
"""What an environment may have beside its targets; no target can be called so."""


@dataclass(frozen=True)
class TargetConfig:
    """How to package. ``parse`` gives the options, parsed by the kind's own class, or raises ConfigError.

    They are parsed when first asked for: what packages nothing (``status``, say) need not import the kinds.
    """

    kind: str
    parse: Callable[[], TargetOptions]

    @cached_property
    def options(self) -> TargetOptions:
        return self.parse()

    @property
    def precision(self) -> str:
        return self.options.precision


_Target = Annotated[
    TargetConfig,
    PlainValidator(lambda value: value),
    WithJsonSchema({"type": "object"}),  # schema.py puts the kinds' options in its place
]


class DeployConfig(Section):
    """The whole of ``deploy.yaml``."""

    project: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$", description="name of the project")
    registry: str = Field(
        default="sqlite:///.shipway/mlflow.db", min_length=1, description="MLflow tracking URI"
    )
    store: StoreConfig = Field(
        default_factory=lambda: StoreConfig.model_construct(to=".shipway/store"),
        description="where files, bundles and the ledger are kept",
    )
    convert: ConvertConfig = Field(
        default_factory=ConvertConfig.model_construct, description="how models are converted and judged"
    )
    models: dict[str, ModelConfig] = Field(
        default={}, description="what single models do differently, by name"
    )
    targets: dict[str, _Target] = Field(default={}, description="how to package, by a name of your choice")
    environments: dict[str, EnvironmentConfig] = Field(default={}, description="where bundles go, by name")
    templates: Path | None = Field(
        default=None, description="folder with templates that stand in for built-in ones"
    )

    def conversion(self, model: str) -> ConvertConfig:
        """``convert`` with what ``models.<model>`` does differently."""
        own = self.models.get(model)
        if own is None:
            return self.convert
        return self.convert.model_copy(update={key: getattr(own, key) for key in own.model_fields_set})

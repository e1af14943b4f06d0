"""A project: what ``deploy.yaml`` says, and the store and destinations that it names."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from shipway.registry.config import document
from shipway.registry.config.check import suggestion
from shipway.registry.config.inventory import Inventory
from shipway.registry.config.model import (
    DeployConfig,
    EnvironmentConfig,
    HostConfig,
    PlacementConfig,
    S3Config,
)
from shipway.registry.errors import ConfigError, UsageError
from shipway.registry.store.store import Store

if TYPE_CHECKING:
    from shipway.registry.s3.bucket import Service
    from shipway.targets.base import Target
    from shipway.targets.deliveries.base import Delivery
    from shipway.targets.deliveries.ssh_address import Address

_SQLITE = "sqlite:///"


@dataclass(frozen=True)
class Project:
    """``config`` as read, and ``root``, the folder of ``deploy.yaml``, where relative paths start.

    ``source`` is what messages call the file; ``lines`` where each of its keys stands. ``inventory`` has what
    an inventory says of single hosts, by environment and target.
    """

    config: DeployConfig
    root: Path
    source: str = "deploy.yaml"
    lines: Mapping[document.Path, int] = field(default_factory=dict)
    inventory: Inventory = field(default_factory=dict)

    def where(self, *path: str) -> str:
        """``deploy.yaml:12: targets.mobile``: how messages name a place in the file."""
        line = document.Document(None, self.lines, ()).line(path)
        return (
            f"{self.source}:{line}: {document.dotted(path)}"
            if line
            else f"{self.source}: {document.dotted(path)}"
        )

    def path(self, text: str | Path) -> Path:
        """A path of ``deploy.yaml`` as an absolute one."""
        return self.root / Path(text).expanduser()

    @cached_property
    def store(self) -> Store:
        """Made when first asked for; a bucket's files are fetched once, into ``.shipway/cache``."""
        to = self.config.store.to
        if to.startswith("s3://"):
            from shipway.registry.store.s3 import S3Objects

            with self._naming("store"):
                return Store(S3Objects(to, self.path(".shipway/cache"), _service(self.config.store)))
        from shipway.registry.store.folder import FolderObjects

        return Store(FolderObjects(self.path(to)))

    @property
    def registry_uri(self) -> str:
        """MLflow's tracking URI; a relative sqlite file or folder made absolute."""
        uri = self.config.registry
        if uri.startswith(_SQLITE):
            return _SQLITE + str(self.path(uri.removeprefix(_SQLITE)))
        if "://" in uri or ":" in uri.split("/")[0] or uri == "databricks":
            return uri
        return str(self.path(uri))

    @property
    def artifacts(self) -> Path:
        """Where MLflow on sqlite keeps its files: beside the database. A server has a place of its own."""
        if self.registry_uri.startswith(_SQLITE):
            return Path(self.registry_uri.removeprefix(_SQLITE)).parent / "artifacts"
        return self.path(".shipway/artifacts")

    @property
    def templates(self) -> Path | None:
        """The user's template folder as an absolute path."""
        return self.path(self.config.templates) if self.config.templates else None

    def environment(self, name: str) -> EnvironmentConfig:
        """Raises UsageError where ``deploy.yaml`` has no such environment."""
        found = self.config.environments.get(name)
        if found is None:
            raise UsageError(
                f"There is no environment {name!r} in {self.source}.",
                why=f"Under 'environments': {suggestion(name, self.config.environments)}",
                remedy="Name one of them, or add it to the file.",
            )
        return found

    def placements(self, environment: str, targets: Sequence[str] = ()) -> dict[str, PlacementConfig]:
        """The destinations of an environment by target: those named, or all. Raises UsageError."""
        there = self.environment(environment).targets
        for target in targets:
            if target not in there:
                raise UsageError(
                    f"Environment {environment!r} has no target {target!r} in {self.source}.",
                    why=f"Under 'environments.{environment}': {suggestion(target, there)}",
                    remedy="Name one of them, or add it to the file.",
                )
        if not there:
            raise UsageError(
                f"Environment {environment!r} has no targets in {self.source}.",
                remedy=f"Add one under 'environments.{environment}': browser: {{to: ./deployed/browser}}",
            )
        return {name: placement for name, placement in there.items() if not targets or name in targets}

    def delivery(self, environment: str, target: str, *, to: str | None = None) -> Delivery:
        """Performs steps at the destination. Raises UsageError; ConfigError for an address that is none.

        ``to`` is an earlier address, where something of the target was left that may be in the file no more.
        """
        placement = self._placement(environment, target, to)
        if placement.to.startswith("ssh://"):
            return self._hosts(environment, target, placement)
        if placement.to.startswith("s3://"):
            with self._naming("environments", environment, target, "to"):
                return self._bucket(placement)
        from shipway.targets.deliveries.folder import FolderDelivery

        return FolderDelivery(self.path(placement.to), self.store.open)

    def _placement(self, environment: str, target: str, to: str | None) -> PlacementConfig:
        there = self.environment(environment).targets
        if to is None:
            return self.placements(environment, [target])[target]
        if target in there:
            return there[target].model_copy(update={"to": to})
        try:
            return PlacementConfig(to=to)
        except ValueError as error:  # no address, or one of hosts that nobody knows any more
            raise ConfigError(
                f"{to!r}, where {environment}/{target} once was, can't be reached without its settings.",
                why=str(error),
                remedy=f"Add {target!r} to {self.source} again.",
            ) from error

    def _bucket(self, placement: PlacementConfig) -> Delivery:
        """Reached as it says, or as the store is: then what the store has is copied within the service."""
        from shipway.registry.store.s3 import origin
        from shipway.targets.deliveries.s3 import S3Delivery

        service = _service(placement.s3 or self.config.store)
        return S3Delivery(placement.to, self.store.open, service, origin=origin(self.store))

    @contextlib.contextmanager
    def _naming(self, *path: str) -> Iterator[None]:
        """Errors about an address begin with its place in the file."""
        try:
            yield
        except ConfigError as error:
            error.what = f"{self.where(*path)}: {error.what}"
            raise

    def _hosts(self, environment: str, target: str, placement: PlacementConfig) -> Delivery:
        """One host, or several as one destination."""
        from shipway.targets.deliveries.deltas import Deltas
        from shipway.targets.deliveries.fleet import Fleet
        from shipway.targets.deliveries.ssh import SshDelivery
        from shipway.targets.deliveries.ssh_address import Address, SshOptions

        options = SshOptions(
            self.path(placement.ssh.known_hosts) if placement.ssh.known_hosts else None,
            tuple(map(self.path, placement.ssh.keys)),
        )
        with self._naming("environments", environment, target, "to"):
            if not placement.hosts:
                return SshDelivery(Address.parse(placement.to), self.store.open, options)
            known = self.inventory.get((environment, target), {})
            addresses = {host: _address(placement.to, host, known.get(host)) for host in placement.hosts}
        fetch = self.store.open
        deltas = Deltas(fetch)
        return Fleet(
            placement.to,
            {
                host: SshDelivery(address, fetch, options, deltas=deltas)
                for host, address in addresses.items()
            },
        )

    def target(self, name: str) -> Target:
        """The packager called ``name``, with its options. Raises UsageError where there is none."""
        from shipway.targets.loader import load_kind

        found = self.config.targets.get(name)
        if found is None:
            raise UsageError(
                f"There is no target {name!r} in {self.source}.",
                why=f"Under 'targets': {suggestion(name, self.config.targets)}",
                remedy="Name one of them, or add it to the file.",
            )
        return load_kind(found.kind)(found.options)


def _address(to: str, host: str, own: HostConfig | None) -> Address:
    """A host's address: ``to`` with the host in it, and what the inventory says of that host."""
    from shipway.targets.deliveries.ssh_address import for_host

    if own is None:
        return for_host(to, host)
    found = for_host(to, own.address or host)
    return replace(found, user=own.user or found.user, port=own.port or found.port)


def _service(config: S3Config) -> Service:
    from shipway.registry.s3.bucket import Service

    return Service(endpoint=config.endpoint, region=config.region, profile=config.profile)

"""One environment, as far as one command is concerned with it: its ledger, destinations and configuration.

What ``promote`` and ``rollback`` share: recover what a killed command left, look, plan, carry out.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from shipway.registry.config.model import PlacementConfig
from shipway.registry.config.project import Project
from shipway.registry.deploy import approval, hooks, mirror
from shipway.registry.deploy.execute import Deployment, Watch, execute, unwatched
from shipway.registry.deploy.plan import Found, Plan, Seen, Wanted
from shipway.registry.deploy.planning import gates, plan_promotion
from shipway.registry.deploy.recover import There, recover
from shipway.registry.deploy.waves import allowed_failures, decide, waves
from shipway.registry.errors import ConfigError, ConflictError, IntegrityError, NotFoundError, ShipwayError
from shipway.registry.ledger.events import Kind, Place, Standing, Started
from shipway.registry.ledger.ledger import Head, Ledger
from shipway.registry.nouns import Digest, File, Json, ModelVersion
from shipway.registry.observe import SILENT, Advance, Confirm, Observer
from shipway.targets.deliveries.base import Delivery
from shipway.targets.deliveries.fleet import each, failure
from shipway.targets.manifest import PREFLIGHT, Manifest
from shipway.targets.steps import Gate, Preflight, Release


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a command was to do, and what it did: nothing in a dry run. ``version`` is what was promoted."""

    plan: Plan
    deployments: tuple[Deployment, ...] = ()
    version: ModelVersion | None = None

    def to_json(self) -> Json:
        return {"deployments": [deployment.to_json() for deployment in self.deployments]}


@dataclass(frozen=True, slots=True)
class Goal:
    """A bundle that shall be live on a target; ``restores`` is the serial that a rollback goes back to."""

    manifest: Manifest
    restores: int | None = None


class Site:
    """The targets of ``environment`` that the command names, or all. Raises UsageError for unknown names."""

    def __init__(self, project: Project, environment: str, targets: Sequence[str] = ()) -> None:
        self.project = project
        self.environment = environment
        self.placements = project.placements(environment, targets)
        self.ledger = Ledger(project.store.objects)
        self._deliveries: dict[Place, Delivery] = {}
        self._heads: dict[str, Head] = {}
        self._bundles: dict[Digest, tuple[File, ...]] = {}

    @property
    def targets(self) -> tuple[str, ...]:
        return tuple(self.placements)

    @cached_property
    def places(self) -> tuple[Place, ...]:
        return tuple(Place(self.environment, target) for target in self.placements)

    def delivery(self, place: Place) -> Delivery:
        if place not in self._deliveries:
            self._deliveries[place] = self.project.delivery(place.environment, place.target)
        return self._deliveries[place]

    def head(self, target: str) -> Head:
        """The newest serial, read once for a command: all that it decides rests on one look at the ledger.

        Claiming the serial after it then proves that nothing has changed since.
        """
        if target not in self._heads:
            self._heads[target] = self.ledger.head(Place(self.environment, target))
        return self._heads[target]

    def live(self, target: str) -> Started | None:
        """What the ledger says is live on ``target``."""
        serial = self.head(target).standing.live
        return self.ledger.started(Place(self.environment, target), serial) if serial is not None else None

    def recover(self, observer: Observer = SILENT) -> None:
        """Finish or undo what a killed command left. Raises ConflictError where one is still at work."""
        self._heads.clear()
        if recover(self.ledger, self.places, self._there, self._gates, observer):
            mirror.start(self.project)

    def plan(
        self,
        kind: Kind,
        goals: Mapping[str, Goal],
        *,
        reason: str = "",
        accept: str | None = None,
        observer: Observer = SILENT,
    ) -> Plan:
        """Decide what to do so that each goal is live on its target."""
        seen: dict[str, Seen] = {}
        wanted = []
        for target, goal in goals.items():
            want = self._wanted(kind, target, goal)
            hosts = len(self.placements[target].hosts) or None
            with observer.phase(f"look at {self.environment}/{target}", hosts) as progress:
                seen[target] = self._seen(want, progress)
            wanted.append(self._in_waves(kind, want, seen[target]))
        return plan_promotion(kind, self.environment, wanted, seen, reason=reason, accept=accept)

    def carry_out(
        self,
        plan: Plan,
        *,
        observer: Observer = SILENT,
        confirm: Confirm | None = None,
        watch: Watch = unwatched,
    ) -> tuple[Deployment, ...]:
        """Execute the plan, then have MLflow's aliases follow. Raises what ``execute`` raises."""
        self._refuse_busy(plan)
        approval.ask(self.project, plan, confirm)
        hooks.before(self.project, plan, observer)
        deliveries = {move.target: self.delivery(Place(self.environment, move.target)) for move in plan.moves}
        try:
            deployments = execute(
                plan, self.ledger, deliveries, observer=observer, confirm=confirm, watch=watch
            )
        finally:
            self._heads.clear()
        mirror.start(self.project)
        hooks.after(self.project, plan, deployments, observer)
        return deployments

    def _refuse_busy(self, plan: Plan) -> None:
        """Raise ConflictError where a plan was made while somebody else deployed."""
        for move in plan.moves:
            holder = self.head(move.target).open
            if holder is not None:
                raise ConflictError(
                    f"Somebody else deploys to {holder.place}.",
                    why=f"{holder.actor} is at {holder.model}/{holder.version} since {holder.at}.",
                    remedy="Wait for it ('shipway status' shows it), then run the command again.",
                )

    # what the plan is made from

    def _wanted(self, kind: Kind, target: str, goal: Goal) -> Wanted:
        release = Release(goal.manifest)
        placement = self.placements[target]
        programs = self.delivery(Place(self.environment, target)).programs
        asked = goal.manifest.file(PREFLIGHT) if programs == "there" else None
        activation = () if programs == "nowhere" else self.project.target(target).activation(release)
        return Wanted(
            target=target,
            release=release,
            preflight=(Preflight(release, asked),) if asked else (),
            activation=tuple(activation),
            gates=tuple(_configured_gates(placement)),
            restores=goal.restores,
            keep=placement.keep,
            to=placement.to,
            allowed=_allowed(kind, placement),
        )

    def _in_waves(self, kind: Kind, want: Wanted, there: Seen) -> Wanted:
        """With the waves of ``deploy.yaml``, cut from the hosts that answer; a rollback goes all at once."""
        placement = self.placements[want.target]
        if not placement.hosts:
            return want
        if kind == "rollback":
            return replace(want, waves=(tuple(there.hosts),))
        cut = tuple(waves(tuple(there.hosts), placement.waves))
        return replace(want, waves=cut, pause=placement.pause, confirm=placement.confirm)

    def _seen(self, want: Wanted, progress: Advance) -> Seen:
        place = Place(self.environment, want.target)
        manifest, head = want.release.manifest, self.head(want.target)
        live = self.live(want.target)
        again = live is not None and live.bundle == want.release.bundle

        bases = self._bases(place, live, head.standing) if self.delivery(place).patches else ()

        def look(_: str, delivery: Delivery) -> Found:
            placed, pointer = delivery.has(manifest), delivery.pointer()
            likely = self._files(pointer.bundle) + bases if pointer and delivery.patches else bases
            held = (
                frozenset() if placed else delivery.holds(file.digest for file in (*manifest.files, *likely))
            )
            progress.advance()
            return Found(
                pointer=pointer,
                placed=placed,
                damaged=placed and again and not delivery.audit(manifest).whole,
                held=held,
                releases=delivery.releases(),
                bases=tuple(file for file in likely if file.digest in held),
            )

        hosts, lost = each(self.delivery(place), look)
        if decide(len(lost), want.allowed, len(hosts) + len(lost)) == "stop":
            raise failure(lost, len(hosts) + len(lost))
        for found in hosts.values():
            one = found.pointer
            if one is not None and (one.environment, one.target) != (place.environment, place.target):
                raise self._taken(place, f"{one.environment}/{one.target}")
        most = max(len(found.releases) for found in hosts.values())
        return Seen(
            serial=head.serial,
            live=live.pointer if live else None,
            hosts=hosts,
            lost={host: error.what for host, error in lost.items()},
            chain=self._chain(place, want, head.standing) if most > want.keep else None,
        )

    def _bases(self, place: Place, live: Started | None, standing: Standing) -> tuple[File, ...]:
        """Files of what is live and of what a rollback would restore."""
        older = next(iter(self.ledger.chain(place, standing)), None)
        return tuple(file for started in (live, older) if started for file in self._files(started.bundle))

    def _files(self, bundle: Digest) -> tuple[File, ...]:
        """What a bundle consists of; nothing where the store has lost it."""
        if bundle not in self._bundles:
            try:
                self._bundles[bundle] = self.project.store.bundle(bundle).files
            except (NotFoundError, IntegrityError):
                self._bundles[bundle] = ()
        return self._bundles[bundle]

    def _chain(self, place: Place, want: Wanted, standing: Standing) -> tuple[str, ...]:
        """Releases that repeated rollbacks would restore once ``want`` is live, the first ``keep`` + 1."""
        if want.restores is not None:
            standing = self.ledger.standing_after(place, want.restores)
            older = self.ledger.chain(place, standing)
        else:
            live = [self.ledger.started(place, standing.live)] if standing.live is not None else []
            older = itertools.chain(live, self.ledger.chain(place, standing))
        return tuple(started.release for started in itertools.islice(older, want.keep + 1))

    def _there(self, started: Started) -> There:
        """Where a deployment went that another command left: ``deploy.yaml`` may have changed since."""
        place = started.place
        placement = self.project.environment(place.environment).targets.get(place.target)
        if placement is not None and started.to in ("", placement.to):
            return There(self.delivery(place), True, _allowed(started.kind, placement))
        if not started.to:
            return There(None, current=False)
        try:
            delivery = self.project.delivery(place.environment, place.target, to=started.to)
            delivery.pointer()  # raises where it can't be reached
        except ShipwayError:
            return There(None, current=False)
        return There(delivery, current=False)

    def _gates(self, started: Started) -> list[Gate]:
        """The gates of a deployment that another command left behind."""
        release = Release(self.project.store.bundle(started.bundle))
        placement = self.project.environment(self.environment).targets.get(started.place.target)
        if placement is None:
            return [Gate(release, "digests", {})]
        want = Wanted(started.place.target, release, gates=tuple(_configured_gates(placement)))
        return [Gate(release, "digests", {}), *gates(want, started.pointer)]

    def _taken(self, place: Place, other: str) -> ConfigError:
        where = self.project.where("environments", place.environment, place.target, "to")
        return ConfigError(
            f"{where}: that destination is in use by {other}.",
            why="Its current.json says so; two targets in one place would take turns in being live.",
            remedy="Give this one another place, or remove current.json if the other is gone for good.",
        )


def _configured_gates(placement: PlacementConfig) -> Iterator[tuple[str, Mapping[str, Json]]]:
    """The gates that ``deploy.yaml`` adds to the digests, by name, with their options."""
    gate = placement.gate
    if gate.check:
        yield "check", {}
    if gate.url is not None:
        yield "url", {"url": gate.url, "p95_ms": gate.p95_ms, "timeout_s": gate.timeout_s}
    if gate.command is not None:
        yield "command", {"argv": gate.command}


def _allowed(kind: Kind, placement: PlacementConfig) -> int:
    """How many hosts may fail. A rollback is held up by none: whatever can go back shall."""
    hosts = len(placement.hosts)
    return max(0, hosts - 1) if kind == "rollback" else allowed_failures(placement.failures, hosts)

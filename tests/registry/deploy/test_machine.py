"""Promote, roll back, fail, get killed, damage, prune, run again: against a stack kept by hand."""

from __future__ import annotations

import collections
import contextlib
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from deploy_scene import (
    assert_ledger_is_sound,
    assert_live_is_whole,
    assert_nothing_left,
    bundle,
    change,
    forked,
    pointers,
    project_at,
    put_live,
)
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from shipway.registry.deploy.plan import Task
from shipway.registry.deploy.site import Site
from shipway.registry.errors import DeliveryError, NotFoundError
from shipway.registry.verbs.rollback import rollback
from shipway.registry.verbs.status import status

VERSIONS = st.integers(1, 5)
TARGETS = st.sampled_from([("one",), ("two",), ("one", "two")])
visited: collections.Counter[str] = collections.Counter()
states: set[object] = set()
"""What was live, and what a rollback would restore, in each target after a step."""


class Model:
    """One target as it should be: a stack of (serial, version), and the stack right after each serial."""

    def __init__(self) -> None:
        self.serial = 0
        self.stack: list[tuple[int, int]] = []
        self.after: dict[int, list[tuple[int, int]]] = {}

    @property
    def live(self) -> tuple[int, int] | None:
        return self.stack[-1] if self.stack else None

    @property
    def candidate(self) -> tuple[int, int] | None:
        return self.stack[-2] if len(self.stack) > 1 else None

    def promoted(self, version: int) -> None:
        if self.live and self.live[1] == version:
            return
        self.serial += 1
        self.stack = [*self.stack, (self.serial, version)]
        self.after[self.serial] = self.stack

    def went_back(self, serial: int) -> None:
        older = self.after[serial]
        self.serial += 1
        self.stack = [*older[:-1], (self.serial, older[-1][1])]
        self.after[self.serial] = self.stack


class Machine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="shipway-machine-"))
        self.project = project_at(self.root, keep=1, gate="{}")
        self.bundles = {version: bundle(self.project, version) for version in range(1, 6)}
        self.models = {"one": Model(), "two": Model()}

    @initialize()
    def start_with_something_to_go_back_to(self) -> None:
        for version in (1, 2):
            self.promote(version, ("one", "two"))

    def teardown(self) -> None:
        shutil.rmtree(self.root)

    @rule(version=VERSIONS, where=TARGETS)
    def promote(self, version: int, where: tuple[str, ...]) -> None:
        put_live(self.project, self.bundles[version], targets=where)
        for target in where:
            self.models[target].promoted(version)
        visited["promoted"] += 1

    @rule(where=TARGETS)
    def roll_back(self, where: tuple[str, ...]) -> None:
        going = [self.models[target] for target in where if self.models[target].live]
        if not going or any(model.candidate is None for model in going):
            with pytest.raises(NotFoundError):
                rollback(self.project, "prod", targets=where)
            visited["nothing to roll back to"] += 1
            return
        rollback(self.project, "prod", targets=where)
        for model in going:
            assert model.candidate is not None
            model.went_back(model.candidate[0])
        visited["rolled back"] += 1

    @rule(version=VERSIONS, at=st.sampled_from(["one", "two"]))
    def roll_back_to(self, version: int, at: str) -> None:
        model = self.models[at]
        serials = [serial for serial, stack in model.after.items() if stack[-1][1] == version]
        if not serials:
            with pytest.raises(NotFoundError):
                rollback(self.project, "prod", targets=[at], to_version=version)
            return
        rollback(self.project, "prod", targets=[at], to_version=version)
        if model.live and model.live[1] != version:
            model.went_back(max(serials))
        visited["rolled back to a version"] += 1

    @rule(version=VERSIONS, where=TARGETS, step=st.integers(0, 20), after=st.booleans())
    def fail(self, version: int, where: tuple[str, ...], step: int, after: bool) -> None:
        left = [step]

        def break_down(moment: str, task: Task) -> None:
            if moment == ("after" if after else "before"):
                if left[0] == 0:
                    raise DeliveryError("on purpose")
                left[0] -= 1

        try:
            put_live(self.project, self.bundles[version], targets=where, watch=break_down)
        except DeliveryError:
            for target in where:
                model = self.models[target]
                model.serial += not (model.live and model.live[1] == version)
            visited["failed"] += 1
        else:
            for target in where:
                self.models[target].promoted(version)

    @rule(version=VERSIONS, where=TARGETS, point=st.integers(0, 140), again=st.integers(0, 60))
    def killed(self, version: int, where: tuple[str, ...], point: int, again: int) -> None:
        """Killed somewhere; the next command is perhaps killed while it tidies up; the third one looks."""
        moving = [t for t in where if not self._is_live(t, version)]
        serials = {target: self._newest(target) for target in where}
        work = lambda: put_live(self.project, self.bundles[version], targets=where)  # noqa: E731
        if forked(work, die=change(point)) == 0:
            for target in where:
                self.models[target].promoted(version)
            return
        forked(lambda: Site(self.project, "prod").recover(), die=change(again))
        Site(self.project, "prod").recover()
        done = {target: self._is_live_there(target, version) for target in moving}
        assert len(set(done.values())) <= 1  # all of them or none
        for target in moving:
            if done[target]:
                self.models[target].promoted(version)
            else:
                self.models[target].serial += self._newest(target) - serials[target]
        visited["killed, finished" if any(done.values()) else "killed, undone"] += 1

    @rule(at=st.sampled_from(["one", "two"]), data=st.data())
    def damage(self, at: str, data: st.DataObject) -> None:
        """Somebody edits, or removes, a release that is not live."""
        releases = self.root / "out/prod" / at / "releases"
        live = self.models[at].live
        names = sorted(path.name for path in releases.iterdir()) if releases.is_dir() else []
        names = [name for name in names if live is None or name != self.bundles[live[1]].release_id]
        if names:
            home = releases / data.draw(st.sampled_from(names))
            if data.draw(st.booleans()):
                shutil.rmtree(home)
            else:
                with contextlib.suppress(FileNotFoundError):
                    (home / "model/graph.onnx").write_bytes(b"edited")
            visited["damaged"] += 1

    @invariant()
    def all_is_as_it_should_be(self) -> None:
        states.add(
            tuple((m.live and m.live[1], m.candidate and m.candidate[1]) for m in self.models.values())
        )
        assert pointers(self.project) == {target: model.live for target, model in self.models.items()}
        found = status(self.project, "prod")["prod"]
        for target, model in self.models.items():
            assert self._newest(target) == model.serial
            assert found[target].healthy == bool(model.live)
            candidate = model.candidate
            assert found[target].rollback_to == (candidate[1] if candidate else None)
        assert_live_is_whole(self.project)
        assert_ledger_is_sound(self.project)
        assert_nothing_left(self.project)

    def _newest(self, target: str) -> int:
        return Site(self.project, "prod").head(target).serial

    def _is_live(self, target: str, version: int) -> bool:
        live = self.models[target].live
        return live is not None and live[1] == version

    def _is_live_there(self, target: str, version: int) -> bool:
        there = pointers(self.project)[target]
        return there is not None and there[1] == version


def test_any_sequence_of_events_leaves_what_the_stack_says(record_counts: Callable[[str, int], None]) -> None:
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=25,
            stateful_step_count=15,
            deadline=None,
            derandomize=True,
            phases=[Phase.generate],  # shrinking deployments takes longer than reading the steps
            suppress_health_check=list(HealthCheck),
        ),
    )
    for what, times in visited.items():
        record_counts(f"state machine: {what}", times)
    record_counts("state machine: different states", len(states))
    assert visited["killed, undone"] > 3
    assert visited["failed"] > 3
    assert visited["rolled back"] > 3

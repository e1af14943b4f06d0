"""Fleets in waves: who is touched when, which failures count, what goes back and what the ledger says."""

from __future__ import annotations

import io
import re
import time
from pathlib import Path

import pytest
from deploy_scene import TELLING, assert_ledger_is_sound, bundle
from fleet_scene import TOLERANT, FolderHost, ends, faults, fleet_at, newest, promote, state
from observers import Notes

from shipway.registry.cli import release_views
from shipway.registry.cli.output import print_blocks
from shipway.registry.deploy.plan import Task
from shipway.registry.deploy.site import Goal, Outcome, Site
from shipway.registry.errors import ConflictError, DeliveryError, IntegrityError, UsageError
from shipway.registry.verbs.promote import refuse_unasked
from shipway.registry.verbs.rollback import rollback
from shipway.targets.deliveries.fleet import Fleet, failure
from shipway.targets.steps import Hold, Point

# waves


def test_a_wave_is_gated_before_the_next_one_is_touched(tmp_path: Path) -> None:
    project = fleet_at(tmp_path)
    promote(project, 1)
    project.journal()
    done = promote(project, 2)
    assert ends(done) == dict.fromkeys("abcde", "live")
    order = project.journal()
    for earlier, later in (("a", "bc"), ("bc", "de")):
        last = max(at for at, (host, _) in enumerate(order) if host in earlier and order[at][1] == "Gate")
        first = min(at for at, (host, _) in enumerate(order) if host in later)
        assert last < first
    first_point = min(at for at, (host, step) in enumerate(order) if host in "bc" and step == "Point")
    assert first_point > max(at for at, (host, step) in enumerate(order) if host in "bc" and step == "Seal")
    assert project.versions() == [2] * 5
    assert_ledger_is_sound(project)


def test_what_the_check_ran_on_is_told_once_for_all_hosts(tmp_path: Path) -> None:
    project = fleet_at(tmp_path, more="gate: {check: true}")
    manifest, heard = bundle(project, 1, extra={"check.py": TELLING}), Notes()
    site = Site(project, "prod", ["boards"])
    (done,) = site.carry_out(site.plan("promote", {"boards": Goal(manifest)}), observer=heard)
    (note,) = heard.notes
    said = "its check passed on CPUExecutionProvider; not in use here: CUDAExecutionProvider."
    assert re.fullmatch(f"boards, [a-e]: {said}", note)
    assert [one["host"] for one in done.to_json()["check"]] == list("abcde")


def test_a_target_without_waves_goes_with_the_first_one(tmp_path: Path) -> None:
    project = fleet_at(tmp_path)
    promote(project, 1, targets=())
    site = Site(project, "prod")
    plan = site.plan("promote", {target: Goal(bundle(project, 2)) for target in site.targets})
    pointed = [(task.target, task.hosts) for task in plan.tasks if isinstance(task.step, Point)]
    assert pointed == [
        ("server", ()),
        ("boards", ("a",)),
        ("boards", ("b", "c")),
        ("boards", ("d", "e")),
    ]


def test_a_plan_shows_the_waves_and_counts_the_bytes_of_every_host(tmp_path: Path) -> None:
    project = fleet_at(tmp_path, more=TOLERANT)
    manifest = bundle(project, 1)
    with faults(project, e="down"):
        plan = Site(project, "prod", ["boards"]).plan("promote", {"boards": Goal(manifest)})
    data = plan.to_json()
    assert data["targets"][0]["waves"] == [["a"], ["b", "c"], ["d"]]
    assert data["targets"][0]["allowed_failures"] == 2
    assert data["targets"][0]["unreachable"] == {"e": "e cannot be reached."}
    assert data["bytes_to_send"] == 4 * sum(file.size for file in manifest.files)
    assert [step["hosts"] for step in data["steps"] if step["step"] == "point"] == [["a"], ["b", "c"], ["d"]]
    with io.StringIO() as page:
        print_blocks(release_views.plan(Outcome(plan)), page)
        text = page.getvalue()
    assert "boards: 4 hosts in 3 waves (1, 2, 1); 2 may fail." in text
    assert "boards: e is left out. e cannot be reached." in text
    assert "  boards (2 hosts): send 3 files" in text
    assert not (tmp_path / "hosts").exists()


# failures


def test_hosts_that_fail_go_back_alone_while_few_enough_do(tmp_path: Path) -> None:
    project = fleet_at(tmp_path, more=TOLERANT)
    promote(project, 1)
    with faults(project, c="fails at Gate", d="fails at Stage"):
        done = promote(project, 2)
    assert done.outcome == "live"
    assert ends(done) == {"a": "live", "b": "live", "c": "failed", "d": "failed", "e": "live"}
    assert project.versions() == [2, 2, 1, 1, 2]
    by_host = {host.host: host for host in done.hosts}
    assert "Gate failed on c" in by_host["c"].detail
    assert by_host["a"].bytes_sent > by_host["d"].bytes_sent == 0
    assert done.bytes_sent == sum(host.bytes_sent for host in done.hosts)
    ended = newest(project).ended
    assert ended is not None
    assert [(host.host, host.outcome) for host in ended.hosts] == [("c", "failed"), ("d", "failed")]
    assert ended.detail == "not on 2 of 5 hosts: c, d"
    assert [host["host"] for host in newest(project).to_json()["hosts"]] == ["c", "d"]
    assert [host["outcome"] for host in done.to_json()["hosts"]].count("live") == 3
    assert not (project.root / "hosts/c/.staging").exists()


def test_one_failure_too_many_takes_all_back_and_touches_no_later_wave(tmp_path: Path) -> None:
    project = fleet_at(tmp_path, more="waves: [1, 2, '100%']\n      failures: 1")
    promote(project, 1)
    project.journal()
    with (
        faults(project, b="fails at Gate", c="fails at Gate"),
        pytest.raises(DeliveryError, match=r"^2 of 5 hosts failed: b, c\.") as caught,
    ):
        promote(project, 2)
    assert "Gate failed on c. That is its fault." in caught.value.why
    assert project.versions() == [1] * 5
    assert {host for host, _ in project.journal()} == {"a", "b", "c"}
    ended = newest(project).ended
    assert ended is not None
    assert (ended.outcome, [host.host for host in ended.hosts]) == ("failed", ["b", "c"])
    releases = project.host("a").releases()
    assert bundle(project, 2).release_id in releases  # clients saw it there
    assert_ledger_is_sound(project)


def test_a_first_host_that_fails_stops_all_however_many_may_fail(tmp_path: Path) -> None:
    project = fleet_at(tmp_path, more="waves: [1, '100%']\n      failures: '80%'")
    promote(project, 1)
    project.journal()
    with faults(project, a="fails at Gate"), pytest.raises(DeliveryError, match="1 of 5 hosts failed"):
        promote(project, 2)
    assert project.versions() == [1] * 5
    assert {host for host, _ in project.journal()} == {"a"}


def test_a_failed_wave_that_was_only_put_in_place_leaves_nothing(tmp_path: Path) -> None:
    project = fleet_at(tmp_path, more="waves: ['100%']")
    promote(project, 1)
    with faults(project, e="fails at Seal"), pytest.raises(DeliveryError):
        promote(project, 2)
    assert all(len(project.host(name).releases()) == 1 for name in "abcde")
    assert project.versions() == [1] * 5


def test_a_gate_that_is_accepted_is_passed_by_host_by_host(tmp_path: Path) -> None:
    project = fleet_at(tmp_path, more="gate: {check: true}")
    site = Site(project, "prod", ["boards"])
    plan = site.plan("promote", {"boards": Goal(bundle(project, 1, good=False))}, accept="known")
    (done,) = site.carry_out(plan)
    assert ends(done) == dict.fromkeys("abcde", "live")
    ended = newest(project).ended
    assert ended is not None
    assert "accepted though gate check failed on b" in ended.detail


def test_accept_leads_past_a_gate_s_verdict_not_past_a_host_where_none_can_be_had(tmp_path: Path) -> None:
    project = fleet_at(tmp_path, more="gate: {check: true}\n      failures: 1")
    site = Site(project, "prod", ["boards"])
    plan = site.plan("promote", {"boards": Goal(bundle(project, 1, good=False))}, accept="known")
    with faults(project, e="fails at gate check"):
        (done,) = site.carry_out(plan)
    assert ends(done) == {**dict.fromkeys("abcd", "live"), "e": "failed"}
    assert project.versions() == [1] * 4 + [None]


# hosts that are out of reach


def test_the_same_command_later_brings_along_who_was_away_and_sends_nothing_to_the_others(
    tmp_path: Path,
) -> None:
    project = fleet_at(tmp_path, more=TOLERANT)
    promote(project, 1)
    with faults(project, b="down", d="dies at Seal"):
        done = promote(project, 2)
        assert ends(done) == {"a": "live", "b": "unreachable", "c": "live", "d": "unreachable", "e": "live"}
        assert project.versions() == [2, 1, 2, 1, 2]
        assert promote(project, 2).outcome == "unchanged"  # whoever answers has it
    project.journal()
    caught_up = promote(project, 2)
    assert (caught_up.serial, caught_up.outcome) == (3, "live")
    assert project.versions() == [2] * 5
    order = project.journal()
    steps = {name: {step for host, step in order if host == name} for name in "abcde"}
    sent = {host.host: host.bytes_sent for host in caught_up.hosts}
    assert all(sent[name] < 500 for name in "ace")  # the pointer
    assert sent["b"] > 900
    assert caught_up.bytes_sent == sum(sent.values())
    assert steps["a"] == {"Seal", "Point", "Gate"}
    assert "Send" in steps["b"]
    assert promote(project, 2).outcome == "unchanged"
    assert_ledger_is_sound(project)


def test_too_many_hosts_away_changes_nothing(tmp_path: Path) -> None:
    project = fleet_at(tmp_path, more=TOLERANT)
    promote(project, 1)
    with faults(project, a="down", b="down", c="down"), pytest.raises(DeliveryError, match="3 of 5 hosts"):
        promote(project, 2)
    assert newest(project).started.serial == 1
    with faults(project, **dict.fromkeys("abcde", "down")), pytest.raises(DeliveryError):
        promote(fleet_at(tmp_path, more="failures: '100%'"), 2)
    assert newest(project).started.serial == 1


def test_hosts_that_are_away_count_among_those_that_fail(tmp_path: Path) -> None:
    project = fleet_at(tmp_path, more=TOLERANT)
    promote(project, 1)
    with (
        faults(project, a="down", c="fails at Gate", d="fails at Gate"),
        pytest.raises(DeliveryError, match="3 of 5 hosts failed: a, c, d"),
    ):
        promote(project, 2)
    assert project.versions() == [1] * 5


def test_a_host_that_dies_when_it_was_pointed_blocks_nobody(tmp_path: Path) -> None:
    project = fleet_at(tmp_path)
    promote(project, 1)
    with faults(project, c="dies after Point"):
        with pytest.raises(DeliveryError) as caught:
            promote(project, 2)
        assert "could not be taken back: c" in caught.value.why
        assert project.versions() == [1, 1, 2, 1, 1]
        event = newest(project)
        assert event.ended is not None
        assert event.outcome == "failed"
        assert event.ended.detail.endswith("could not be taken back: c")
        assert [(host.host, host.outcome) for host in event.ended.hosts] == [("c", "unreachable")]
        assert "4 of 5" not in state(project).problem
        assert state(project).hosts["c"].problem == "c cannot be reached."
    assert state(project).hosts["c"].problem.endswith("(serial 2)")
    assert not state(project).healthy
    done = promote(project, 1)  # what the others have: it brings that one along
    assert (done.outcome, done.serial) == ("live", 3)
    assert project.versions() == [1] * 5
    assert state(project).healthy
    assert_ledger_is_sound(project)


def test_where_nobody_answers_any_more_nothing_is_recorded_until_somebody_does(tmp_path: Path) -> None:
    project = fleet_at(tmp_path, "ab", more="failures: 0")
    promote(project, 1)
    with faults(project, a="dies after Point", b="dies after Point"):
        with pytest.raises(DeliveryError) as caught:
            promote(project, 2)
        assert "Undoing it did not end either" in caught.value.why
        assert newest(project).ended is None
        with pytest.raises(DeliveryError):
            Site(project, "prod", ["boards"]).recover()
        assert newest(project).ended is None
        project.fault("a", "")
        Site(project, "prod", ["boards"]).recover()
        assert newest(project).outcome == "interrupted"
    assert project.versions() == [1, 2]
    promote(project, 3)
    assert project.versions() == [3, 3]
    assert_ledger_is_sound(project)


# between waves


def test_somebody_is_asked_between_waves_and_a_no_takes_all_back(tmp_path: Path) -> None:
    project = fleet_at(tmp_path, more="waves: [1, 2, '100%']\n      confirm: true")
    asked: list[str] = []

    def yes(question: str) -> bool:
        asked.append(question)
        return True

    promote(project, 1, confirm=yes)
    assert ["Go on with wave 2?" in question for question in asked] == [True, False]
    assert "wave 1 of 3 is done, 0 hosts failed so far" in asked[0]
    for no in (lambda question: "wave 2" in question.split("Go on")[1], None):
        with pytest.raises(DeliveryError, match=r"stopped before wave [23] of 3"):
            promote(project, 2, confirm=no)
        assert project.versions() == [1] * 5
        assert newest(project).outcome == "failed"


def test_where_nobody_can_be_asked_nothing_is_begun(tmp_path: Path) -> None:
    project = fleet_at(tmp_path, more="waves: [1, '100%']\n      confirm: true")
    with pytest.raises(UsageError, match="nobody is there") as caught:
        refuse_unasked(project, "prod", (), None)
    assert "--yes" in caught.value.remedy
    refuse_unasked(project, "prod", ["server"], None)
    refuse_unasked(project, "prod", (), lambda question: True)
    refuse_unasked(fleet_at(tmp_path, more="confirm: true"), "prod", (), None)  # one wave: no question


def test_time_passes_between_waves(tmp_path: Path) -> None:
    project = fleet_at(tmp_path, more="waves: [1, '100%']\n      pause: 0.2")
    moments: list[float] = []

    def watch(moment: str, task: Task) -> None:
        if isinstance(task.step, Hold):
            moments.append(time.monotonic())

    promote(project, 1, watch=watch)
    began, ended = moments
    assert ended - began >= 0.2


# going back


def test_a_rollback_goes_all_at_once_and_is_held_up_by_nobody(tmp_path: Path) -> None:
    project = fleet_at(tmp_path, more="waves: [1, 2, '100%']\n      confirm: true")
    for version in (1, 2):
        promote(project, version, confirm=lambda question: True)
    with faults(project, b="down", d="fails at Gate"):
        (done,) = rollback(project, "prod", targets=["boards"]).deployments
        assert ends(done) == {"a": "live", "b": "unreachable", "c": "live", "d": "failed", "e": "live"}
        assert project.versions() == [1, 2, 1, 2, 1]
        assert done.bytes_sent < 5 * 500
        assert not state(project).healthy  # no host may lag in this deploy.yaml
        assert "2 of 5 hosts do not serve it: b, d" in state(project).problem
    assert promote(project, 1, confirm=lambda question: True).outcome == "live"
    assert project.versions() == [1] * 5
    assert_ledger_is_sound(project)


def test_a_rollback_that_works_nowhere_has_failed(tmp_path: Path) -> None:
    project = fleet_at(tmp_path)
    for version in (1, 2):
        promote(project, version)
    with faults(project, **dict.fromkeys("abcde", "fails at Gate")), pytest.raises(DeliveryError):
        rollback(project, "prod", targets=["boards"])
    assert project.versions() == [2] * 5
    assert newest(project).outcome == "failed"


# status


def test_status_counts_the_hosts_and_names_those_that_lag(tmp_path: Path) -> None:
    project = fleet_at(tmp_path, more=TOLERANT)
    promote(project, 1)
    assert state(project).to_json()["hosts"] == {name: {"serial": 1, "problem": ""} for name in "abcde"}
    with faults(project, c="fails at Gate", e="down"):
        promote(project, 2)
        found = state(project)
        assert found.healthy  # two may fail
        assert found.problem == "2 of 5 hosts do not serve it: c, e"
        assert {name: host.serial for name, host in found.hosts.items()} == {
            "a": 2,
            "b": 2,
            "c": 1,
            "d": 2,
            "e": None,
        }
        assert found.hosts["e"].problem == "e cannot be reached."
        assert found.rollback_ready
        project.fault("a", "down")
        assert not state(project).healthy
        project.mend("a")
    assert state(project).problem == "2 of 5 hosts do not serve it: c, e"


# how a fleet works on its hosts


def test_no_more_hosts_are_open_than_may_be(tmp_path: Path) -> None:
    opened: dict[str, None] = {}
    most = 0

    class Host(FolderHost):
        def pointer(self) -> None:
            nonlocal most
            opened[self.root.name] = None
            most = max(most, len(opened))

        def close(self) -> None:
            opened.pop(self.root.name, None)

    project = fleet_at(tmp_path)
    names = [f"h{number}" for number in range(9)]
    hosts = {
        name: Host(tmp_path / name, project.store.open, tmp_path / "x", tmp_path / "y") for name in names
    }
    fleet = Fleet("x", hosts, at_once=3)
    fleet.pointer()
    assert not opened  # a crowd is closed one by one
    fleet.each(lambda _, host: host.pointer(), names[:2])
    fleet.each(lambda _, host: host.pointer(), names[2:4])
    assert sorted(opened) == ["h1", "h2", "h3"]  # who was used last stays
    fleet.each(lambda _, host: host.pointer(), ["h1"])
    fleet.each(lambda _, host: host.pointer(), ["h4"])
    assert sorted(opened) == ["h1", "h3", "h4"]
    fleet.each(lambda _, host: host.pointer(), names)
    fleet.close()
    assert not opened
    assert most == 3


def test_an_error_that_is_no_hosts_fault_is_raised(tmp_path: Path) -> None:
    project = fleet_at(tmp_path)
    fleet = project.delivery("prod", "boards")
    assert isinstance(fleet, Fleet)

    def altered(name: str, _: object) -> None:
        if name == "c":
            raise IntegrityError("the store was altered")

    with pytest.raises(IntegrityError):
        fleet.each(altered)


def test_somebody_else_at_every_host_is_a_conflict_and_at_some_a_failure() -> None:
    busy, down = ConflictError("busy"), DeliveryError("down")
    assert failure({"a": busy, "b": busy}, 3) is busy
    both = failure({"a": busy, "b": down}, 3)
    assert isinstance(both, DeliveryError)
    assert both.what == "2 of 3 hosts failed: a, b."

"""Promote on real folders: what fails is undone everywhere, and the ledger tells the truth."""

from __future__ import annotations

import resource
import shutil
import signal
from pathlib import Path

import pytest
from deploy_scene import (
    TELLING,
    assert_ledger_is_sound,
    assert_live_is_whole,
    assert_nothing_left,
    bundle,
    files_of,
    forked,
    live_versions,
    outcomes,
    place,
    pointers,
    project_at,
    put_live,
)
from observers import Notes

from shipway.registry.config.project import Project
from shipway.registry.deploy.plan import Task
from shipway.registry.deploy.site import Goal, Site
from shipway.registry.errors import ConfigError, DeliveryError, NotFoundError
from shipway.registry.ledger.ledger import Ledger
from shipway.registry.verbs.rollback import rollback
from shipway.targets.deliveries.folder import FolderDelivery
from shipway.targets.steps import Gate, Point, Step


def releases(project: Project, target: str = "one") -> set[str]:
    return set(Site(project, "prod").delivery(place(target)).releases())


def test_promoting_what_is_live_changes_nothing(project: Project) -> None:
    put_live(project, bundle(project, 1))
    before = files_of(project.root)
    done = put_live(project, bundle(project, 1))
    assert [(d.serial, d.outcome, d.bytes_sent) for d in done] == [(1, "unchanged", 0)] * 2
    assert files_of(project.root) == before


def test_promoting_what_is_live_repairs_it_where_it_was_damaged(project: Project) -> None:
    manifest = bundle(project, 1)
    put_live(project, manifest)
    graph = project.root / "out/prod/one/releases" / manifest.release_id / "model/graph.onnx"
    data = graph.read_bytes()
    graph.write_bytes(data[:-1] + b"!")
    done = put_live(project, manifest)
    assert [(d.target, d.serial, d.outcome) for d in done] == [("one", 2, "live"), ("two", 1, "unchanged")]
    assert graph.read_bytes() == data
    with pytest.raises(NotFoundError):
        rollback(project, "prod")


def test_a_gate_that_fails_on_the_second_target_undoes_the_first(project: Project, tmp_path: Path) -> None:
    put_live(project, bundle(project, 1))
    before = pointers(project)
    broken = bundle(project, 2)

    def spoil(moment: str, task: Task) -> None:
        if moment == "before" and isinstance(task.step, Gate) and task.step.name == "check":
            verdict = tmp_path / "out/prod" / task.target / "releases" / broken.release_id / "verdict"
            verdict.write_bytes(b"good" if task.target == "one" else b"bad!")

    with pytest.raises(DeliveryError, match="golden check"):
        put_live(project, broken, watch=spoil)
    assert pointers(project) == before
    assert outcomes(project, "one") == outcomes(project, "two") == ["live", "failed"]
    event = next(iter(Ledger(project.store.objects).events(place("one"))))
    assert event.ended is not None
    assert "golden check" in event.ended.detail
    assert_ledger_is_sound(project)
    assert_live_is_whole(project)


def test_a_first_deployment_that_fails_leaves_nothing_live(project: Project) -> None:
    with pytest.raises(DeliveryError):
        put_live(project, bundle(project, 1, good=False))
    assert pointers(project) == {"one": None, "two": None}
    assert outcomes(project) == ["failed"]
    put_live(project, bundle(project, 2))
    assert pointers(project) == {"one": (2, 2), "two": (2, 2)}


def test_a_first_deployment_that_fails_leaves_no_empty_folder_that_it_made(project: Project) -> None:
    (project.root / "out/prod").mkdir(parents=True)
    (project.root / "out/prod/two").write_text("in the way")
    with pytest.raises(DeliveryError, match="can't be used"):
        put_live(project, bundle(project, 1))
    assert not (project.root / "out/prod/one").exists()
    (project.root / "out/prod/two").unlink()
    (project.root / "out/prod/two").mkdir()  # this one is the user's

    def stop(moment: str, task: Task) -> None:
        if moment == "before" and isinstance(task.step, Point):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        put_live(project, bundle(project, 1), watch=stop)
    assert sorted(path.name for path in (project.root / "out").rglob("*")) == ["prod", "two"]
    put_live(project, bundle(project, 1))
    assert live_versions(project) == {"one": 1, "two": 1}


def test_what_the_check_ran_on_is_told(project: Project) -> None:
    manifest, heard = bundle(project, 1, extra={"check.py": TELLING}), Notes()
    site = Site(project, "prod")
    plan = site.plan("promote", {target: Goal(manifest) for target in site.targets})
    done = site.carry_out(plan, observer=heard)
    said = "its check passed on CPUExecutionProvider; not in use here: CUDAExecutionProvider."
    assert sorted(heard.notes) == [f"one: {said}", f"two: {said}"]
    told = {"host": None, "provider": "CPUExecutionProvider", "missing": ["CUDAExecutionProvider"]}
    assert [one.to_json()["check"] for one in done] == [[told], [told]]


def test_accept_leads_past_a_gate_and_the_ledger_keeps_the_reason(project: Project) -> None:
    put_live(project, bundle(project, 1, good=False), accept="the camera is broken anyway")
    assert live_versions(project) == {"one": 1, "two": 1}
    event = next(iter(Ledger(project.store.objects).events(place("one"))))
    assert event.started.accept == "the camera is broken anyway"
    assert event.ended is not None
    assert "accepted though gate check failed" in event.ended.detail


def test_accept_does_not_lead_past_wrong_digests(project: Project, tmp_path: Path) -> None:
    manifest = bundle(project, 1)

    def spoil(moment: str, task: Task) -> None:
        if moment == "after" and isinstance(task.step, Point):
            path = tmp_path / "out/prod" / task.target / "releases" / manifest.release_id / "check.py"
            path.write_bytes(b"# spoilt")

    with pytest.raises(DeliveryError, match="not what was sent"):
        put_live(project, manifest, accept="never mind", watch=spoil)
    assert live_versions(project) == {"one": None, "two": None}


def test_a_gate_command_of_the_users(tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    project = project_at(tmp_path, gate=f"{{command: [sh, -c, 'cat >> {seen}']}}")
    put_live(project, bundle(project, 7), targets=["one"])
    assert '"version": 7' in seen.read_text()


def test_a_destination_that_is_full_changes_nothing_anywhere(project: Project) -> None:
    put_live(project, bundle(project, 1))
    before = files_of(project.root / "out")
    big = bundle(project, 2, extra={"weights.bin": b"w" * 200_000})

    def with_a_full_disk() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        put_live(project, big)

    assert forked(with_a_full_disk) == 8
    assert files_of(project.root / "out") == before
    assert outcomes(project) == ["live", "failed"]
    assert_ledger_is_sound(project)
    assert_nothing_left(project)
    put_live(project, big)
    assert live_versions(project) == {"one": 2, "two": 2}


def test_a_second_destination_that_can_not_be_written_leaves_the_first_as_it_was(project: Project) -> None:
    (project.root / "out/prod").mkdir(parents=True)
    (project.root / "out/prod/two").write_text("in the way")
    before = files_of(project.root / "out")
    with pytest.raises(DeliveryError, match="can't be used"):
        put_live(project, bundle(project, 1))
    assert files_of(project.root / "out") == before
    assert outcomes(project) == outcomes(project, "two") == ["failed"]


def test_an_interruption_from_the_keyboard_undoes_too(project: Project) -> None:
    put_live(project, bundle(project, 1))

    def interrupt(moment: str, task: Task) -> None:
        if moment == "after" and isinstance(task.step, Point) and task.target == "two":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        put_live(project, bundle(project, 2), watch=interrupt)
    assert live_versions(project) == {"one": 1, "two": 1}
    assert outcomes(project) == ["live", "interrupted"]
    assert_ledger_is_sound(project)


def test_what_could_not_be_undone_is_undone_by_the_next_command_of_the_same_process(
    project: Project,
) -> None:
    put_live(project, bundle(project, 1))
    root = project.root / "out/prod/two"

    def pull_the_plug(moment: str, task: Task) -> None:
        if moment == "after" and isinstance(task.step, Point) and task.target == "two":
            root.rename(root.with_name("unplugged"))
            root.write_text("no folder")

    with pytest.raises(DeliveryError) as caught:
        put_live(project, bundle(project, 2), watch=pull_the_plug)
    assert "next shipway command" in caught.value.remedy
    assert outcomes(project) == ["live", "started"]
    root.unlink()
    root.with_name("unplugged").rename(root)
    put_live(project, bundle(project, 3))
    assert live_versions(project) == {"one": 3, "two": 3}
    assert_ledger_is_sound(project)


def test_old_releases_are_pruned_but_never_live_or_candidate(tmp_path: Path) -> None:
    project = project_at(tmp_path, keep=1)
    made = {version: bundle(project, version) for version in range(1, 7)}
    for version in range(1, 6):
        put_live(project, made[version])
    assert releases(project) == {made[v].release_id for v in (5, 4, 3)}
    rollback(project, "prod")  # 4 is live, 3 the candidate
    assert releases(project) >= {made[v].release_id for v in (4, 3)}
    put_live(project, made[6])  # 4 the candidate, 3 behind it; 5 was left for good
    assert releases(project) == {made[v].release_id for v in (6, 4, 3)}
    rollback(project, "prod")
    rollback(project, "prod")
    assert live_versions(project) == {"one": 3, "two": 3}


def test_as_many_old_releases_stay_as_are_to_be_kept(tmp_path: Path) -> None:
    project = project_at(tmp_path, keep=3)
    made = {version: bundle(project, version) for version in range(1, 8)}
    for version in range(1, 6):
        put_live(project, made[version])
        assert releases(project) == {made[v].release_id for v in range(1, version + 1)}
    for version in (6, 7):  # the live one, the candidate, and three more
        put_live(project, made[version])
        assert releases(project) == {made[v].release_id for v in range(version - 4, version + 1)}


def test_what_can_not_be_pruned_is_left_and_noted(tmp_path: Path) -> None:
    project = project_at(tmp_path, keep=1)
    for version in range(1, 5):
        put_live(project, bundle(project, version))
    (tmp_path / "out/prod/one/releases/stray").mkdir()
    (tmp_path / "out/prod/one/releases/stray/bundle.json").write_text("{}")
    put_live(project, bundle(project, 5))
    assert "stray" not in releases(project)
    assert live_versions(project) == {"one": 5, "two": 5}


def test_a_destination_of_another_target_is_not_taken(project: Project, tmp_path: Path) -> None:
    put_live(project, bundle(project, 1))
    shutil.copy(tmp_path / "out/prod/one/current.json", tmp_path / "out/prod/two/current.json")
    with pytest.raises(
        ConfigError, match=r"environments.prod.two.to: that destination is in use by prod/one"
    ):
        put_live(project, bundle(project, 2))


def test_bytes_sent_are_those_of_new_files(project: Project) -> None:
    first = put_live(project, bundle(project, 1), targets=["one"])[0]
    second = put_live(project, bundle(project, 2), targets=["one"])[0]
    manifest = bundle(project, 2)
    graph = manifest.file("model/graph.onnx")
    assert graph is not None
    assert first.bytes_sent > sum(file.size for file in manifest.files)
    assert graph.size <= second.bytes_sent < graph.size + 1000  # and the pointer


def test_a_dry_run_touches_nothing(project: Project) -> None:
    put_live(project, bundle(project, 1))
    put_live(project, bundle(project, 2))
    before = files_of(project.root)
    outcome = rollback(project, "prod", dry_run=True)
    assert outcome.deployments == ()
    assert [move.release.manifest.version for move in outcome.plan.moves] == [1, 1]
    site = Site(project, "prod")
    assert site.plan("promote", {"one": Goal(bundle(project, 1))}).tasks
    assert files_of(project.root) == before


def test_a_target_that_can_not_be_taken_back_keeps_no_other_from_it(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_live(project, bundle(project, 1))
    perform, broken = FolderDelivery.perform, set[str]()

    def failing(self: FolderDelivery, step: Step) -> int:
        """From its gate on nothing works any more on ``two``."""
        if self.address.endswith("two") and (isinstance(step, Gate) or broken):
            broken.add(self.address)
            raise DeliveryError("The disk of two is gone.")
        return perform(self, step)

    monkeypatch.setattr(FolderDelivery, "perform", failing)
    with pytest.raises(DeliveryError, match="The disk of two is gone") as caught:
        put_live(project, bundle(project, 2))
    assert "Undoing it did not end either" in caught.value.why
    assert live_versions(project) == {"one": 1, "two": 2}
    monkeypatch.undo()
    monkeypatch.setenv("SHIPWAY_MIRROR", "off")
    Site(project, "prod").recover()  # the next command takes back what could not be
    assert live_versions(project) == {"one": 1, "two": 1}
    assert_ledger_is_sound(project)

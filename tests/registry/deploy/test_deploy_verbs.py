"""The verbs as a program calls them: what promote refuses, what status, history and resolve say and read."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from deploy_scene import bundle, files_of, forked, live_versions, naming, place, put_live
from version_scene import register

from shipway.registry.config.load import load_text
from shipway.registry.config.project import Project
from shipway.registry.deploy.site import Goal, Site
from shipway.registry.errors import (
    ConflictError,
    DeliveryError,
    NotFoundError,
    UsageError,
    VerificationError,
)
from shipway.registry.ledger import owner
from shipway.registry.ledger.ledger import Ledger
from shipway.registry.nouns import ModelRef, Variant
from shipway.registry.store.folder import FolderObjects
from shipway.registry.store.store import Store
from shipway.registry.verbs.history import history
from shipway.registry.verbs.plan import plan
from shipway.registry.verbs.promote import promote
from shipway.registry.verbs.resolve import resolve
from shipway.registry.verbs.rollback import rollback
from shipway.registry.verbs.status import look, running, status

OCR_1, OCR_2 = ModelRef("ocr", version=1), ModelRef("ocr", version=2)


@pytest.fixture
def plain(tmp_path: Path) -> Project:
    """Two environments, one after the other, without gates."""
    return load_text(
        """
project: scene
store: store
targets:
  one: {kind: jetson-ort}
  two: {kind: jetson-ort}
environments:
  staging:
    one: {to: out/staging/one}
  prod:
    after: staging
    one: {to: out/prod/one}
    two: {to: out/prod/two}
  lab:
    one: {to: out/lab/one}
""",
        tmp_path,
    )


# promote


def test_promote_builds_the_bundles_and_makes_them_live(plain: Project) -> None:
    register(plain, 1)
    outcome = promote(plain, OCR_1, "staging", reason="first")
    (deployment,) = outcome.deployments
    assert deployment.to_json() == {
        "environment": "staging",
        "target": "one",
        "serial": 1,
        "model": "ocr",
        "version": 1,
        "bundle": str(deployment.bundle),
        "outcome": "live",
        "bytes_sent": deployment.bytes_sent,
        "seconds": round(deployment.seconds, 3),
        "hosts": [],
    }
    assert live_versions(plain, "staging") == {"one": 1}


def test_a_version_whose_numbers_failed_is_not_promoted(plain: Project) -> None:
    register(plain, 1, passed=False)
    before = files_of(plain.root)
    with pytest.raises(VerificationError, match="The numbers of ocr/1 are wrong") as caught:
        promote(plain, OCR_1, "lab")
    assert "paddle to onnx: y is off by 0.25" in caught.value.why
    assert files_of(plain.root) == before
    promote(plain, OCR_1, "lab", accept="a demonstration")
    assert live_versions(plain, "lab") == {"one": 1}
    assert history(plain)[0].started.accept == "a demonstration"


@pytest.mark.parametrize("blank", ["", "  \n"])
def test_a_blank_reason_is_no_reason(plain: Project, blank: str) -> None:
    register(plain, 1)
    before = files_of(plain.root)
    for dry_run in (False, True):
        with pytest.raises(UsageError, match="--accept needs a reason"):
            promote(plain, OCR_1, "staging", accept=blank, dry_run=dry_run)
    assert files_of(plain.root) == before


def test_a_number_that_no_registry_gives_is_no_version(plain: Project) -> None:
    register(plain, 1)
    for digits in ("2147483648", "9" * 20):
        with pytest.raises(NotFoundError, match=f"no version ocr/{digits}"):
            promote(plain, ModelRef.parse(f"ocr/{digits}"), "staging")


def test_a_wrong_variant_counts_only_for_targets_that_use_it(plain: Project) -> None:
    version = register(plain, 1)
    wrong = replace(version.links[0], passed=False, source="fp32", target="int8")
    int8 = Variant("int8", version.variants[0].files, (wrong,))
    plain.store.put_version(replace(version, variants=(*version.variants, int8)))
    promote(plain, OCR_1, "lab")
    fp32 = replace(version.variants[0], links=(wrong,))
    plain.store.put_version(replace(version, variants=(fp32,)))
    with pytest.raises(VerificationError, match="numbers"):
        promote(plain, OCR_1, "lab")


def test_after_asks_for_a_healthy_release_there_first(plain: Project) -> None:
    register(plain, 1)
    register(plain, 2)
    with pytest.raises(NotFoundError, match="not healthy in staging yet, and prod comes after it"):
        promote(plain, OCR_1, "prod")
    promote(plain, OCR_1, "staging")
    promote(plain, OCR_1, "prod")
    with pytest.raises(NotFoundError) as caught:
        promote(plain, OCR_2, "prod")
    assert "staging/one: ocr/1" in caught.value.why
    assert "shipway promote ocr/2 --to staging" in caught.value.remedy
    promote(plain, OCR_2, "prod", accept="the shop is on fire")
    assert live_versions(plain, "prod") == {"one": 2, "two": 2}


def test_after_wants_it_healthy_not_merely_recorded(plain: Project) -> None:
    register(plain, 1)
    promote(plain, OCR_1, "staging")
    (plain.root / "out/staging/one/current.json").unlink()
    with pytest.raises(NotFoundError, match="not healthy") as caught:
        promote(plain, OCR_1, "prod")
    assert "nothing is live at" in caught.value.why


def test_another_model_is_not_replaced_unless_the_target_is_named(plain: Project) -> None:
    register(plain, 1)
    register(plain, 1, name="det")
    promote(plain, OCR_1, "lab")
    with pytest.raises(UsageError, match="lab serves another model than det") as caught:
        promote(plain, ModelRef("det", version=1), "lab")
    assert "--target one" in caught.value.remedy
    promote(plain, ModelRef("det", version=1), "lab", targets=["one"])
    assert status(plain, "lab")["lab"]["one"].model == "det"


def test_unknown_names_are_answered_with_the_known_ones(plain: Project) -> None:
    register(plain, 1)
    with pytest.raises(UsageError, match="no environment 'stagin'") as caught:
        promote(plain, OCR_1, "stagin")
    assert "staging" in caught.value.why
    with pytest.raises(UsageError, match="no target 'three'"):
        promote(plain, OCR_1, "lab", targets=["three"])
    with pytest.raises(NotFoundError, match="no ocr/9"):
        promote(plain, ModelRef("ocr", version=9), "lab")
    with pytest.raises(UsageError, match="names a model, not a version") as caught:
        promote(plain, ModelRef("ocr"), "lab")
    assert "ocr/1" in caught.value.remedy
    assert not (plain.root / "out").exists()
    assert not (plain.root / ".shipway").exists()  # asking MLflow's sqlite must not create it


def test_plan_touches_neither_destination_nor_ledger(plain: Project) -> None:
    register(plain, 1)
    outcome = plan(plain, OCR_1, "lab")
    assert outcome.deployments == ()
    assert outcome.plan.send == sum(file.size for file in outcome.plan.moves[0].release.manifest.files)
    assert outcome.version == plain.store.version("ocr", 1)
    assert not (plain.root / "out").exists()
    assert not (plain.root / "store/ledger").exists()


# resolve


def test_an_alias_of_a_place_is_answered_by_the_ledger(plain: Project) -> None:
    register(plain, 1)
    register(plain, 2)
    promote(plain, OCR_2, "lab")
    assert resolve(plain, ModelRef("ocr", alias="lab-one")).version == 2
    with pytest.raises(NotFoundError, match="No version of det is live on lab/one") as caught:
        resolve(plain, ModelRef("det", alias="lab-one"))
    assert "ocr/2 is" in caught.value.why
    with pytest.raises(NotFoundError, match="Nothing is"):
        resolve(plain, ModelRef("ocr", alias="prod-one"))


# status


def test_status_of_an_environment_where_nothing_ever_was(plain: Project) -> None:
    one = status(plain)["lab"]["one"]
    assert one.to_json() == {
        **dict.fromkeys(["model", "version", "bundle", "serial", "since", "outcome"]),
        "healthy": False,
        "problem": "",
        "rollback_to": None,
        "rollback_serial": None,
        "rollback_ready": False,
        "rollback_problem": "",
        "attempt": None,
        "skew": False,
        "mirrored": True,
        "hosts": {},
    }


def test_status_shows_what_is_live_and_what_a_rollback_would_restore(project: Project) -> None:
    put_live(project, bundle(project, 1))
    put_live(project, bundle(project, 2))
    one = status(project)["prod"]["one"]
    assert (one.model, one.version, one.serial, one.outcome, one.healthy) == ("ocr", 2, 2, "live", True)
    assert (one.rollback_to, one.rollback_ready, one.attempt, one.skew) == (1, True, None, False)
    assert not one.mirrored
    rollback(project, "prod", targets=["one"])
    found = status(project)["prod"]
    assert (found["one"].version, found["one"].rollback_to) == (1, None)
    assert found["one"].skew
    assert found["two"].skew


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        ("current.json", "nothing is live at"),
        ("releases/{live}/model/graph.onnx", "files of {live} are missing"),
        ("releases/{live}/bundle.json", "files of {live} are missing"),
    ],
)
def test_status_tells_of_a_destination_that_lost_something(
    project: Project, damage: str, problem: str
) -> None:
    manifest = bundle(project, 1)
    put_live(project, manifest)
    (project.root / "out/prod/one" / damage.format(live=manifest.release_id)).unlink()
    one = status(project)["prod"]["one"]
    assert not one.healthy
    assert problem.format(live=manifest.release_id) in one.problem
    assert status(project)["prod"]["two"].healthy


def test_status_tells_of_a_pointer_that_somebody_moved(project: Project) -> None:
    put_live(project, bundle(project, 1))
    old = (project.root / "out/prod/one/current.json").read_bytes()
    put_live(project, bundle(project, 2))
    (project.root / "out/prod/one/current.json").write_bytes(old)
    one = look(project, "prod", "one")
    assert not one.healthy
    assert "serial 1" in one.problem
    put_live(project, bundle(project, 2))
    assert look(project, "prod", "one").healthy


def test_status_tells_whether_a_rollback_would_have_to_send(project: Project) -> None:
    first = bundle(project, 1)
    put_live(project, first)
    put_live(project, bundle(project, 2))
    shutil.rmtree(project.root / "out/prod/one/releases" / first.release_id)
    found = status(project)["prod"]
    assert (found["one"].rollback_to, found["one"].rollback_ready) == (1, False)
    assert found["two"].rollback_ready


def test_status_shows_a_failed_attempt_beside_what_is_live(project: Project) -> None:
    put_live(project, bundle(project, 1))
    with pytest.raises(Exception, match="golden check"):
        put_live(project, bundle(project, 2, good=False))
    one = status(project)["prod"]["one"]
    assert (one.version, one.healthy, one.outcome) == (1, True, "live")
    assert one.attempt is not None
    assert (one.attempt.started.version, one.attempt.outcome) == (2, "failed")


def test_status_tells_a_running_attempt_from_a_killed_one(project: Project) -> None:
    put_live(project, bundle(project, 1))
    assert forked(lambda: put_live(project, bundle(project, 2)), die=naming("current.json")) == -9
    attempt = look(project, "prod", "one").attempt
    assert attempt is not None
    assert attempt.outcome == "started"
    assert not running(project, attempt)
    mine = replace(attempt.started, owner=owner.this_process())
    assert running(project, replace(attempt, started=mine))


def test_history_tells_of_places_that_deploy_yaml_no_longer_has(plain: Project) -> None:
    for environment in ("staging", "lab"):
        put_live(plain, bundle(plain, 1), environment)
    text = "project: scene\nstore: store\ntargets:\n  one: {kind: jetson-ort}\n"
    smaller = load_text(text + "environments:\n  lab:\n    one: {to: out/lab/one}\n", plain.root)
    empty = load_text(text, plain.root)
    for project in (smaller, empty):
        assert [str(event.started.place) for event in history(project)] == ["lab/one", "staging/one"]
        assert [str(event.started.place) for event in history(project, "staging")] == ["staging/one"]
        assert [str(event.started.place) for event in history(project, "staging", "one")] == ["staging/one"]
    assert set(status(smaller)) == {"lab"}
    with pytest.raises(UsageError, match="no environment 'prod'"):
        history(smaller, "prod")
    with pytest.raises(UsageError, match="no target 'three'"):
        history(smaller, "lab", "three")


def test_status_reads_as_much_of_a_long_ledger_as_of_a_short_one(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Counting(FolderObjects):
        reads = 0

        def get(self, key: str) -> bytes | None:
            self.reads += 1
            return super().get(key)

        def exists(self, key: str) -> bool:
            self.reads += 1
            return super().exists(key)

    objects = Counting(project.root / "store")
    project.__dict__["store"] = Store(objects)
    manifests = [bundle(project, version) for version in (1, 2)]
    costs = []
    for rounds in (2, 30):
        for _ in range(rounds):
            for manifest in manifests:
                put_live(project, manifest, targets=["one"])
        objects.reads = 0
        status(project)
        costs.append(objects.reads)
        objects.reads = 0
        rollback(project, "prod", targets=["one"], dry_run=True)
        costs.append(objects.reads)
        objects.reads = 0
        assert len(history(project, limit=3)) == 3
        costs.append(objects.reads)
    assert costs[:3] == costs[3:]


def test_status_works_for_somebody_who_may_only_read(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_live(project, bundle(project, 1))

    class ReadOnly(FolderObjects):
        def put(self, key: str, data: bytes) -> None:
            raise DeliveryError("You may only read.")

    project.__dict__["store"] = Store(ReadOnly(project.root / "store"))
    monkeypatch.setenv("SHIPWAY_MIRROR", "background")
    assert status(project)["prod"]["one"].healthy
    assert len(history(project)) == 2


# history


def test_history_is_newest_first_over_all_places(plain: Project) -> None:
    register(plain, 1)
    promote(plain, OCR_1, "lab", reason="to try")
    promote(plain, OCR_1, "staging")
    promote(plain, OCR_1, "prod")
    events = [event.to_json() for event in history(plain)]
    assert [event["environment"] for event in events] == ["prod", "prod", "staging", "lab"]
    assert events[3]["reason"] == "to try"
    assert events[0]["actor"] == owner.actor()
    assert {
        "environment",
        "target",
        "serial",
        "kind",
        "model",
        "version",
        "bundle",
        "actor",
        "at",
        "reason",
        "outcome",
    } <= set(events[0])
    assert len(history(plain, limit=2)) == 2
    assert [event.started.place for event in history(plain, "prod", "two")] == [place("two")]
    assert history(plain, "prod", limit=1)[0].started.place.environment == "prod"
    with pytest.raises(UsageError):
        history(plain, "nowhere")
    with pytest.raises(UsageError):
        history(plain, "lab", "two")


def test_history_keeps_to_the_serials_when_a_clock_was_wrong(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    years = iter(["2030-01-01T00:00:00.000Z", "2029-01-01T00:00:00.000Z", "2031-01-01T00:00:00.000Z"])
    for version in (1, 2, 3):
        year = next(years)
        monkeypatch.setattr(owner, "now", lambda: year)  # noqa: B023
        put_live(project, bundle(project, version), targets=["one"])
    assert [event.started.serial for event in history(project, "prod", "one")] == [3, 2, 1]
    assert live_versions(project)["one"] == 3


# what the commands need


_IMPORTS = """
import sys
from pathlib import Path
from shipway.registry.config.load import load
project = load(Path(sys.argv[1]))
from shipway.registry.verbs.{module} import {module}
{call}
heavy = {{"mlflow", "boto3", "onnx", "onnxruntime", "numpy", "paddle", "jinja2", "rich", "sqlalchemy"}}
print(sorted(heavy & set(sys.modules)))
"""


@pytest.mark.parametrize(
    ("module", "call"),
    [
        ("status", "assert status(project)['prod']['one'].version == 2"),
        ("history", "assert len(history(project)) == 4"),
        ("rollback", "assert rollback(project, 'prod').deployments[0].version == 1"),
    ],
)
def test_nothing_heavy_is_imported_in_a_hurry(tmp_path: Path, module: str, call: str) -> None:
    text = (
        "project: scene\nstore: store\ntargets:\n  one: {kind: jetson-ort}\n  two: {kind: jetson-ort}\n"
        "environments:\n  prod:\n    one: {to: one}\n    two: {to: two}\n"
    )
    (tmp_path / "deploy.yaml").write_text(text)
    project = load_text(text, tmp_path)
    put_live(project, bundle(project, 1))
    put_live(project, bundle(project, 2))
    done = subprocess.run(
        [sys.executable, "-c", _IMPORTS.format(module=module, call=call), str(tmp_path / "deploy.yaml")],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "SHIPWAY_MIRROR": "off"},
    )
    assert done.stderr == ""
    assert done.stdout.strip() == "[]"


def test_a_version_registered_again_while_another_deploys_is_kept_out(plain: Project) -> None:
    """The plan is made before the claim: what changed in between loses the race instead of being undone."""
    register(plain, 1)
    register(plain, 2)
    promote(plain, OCR_1, "lab")
    site = Site(plain, "lab")
    late = site.plan("promote", {"one": Goal(bundle(plain, 7))})
    promote(plain, OCR_2, "lab")
    with pytest.raises(ConflictError):
        site.carry_out(late)
    assert live_versions(plain, "lab") == {"one": 2}
    assert Ledger(plain.store.objects).head(place("one", "lab")).serial == 2

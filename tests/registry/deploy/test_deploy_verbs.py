"""The verbs as a program calls them: what promote refuses, what a reference resolves to, what they import."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from deploy_scene import bundle, files_of, live_versions, place, put_live
from version_scene import register

from shipway.registry.config.load import load_text
from shipway.registry.config.model import ConvertConfig
from shipway.registry.config.project import Project
from shipway.registry.deploy.site import Goal, Site
from shipway.registry.errors import (
    ConflictError,
    NotFoundError,
    UsageError,
    VerificationError,
)
from shipway.registry.ledger.ledger import Ledger
from shipway.registry.nouns import ModelRef, Tolerance, Variant
from shipway.registry.verbs.history import history
from shipway.registry.verbs.plan import plan
from shipway.registry.verbs.promote import promote
from shipway.registry.verbs.resolve import resolve
from shipway.registry.verbs.status import status

OCR_1, OCR_2 = ModelRef("ocr", version=1), ModelRef("ocr", version=2)


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
        "check": [],
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


def test_what_passed_must_pass_by_todays_tolerance(plain: Project) -> None:
    register(plain, 1)
    tight = ConvertConfig.model_validate({"tolerance": {"atol": 1e-9, "rtol": 1e-9}})
    stricter = replace(plain, config=plain.config.model_copy(update={"convert": tight}))
    with pytest.raises(VerificationError, match="numbers of ocr/1") as caught:
        promote(stricter, OCR_1, "lab")
    assert "more than deploy.yaml allows since it was registered" in caught.value.why
    promote(plain, OCR_1, "lab")
    assert live_versions(plain, "lab") == {"one": 1}


@pytest.mark.parametrize("flat", [True, False])
def test_what_was_registered_without_proof_needs_one_by_todays_tolerance(plain: Project, flat: bool) -> None:
    version = register(plain, 1)
    [link] = version.links
    outputs = tuple(replace(output, flat=flat) for output in link.outputs)
    link = replace(link, outputs=outputs, tolerance=Tolerance(1e-5, 1.0))
    plain.store.put_version(replace(version, links=(link,)))
    if flat:
        with pytest.raises(VerificationError, match="numbers of ocr/1") as caught:
            promote(plain, OCR_1, "lab")
        assert "proves nothing: deploy.yaml no longer accepts that" in caught.value.why
        lax = ConvertConfig.model_validate({"tolerance": {"atol": 1e-5, "rtol": 1}})
        plain = replace(plain, config=plain.config.model_copy(update={"convert": lax}))
    promote(plain, OCR_1, "lab")
    assert live_versions(plain, "lab") == {"one": 1}


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

"""``s3://`` in deploy.yaml: the store, the ledger and the destinations of a project in a bucket."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

from shipway.registry.config.load import load_text
from shipway.registry.config.project import Project
from shipway.registry.errors import ConfigError
from shipway.registry.s3.bucket import Bucket, Service
from shipway.registry.verbs.rollback import rollback

TEXT = """
project: scene
store: {{to: s3://{bucket}/store, endpoint: "{endpoint}"}}
targets:
  one: {{kind: jetson-ort}}
environments:
  prod:
    one: {{to: s3://{bucket}/prod/one{more}}}
"""


@pytest.fixture(scope="module")
def scene() -> Any:
    path = Path(__file__).parents[1] / "registry/deploy/deploy_scene.py"
    spec = importlib.util.spec_from_file_location("shipway_tests_scene", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def project(moto_s3: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.setenv("SHIPWAY_MIRROR", "off")
    return load_text(TEXT.format(bucket=moto_s3.bucket, endpoint=moto_s3.endpoint, more=""), tmp_path)


def test_a_project_in_a_bucket(project: Project, scene: Any, tmp_path: Path) -> None:
    scene.put_live(project, scene.bundle(project, 1))
    scene.put_live(project, scene.bundle(project, 2))
    assert scene.pointers(project) == {"one": (2, 2)}
    (done,) = rollback(project, "prod").deployments
    assert (done.serial, done.version, done.outcome) == (3, 1, "live")
    scene.assert_live_is_whole(project)
    scene.assert_ledger_is_sound(project)
    assert {path.name for path in tmp_path.iterdir()} <= {".shipway"}  # nothing but fetched files


def test_files_are_copied_within_the_service(project: Project, scene: Any) -> None:
    (done,) = scene.put_live(project, scene.bundle(project, 1, extra={"weights.bin": bytes(500_000)}))
    assert done.bytes_sent < 1000  # the pointer


def test_a_destination_has_a_service_of_its_own(moto_s3: Any, tmp_path: Path) -> None:
    more = ', s3: {endpoint: "http://127.0.0.1:1", region: eu-central-1}'
    found = load_text(TEXT.format(bucket=moto_s3.bucket, endpoint=moto_s3.endpoint, more=more), tmp_path)
    bucket: Bucket = found.delivery("prod", "one").bucket  # type: ignore[attr-defined]
    assert bucket.service == Service(endpoint="http://127.0.0.1:1", region="eu-central-1")
    assert found.store.objects.bucket.service == moto_s3.service  # type: ignore[attr-defined]


def test_a_name_that_is_no_bucket_names_the_line(tmp_path: Path) -> None:
    text = TEXT.format(bucket="Not_A_Bucket", endpoint="http://127.0.0.1:1", more="")
    with pytest.raises(ConfigError, match=r"deploy.yaml:3: store: .* is no place in an S3 service"):
        _ = load_text(text, tmp_path).store
    folder = text.replace('store: {to: s3://Not_A_Bucket/store, endpoint: "http://127.0.0.1:1"}', "store: s")
    with pytest.raises(ConfigError, match=r"deploy.yaml:8: environments.prod.one.to: .* no place"):
        load_text(folder, tmp_path).delivery("prod", "one")

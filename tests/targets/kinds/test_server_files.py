"""``server-tensorrt``: the files for Kubernetes, KServe and compose, held against what others publish."""

from __future__ import annotations

import ast
import copy
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

LOCK = Path(__file__).resolve().parents[3] / "locks" / "kserve.txt"
OPTIONS = [{}, {"providers": ["cpu"]}]


@pytest.fixture(scope="module", params=OPTIONS, ids=["gpu", "cpu"])
def bundle(
    request: pytest.FixtureRequest, make_in: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    root = tmp_path_factory.mktemp("server")
    make_in(root / "made", name="A.b_c").export("server-tensorrt", root / "out", **request.param)
    return root / "out"


def service_of(bundle: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((bundle / "kserve.yaml").read_text())
    return found


def validate_pod(service: dict[str, Any]) -> None:
    """KServe's predictor is a pod's specification: Kubernetes' own schema, which lets no unknown field by."""
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": service["metadata"],
        "spec": service["spec"]["predictor"],
    }
    kubernetes_validate.validate(pod, kubernetes_validate.latest_version(), strict=True)


def test_kubernetes_would_take_the_pod(bundle: Path) -> None:
    service = service_of(bundle)
    validate_pod(service)
    container = service["spec"]["predictor"]["containers"][0]
    container["readyProbe"] = container.pop("readinessProbe")
    with pytest.raises(kubernetes_validate.ValidationError, match="readyProbe"):
        validate_pod(service)


@pytest.fixture(scope="session")
def kserve_types() -> Callable[[str], dict[str, str]]:
    """Fields of KServe's types by name, as its SDK of the pinned release declares them; the SDK is not run.

    Its wheel is fetched once by pip; installed it would bring half a gigabyte.
    """
    cache = Path(os.environ.get("SHIPWAY_CACHE") or Path.home() / ".cache" / "shipway") / "kserve"
    if not list(cache.glob("kserve-0.21.0-*.whl")):
        pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "download"]
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as coming:
            subprocess.run([*pip, "--no-deps", "--require-hashes", "-r", LOCK, "-d", coming], check=True)
            (fetched,) = Path(coming).glob("*.whl")
            fetched.replace(cache / fetched.name)  # whole, or not there
    (wheel,) = cache.glob("kserve-0.21.0-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        sources = {
            Path(name).name: archive.read(name).decode()
            for name in archive.namelist()
            if name.startswith("kserve/models/v1beta1_")
        }

    def fields(name: str) -> dict[str, str]:
        """Types of the fields of type ``name`` by their JSON names; none for what KServe does not declare."""
        module = "v1beta1_" + "".join(
            f"_{letter.lower()}" if letter.isupper() else letter for letter in name.removeprefix("V1beta1")
        ).lstrip("_")
        if f"{module}.py" not in sources:
            return {}
        literals = {
            statement.targets[0].id: ast.literal_eval(statement.value)
            for statement in ast.walk(ast.parse(sources[f"{module}.py"]))
            if isinstance(statement, ast.Assign)
            and isinstance(statement.targets[0], ast.Name)
            and statement.targets[0].id in ("openapi_types", "attribute_map")
        }
        types = literals["openapi_types"]
        return {key: types[name] for name, key in literals["attribute_map"].items()}

    return fields


def unknown_fields(document: Any, name: str, fields: Callable[[str], dict[str, str]]) -> Iterator[str]:
    declared = fields(name)
    for key, value in document.items():
        if key not in declared:
            yield f"{name}.{key}"
        elif declared[key].startswith("V1beta1"):
            yield from unknown_fields(value, declared[key], fields)
        else:
            assert isinstance(value, list) == declared[key].startswith("list[")


def test_kserve_knows_every_field(bundle: Path, kserve_types: Callable[[str], dict[str, str]]) -> None:
    service = service_of(bundle)
    assert (service["apiVersion"], service["kind"]) == ("serving.kserve.io/v1beta1", "InferenceService")
    assert list(unknown_fields(service, "V1beta1InferenceService", kserve_types)) == []
    wrong = copy.deepcopy(service)
    wrong["spec"]["predictor"]["contaners"] = wrong["spec"]["predictor"].pop("containers")
    found = list(unknown_fields(wrong, "V1beta1InferenceService", kserve_types))
    assert found == ["V1beta1PredictorSpec.contaners"]


def test_triton_and_the_server_share_no_volume(bundle: Path) -> None:
    """They are different users: whoever wrote there first would keep the other one out."""
    document = yaml.safe_load((bundle / "compose.yaml").read_text())
    named = {
        name: {volume.split(":")[0] for volume in service["volumes"] if not volume.startswith(".")}
        for name, service in document["services"].items()
    }
    assert all(named.values())
    assert not named["server"] & named["triton"]
    assert set().union(*named.values()) == set(document["volumes"])


@pytest.mark.real
def test_compose_reads_its_file(bundle: Path) -> None:
    """The program itself (Debian's docker-compose): it needs no Docker to read a file and to refuse it."""
    found = subprocess.run(
        ["docker-compose", "config"], cwd=bundle, check=True, capture_output=True, text=True
    )
    services = yaml.safe_load(found.stdout)["services"]
    assert services["server"]["healthcheck"]["test"][0] == "CMD"
    broken = (bundle / "compose.yaml").read_text().replace("healthcheck:", "healthcheque:")
    refused = subprocess.run(
        ["docker-compose", "--file", "-", "config", "--quiet"], input=broken, capture_output=True, text=True
    )
    assert refused.returncode != 0
    assert "healthcheque" in refused.stderr

"""The verb ``verify``: bundles in folders and versions in the store, held against their records."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shipway.registry.cli.app import main
from shipway.registry.config.load import load_text
from shipway.registry.errors import IntegrityError, NotFoundError, VerificationError
from shipway.registry.files import describe
from shipway.registry.nouns import ModelRef
from shipway.registry.verbs.bundle import build_bundle, export
from shipway.registry.verbs.verify import is_bundle, verify_bundle, verify_version

REF = ModelRef("tiny", version=1)


@pytest.fixture
def bundle(placed: Any, tmp_path: Path) -> Path:
    export(placed.project.store, build_bundle(placed.project, placed.version, "mobile"), tmp_path / "out")
    return tmp_path / "out"


def test_a_whole_bundle_is_verified_and_its_check_run(bundle: Path) -> None:
    found = verify_bundle(bundle)
    assert (found.model, found.version, found.kind) == ("tiny", 1, "mobile-ort")
    assert found.check["passed"] is True
    document = json.loads(json.dumps(found.to_json()))
    assert document["check"]["provider"] == "CPUExecutionProvider"
    assert document["digest"].startswith("sha256:")
    assert document["files"] > 10


def test_digests_alone_run_nothing(bundle: Path) -> None:
    (bundle / "check.py").write_bytes((bundle / "check.py").read_bytes())  # unchanged
    assert verify_bundle(bundle, run=False).check is None


def test_all_that_is_wrong_is_named(bundle: Path) -> None:
    (bundle / "README.md").unlink()
    (bundle / "ios" / "Package.swift").unlink()
    (bundle / "runner.py").write_text("print('hello')")
    (bundle / "notes.txt").write_text("mine")
    with pytest.raises(IntegrityError) as caught:
        verify_bundle(bundle)
    assert "missing: README.md, ios/Package.swift" in caught.value.why
    assert "changed: runner.py" in caught.value.why
    assert "notes.txt" not in caught.value.why
    assert "shipway bundle tiny/1 --target T --out DIR" in caught.value.remedy


def test_a_file_of_ones_own_beside_the_bundles_does_no_harm(bundle: Path) -> None:
    (bundle / "notes.txt").write_text("mine")
    assert verify_bundle(bundle).check["passed"] is True


@pytest.mark.parametrize("content", ["", "{", "[]", '{"schema": 1}', '{"schema": 99}'])
def test_a_manifest_that_is_none_is_an_integrity_error(bundle: Path, content: str) -> None:
    (bundle / "bundle.json").write_text(content)
    with pytest.raises(IntegrityError, match="not a bundle's manifest"):
        verify_bundle(bundle)


def test_a_manifest_that_points_outside_is_refused(bundle: Path) -> None:
    data = json.loads((bundle / "bundle.json").read_text())
    data["files"][0]["path"] = "../../etc/passwd"
    (bundle / "bundle.json").write_text(json.dumps(data))
    with pytest.raises(IntegrityError, match="not a bundle's manifest"):
        verify_bundle(bundle)


def test_a_release_folder_vouches_for_its_manifest(placed: Any, tmp_path: Path) -> None:
    manifest = build_bundle(placed.project, placed.version, "mobile")
    release = tmp_path / "releases" / manifest.release_id
    export(placed.project.store, manifest, release)
    assert verify_bundle(release, run=False).digest == manifest.digest
    text = (release / "bundle.json").read_text()
    (release / "bundle.json").write_text(text.replace('"atol": 1e-05', '"atol": 10.0'))
    with pytest.raises(IntegrityError, match="was altered"):
        verify_bundle(release, run=False)


def test_a_folder_without_a_bundle_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no bundle"):
        verify_bundle(tmp_path)


def test_a_check_that_cannot_be_started_says_what_is_missing(bundle: Path) -> None:
    text = (bundle / "bundle.json").read_text()
    (bundle / "bundle.json").write_text(text.replace('"python3"', '"no-such-program"'))
    with pytest.raises(VerificationError, match="can't be started") as caught:
        verify_bundle(bundle)
    assert "no-such-program" in caught.value.why


@pytest.mark.parametrize("script", ["", "print('hello')", "print('[]')", "import sys; sys.exit('broken')"])
def test_a_check_without_a_verdict_does_not_pass(bundle: Path, tmp_path: Path, script: str) -> None:
    (tmp_path / "check").write_text(script)
    text = (bundle / "bundle.json").read_text()
    (bundle / "bundle.json").write_text(text.replace('"check.py"\n', f'"{tmp_path}/check"\n'))
    with pytest.raises(VerificationError, match="did not pass"):
        verify_bundle(bundle)


def test_a_version_is_hashed_and_measured_again(placed: Any) -> None:
    found = verify_version(placed.project, REF)
    assert found.digest == placed.version.digest
    assert found.files == len(
        {*placed.version.golden, *placed.version.assets, *placed.version.variants[0].files}
    )
    (link,) = found.links
    assert (link.source, link.target, link.passed) == ("golden", "fp32", True)
    (output,) = link.outputs
    assert output.name == "y"
    assert output.max_abs <= 1e-6
    assert output.scale > 0
    assert verify_version(placed.project, REF, run=False).links == ()


def test_a_changed_file_in_the_store_is_named(placed: Any) -> None:
    file = placed.version.assets[0]
    path = placed.project.store.open(file)
    path.chmod(0o644)
    path.write_bytes(b"cat\ncow\n")
    with pytest.raises(IntegrityError) as caught:
        verify_version(placed.project, REF)
    assert caught.value.why == "changed: assets/labels.txt"


def test_a_lost_file_in_the_store_is_not_found(placed: Any) -> None:
    placed.project.store.open(placed.version.golden[0]).unlink()
    with pytest.raises(NotFoundError, match=r"golden/golden\.json"):
        verify_version(placed.project, REF)


def test_a_version_whose_numbers_are_off_does_not_pass(placed: Any, tmp_path: Path) -> None:
    good = np.abs(np.random.default_rng(1).normal(size=(4, 3))).astype(np.float32)
    make = sys.modules["shipway_tests_kinds"].make
    make(tmp_path / "bad", weights=good * np.float32(1.01), golden_weights=good)
    project = load_text(f"project: tests\nstore: {tmp_path / 'bad' / 'store'}\n", tmp_path)
    with pytest.raises(VerificationError, match="numbers of tiny/1 are wrong") as caught:
        verify_version(project, REF)
    assert "fp32: y: max_abs" in caught.value.why


def test_an_unknown_version_is_not_found_without_guessing(tmp_path: Path) -> None:
    assert is_bundle(str(tmp_path))
    assert is_bundle("./some/folder/that/is/gone")
    assert not is_bundle("tiny/1")
    assert not is_bundle("models:/tiny/1")
    assert not is_bundle("tiny@prod-server")


def test_verifying_a_bundle_imports_no_mlflow(bundle: Path) -> None:
    program = """
import sys
from pathlib import Path
from shipway.registry.verbs.verify import verify_bundle
verify_bundle(Path(sys.argv[1]))
heavy = {"mlflow", "onnxruntime", "numpy", "jinja2"} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", program, str(bundle)], check=True)


def tampered(bundle: Path) -> None:
    """A file and its line in the manifest: the folder agrees with itself."""
    (bundle / "README.md").write_text("not what was built")
    data = json.loads((bundle / "bundle.json").read_text())
    for file in data["files"]:
        file.update(describe(bundle / file["path"], file["path"]).to_json())
    (bundle / "bundle.json").write_text(json.dumps(data, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def test_who_vouches_for_a_bundle_is_told(placed: Any, bundle: Path) -> None:
    found = verify_bundle(bundle, run=False)
    assert found.vouched == ""
    assert verify_bundle(bundle, run=False, store=placed.project.store).vouched == "store"
    assert verify_bundle(bundle, run=False, digest=found.digest).vouched == "digest"
    tampered(bundle)
    forged = verify_bundle(bundle, run=False, store=placed.project.store)
    assert forged.vouched == ""
    assert forged.digest != found.digest
    with pytest.raises(IntegrityError, match="not the bundle sha256:") as caught:
        verify_bundle(bundle, digest=found.digest)
    assert str(forged.digest) in caught.value.why


def test_a_word_that_is_neither_folder_nor_version_is_told_so(
    placed: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "deploy.yaml"
    config.write_text(f"project: tests\nstore: {placed.project.store.objects.address}\n")
    assert main(["-c", str(config), "verify", "lok"]) == 2
    assert "'lok' is neither a folder here nor a version." in capsys.readouterr().err
    assert main(["-c", str(config), "verify", "tiny/1", "--digests-only"]) == 0
    assert "The version tiny/1 is as it was recorded." in capsys.readouterr().out


def test_the_command_says_no_more_than_it_knows(
    placed: Any, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "deploy.yaml"
    config.write_text(f"project: tests\nstore: {placed.project.store.objects.address}\n")
    digest = str(verify_bundle(bundle, run=False).digest)
    (bundle / "notes.txt").write_text("mine")

    def said(*arguments: str) -> tuple[int, str, str]:
        code = main(["-c", str(config), "verify", str(bundle), "--digests-only", *arguments])
        out, err = capsys.readouterr()
        return code, out, err

    code, out, _ = said()
    assert code == 0
    assert "is as it was recorded" in out
    assert "Not the bundle's own: notes.txt" in out
    tampered(bundle)
    code, out, _ = said()
    assert code == 0
    assert "is as it was recorded" not in out
    assert "match its own bundle.json" in out
    assert "--digest" in out
    assert said("--digest", digest)[0] == 9
    assert said("--digest", "nonsense")[0] == 2
    config.unlink()
    assert "match its own bundle.json" in said()[1]

"""What is shipped: the exact contents of the wheel and of the sdist."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("registry", "targets", "templates")
INFO = "shipway-0.1.0.dist-info"


def tracked(*folders: str) -> set[str]:
    """Files of the source tree as the next commit will have them."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", "--", *folders]
    names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout.decode().split("\0")
    return {name for name in names if name and (ROOT / name).is_file()}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(wheel, sdist), built from a copy so that the tree stays clean."""
    work = tmp_path_factory.mktemp("package")
    source = work / "source"
    for name in tracked():
        target = source / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(work / "dist"), str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = (work / "dist").glob("*.whl")
    (sdist,) = (work / "dist").glob("*.tar.gz")
    return wheel, sdist


def test_the_wheel_holds_the_three_folders_below_shipway_and_nothing_else(built: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(built[0]) as archive:
        names = {name for name in archive.namelist() if not name.endswith("/")}
    expected = {f"shipway/{name}" for name in tracked(*FOLDERS)}
    metadata = {"METADATA", "WHEEL", "RECORD", "entry_points.txt", "top_level.txt", "licenses/LICENSE"}
    assert names == expected | {f"{INFO}/{name}" for name in metadata}
    assert {name.split("/")[0] for name in names} == {"shipway", INFO}
    assert "shipway/__init__.py" not in names


def test_the_sdist_holds_what_builds_the_wheel(built: tuple[Path, Path]) -> None:
    with tarfile.open(built[1]) as archive:
        names = {name.name.partition("/")[2] for name in archive.getmembers() if name.isfile()}
    generated = {"PKG-INFO", "setup.cfg"}
    egg = {name for name in names if name.startswith("shipway.egg-info/")}
    expected = tracked(*FOLDERS) | {"pyproject.toml", "MANIFEST.in", "README.md", "LICENSE"}
    assert names - egg - generated == expected

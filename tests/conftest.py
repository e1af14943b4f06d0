"""What every room's tests share. The folder ``shared`` joins the path: its modules are imported by name."""

from __future__ import annotations

import collections
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from shipway.registry.convert import openmp

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(Path(__file__).parent / "shared"))


def load_script(name: str) -> ModuleType:
    """Import ``demo/models.py`` and its like, which are scripts and no part of a package."""
    path = ROOT / name
    spec = importlib.util.spec_from_file_location(path.stem + "_script", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session", autouse=True)
def _children_find_openmp(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Tests that start Paddle in a child do so on bare systems too."""
    os.environ.update(openmp.environment(tmp_path_factory.mktemp("openmp")))


@pytest.fixture(scope="session")
def ppocr_models() -> dict[str, Path]:
    """The real PP-OCRv4 models: folders ``det``, ``rec``, ``cls`` and the file ``dictionary``."""
    models = load_script("demo/models.py")
    root: Path = models.fetch()
    return {
        **{key: root / path for key, path in models.NAMES.items()},
        "dictionary": root / models.DICTIONARY,
    }


@pytest.fixture(scope="session", autouse=True)
def _no_power_cut() -> Iterator[None]:
    """Tests kill processes, not the machine: nothing needs to reach the disk, which takes most time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


_COUNTED = "counted: "


@pytest.fixture
def record_counts(record_property: Callable[[str, object], None]) -> Callable[[str, int], None]:
    """Called with what a test broke on purpose (``"promote in S3: killed"``), and how often it did."""
    return lambda what, number: record_property(f"{_COUNTED}{what}", number)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One table of everything that tests counted."""
    counts: collections.Counter[str] = collections.Counter()
    for report in terminalreporter.stats.get("passed", []):
        for name, number in report.user_properties:
            if report.when == "call" and name.startswith(_COUNTED):
                counts[name.removeprefix(_COUNTED)] += number
    if counts:
        width = max(len(f"{number:,}") for number in counts.values())
        terminalreporter.section("broken on purpose")
        for what, number in sorted(counts.items()):
            terminalreporter.write_line(f"{number:>{width},}  {what}")
        failed = any(terminalreporter.stats.get(outcome) for outcome in ("failed", "error"))
        terminalreporter.write_line("where tests passed; others failed" if failed else "with nothing lost")


@pytest.hookimpl(wrapper=True)
def pytest_sessionfinish(session: pytest.Session) -> Iterator[None]:
    """A skipped test hides a missing tool: it fails the run."""
    yield
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None and reporter.stats.get("skipped") and session.exitstatus == 0:
        reporter.write_line("a skipped test counts as a failure here", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED

"""Kinds are found by their entry points, and only what is asked for is imported."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint, entry_points

import pytest

from shipway.registry.errors import ConfigError
from shipway.targets import loader


def test_an_unknown_kind_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="no target kind 'fpga'") as caught:
        loader.load_kind("fpga")
    assert "browser-wasm" in caught.value.why
    assert "server-tensorrt" in caught.value.why


def test_what_is_built_in_is_what_the_package_says() -> None:
    said = {entry.name: (entry.module, entry.attr) for entry in entry_points(group=loader.GROUP)}
    assert said.items() >= loader.BUILT_IN.items()
    for kind in loader.BUILT_IN:
        assert loader.load_kind(kind).kind == kind


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("shipway.no_such_module:Kind", "No module named"),
        ("shipway.targets.browser_wasm:NoSuchKind", "NoSuchKind"),
        ("shipway.targets.browser_wasm:BrowserWasm", "calls itself 'browser-wasm'"),
    ],
)
def test_a_broken_plugin_is_named(value: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = EntryPoint("mine", value, loader.GROUP)
    monkeypatch.setattr(loader, "_found", lambda: {"mine": entry})
    with pytest.raises(ConfigError) as caught:
        loader.load_kind("mine")
    assert said in str(caught.value)
    assert caught.value.remedy


def test_listing_kinds_imports_none_and_loading_them_stays_light() -> None:
    program = """
import sys
from shipway.targets import loader
names = loader.kinds()
assert not [m for m in sys.modules if m.endswith(("browser_wasm", "server_tensorrt"))]
for name in names:
    loader.load_kind(name)
heavy = {"jinja2", "numpy", "onnx", "onnxruntime", "mlflow", "tarfile", "yaml"} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", program], check=True)

"""``convert: {memory, timeout_s}`` hold for all that works on a model, not for its conversion alone."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest

from shipway.registry.config.load import load_text
from shipway.registry.config.project import Project
from shipway.registry.convert import failing, optimise, quantiser
from shipway.registry.errors import ConversionError, VerificationError
from shipway.registry.process import Worker, WorkerError
from shipway.registry.verbs.register import register

INT8 = "targets: {web: {kind: browser-wasm, precision: int8}}"


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    folder = tmp_path / "samples"
    folder.mkdir()
    for index in range(6):
        np.savez(folder / f"{index}.npz", x=random.uniform(-1, 1, (64, 8)).astype(np.float32))
    return folder


@pytest.fixture
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a child's libraries take when they are imported does not depend on the number of cores then."""
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")


def configured(project: Project, text: str) -> Project:
    return load_text(f"project: demo\n{text}\n", project.root)


def test_int8_with_samples_takes_its_ranges_from_them(
    project: Project, model_file: Path, samples: Path
) -> None:
    version = register(configured(project, INT8), model_file, "net", samples=samples).version
    variant = version.variant("int8")
    assert variant is not None
    [link] = variant.links
    assert link.notes[0] == "weights and arithmetic in int8, ranges from the samples"
    assert link.passed
    made = onnx.load(str(project.store.open(variant.files[0])))
    assert {"QuantizeLinear", "DequantizeLinear"} <= {node.op_type for node in made.graph.node}


@pytest.mark.usefixtures("one_thread")
def test_int8_gets_no_more_memory_than_a_conversion(
    project: Project, model_file: Path, samples: Path, scratch: Path
) -> None:
    limited = configured(project, f"convert: {{memory: 150MB}}\n{INT8}")
    with pytest.raises(VerificationError) as caught:
        register(limited, model_file, "net", samples=samples)
    assert caught.value.why.count("more memory than the 150.0 MB it may use (convert.memory") == 3
    assert "ranges from the samples" in caught.value.why
    assert limited.store.names() == []
    assert not list(scratch.iterdir())


def test_an_optimiser_that_hangs_costs_its_time_and_the_version_is_not_optimised(
    project: Project, model_file: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    end = threading.Event()
    monkeypatch.setattr(optimise, "slim", lambda model: (end.wait(60), model)[1])
    version = register(configured(project, "convert: {timeout_s: 0.5}"), model_file, "net").version
    end.set()
    [note] = version.extra["notes"]
    assert note.startswith("not optimised: onnxslim can't optimise the model. It gave no answer within 0.5 s")
    assert version.passed
    assert [link.target for link in version.links] == ["onnx"]
    assert not list(scratch.iterdir())


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("megabytes", [80, 150])
def test_a_child_that_can_not_even_import_is_told_to_lack_memory(tmp_path: Path, megabytes: int) -> None:
    """Of what NumPy's library says, and the loader, some 15 MB to either side; 185 MB are enough."""
    memory = megabytes * 1_000_000
    worker = Worker(quantiser.WORKER, cwd=tmp_path, memory=memory)
    with worker, pytest.raises(WorkerError) as caught:
        worker.ask({}, timeout=120)
    assert caught.value.kind == "Died"
    assert failing.explain(caught.value, memory).why == lacks_memory(megabytes), caught.value.log


def lacks_memory(megabytes: int) -> str:
    return f"It needed more memory than the {megabytes}.0 MB it may use (convert.memory in deploy.yaml)."


@pytest.mark.parametrize(
    ("ended", "log"),
    [
        ("ended by SIGINT", "OpenBLAS blas_thread_init: pthread_create failed for thread 1 of 2: Resource"),
        ("ended with exit status 1", "OpenBLAS error: Memory allocation still failed after 10 retries"),
        ("ended with exit status 1", "ImportError: libonnx.so: failed to map segment from shared object"),
        ("ended with exit status 1", "SystemError: error return without exception set"),
        ("ended with exit status 1", "SystemError: <f at 0x7f> returned NULL without setting an exception"),
        ("ended by SIGABRT", "what():  std::bad_alloc"),
    ],
)
def test_all_words_for_a_lack_of_memory_are_known(ended: str, log: str) -> None:
    """As children with less and less of it said them; where in its start one runs out differs by machine."""
    error = WorkerError("Died", ended, log)
    assert failing.explain(error, 100_000_000).why == lacks_memory(100)
    assert "more memory" not in failing.explain(error).why  # no limit was set


@pytest.mark.parametrize("flags", [0, os.ST_NOEXEC])
def test_a_library_that_may_not_be_run_lacks_no_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: int
) -> None:
    """The loader says the same of both."""
    library = tmp_path / "a b" / "lib.so"
    monkeypatch.setattr(os, "statvfs", lambda path: {str(library): SimpleNamespace(f_flag=flags)}[path])
    log = f"Traceback:\nImportError: {library}: failed to map segment from shared object\n"
    failure = failing.explain(WorkerError("Died", "ended with exit status 1", log), 100_000_000)
    if flags:
        assert failure.why == f"{library} can't be loaded: its file system is mounted noexec."
        assert "SHIPWAY_CACHE" in failure.remedy
    else:
        assert failure.why == lacks_memory(100)
        assert "higher limit" in failure.remedy


@pytest.mark.usefixtures("one_thread")
@pytest.mark.paddle
@pytest.mark.real
def test_a_limit_that_paddle_does_not_fit_into_is_named(
    project: Project, ppocr_models: dict[str, Path], scratch: Path
) -> None:
    with pytest.raises(ConversionError) as caught:
        register(configured(project, "convert: {memory: 300MB}"), ppocr_models["rec"], "rec")
    assert "more memory than the 300.0 MB it may use (convert.memory in deploy.yaml)" in caught.value.why
    assert "ImportError" not in caught.value.why
    assert caught.value.remedy == "Set a higher limit in deploy.yaml, or convert on a larger machine."
    assert not list(scratch.iterdir())

"""The how-tos' commands run as they stand there, with the addresses of real parts in place of acme's."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import mlflow_parts as parts
import pytest
import yaml
from howto import ROOT, blocks, file_named, run, write_models
from ports import free_port


def instead(text: str, names: Mapping[str, str]) -> str:
    """``text`` with acme's names replaced; none may be left."""
    for name, real in names.items():
        text = text.replace(name, real)
    assert "acme.com" not in text
    assert "acme-models" not in text
    return text


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with the models of ``write_models``."""
    monkeypatch.setenv("SHIPWAY_MIRROR", "off")
    write_models(tmp_path)
    return tmp_path


@pytest.fixture
def names(real_s3: Any) -> dict[str, str]:
    keys = {name: os.environ[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
    return {
        "https://minio.acme.com": real_s3.endpoint,
        "acme-models": real_s3.bucket,
        "AWS_ACCESS_KEY_ID=deploy": f"AWS_ACCESS_KEY_ID={keys['AWS_ACCESS_KEY_ID']}",
        "AWS_SECRET_ACCESS_KEY=change-me": f"AWS_SECRET_ACCESS_KEY={keys['AWS_SECRET_ACCESS_KEY']}",
    }


@pytest.mark.real
def test_s3(folder: Path, names: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)  # the page gives them
    (folder / "deploy.yaml").write_text(instead(file_named("s3.md", "deploy.yaml"), names))
    script = "".join(text for kind, text in blocks("s3.md") if kind == "sh")
    said = run(instead(script, names), folder)
    assert re.search(r"^serial 3: releases/ocr-rec-1-\w+/$", said, re.MULTILINE)


def test_the_policy_of_s3_allows_what_is_asked_and_no_more() -> None:
    needs = {
        "get_object": "GetObject",
        "head_object": "GetObject",
        "put_object": "PutObject",
        "copy_object": "PutObject",
        "create_multipart_upload": "PutObject",
        "upload_part": "PutObject",
        "upload_part_copy": "PutObject",
        "complete_multipart_upload": "PutObject",
        "delete_object": "DeleteObject",
        "abort_multipart_upload": "AbortMultipartUpload",
        "list_multipart_uploads": "ListBucketMultipartUploads",
        "list_parts": "ListMultipartUploadParts",
        "list_objects_v2": "ListBucket",
    }
    sources = [*(ROOT / "registry/s3").glob("*.py"), *(ROOT / "targets/deliveries").glob("s3*.py")]
    sources.append(ROOT / "registry/store/s3.py")
    text = "".join(source.read_text() for source in sources)
    asked = {operation for operation in needs if f'"{operation}"' in text}
    others = set(re.findall(r'"((?:get|head|put|copy|create|upload|delete|list)_[a-z_]+)"', text)) - set(
        needs
    )
    assert not others, "more than the page's policy was written for"
    (policy,) = [json.loads(text) for kind, text in blocks("s3.md") if kind == "json"]
    allowed = {action for statement in policy["Statement"] for action in statement["Action"]}
    assert {f"s3:{needs[operation]}" for operation in asked} == allowed


@pytest.mark.real
def test_mlflow_on_postgresql(folder: Path, names: dict[str, str], cluster: parts.Postgres) -> None:
    port = free_port()
    names |= {
        "--allowed-hosts mlflow.acme.com": f"--allowed-hosts 127.0.0.1:{port}",
        "--host 0.0.0.0 --port 5000": f"--host 127.0.0.1 --port {port}",
        "https://mlflow.acme.com": f"http://127.0.0.1:{port}",
        "db.acme.com:5432": f"127.0.0.1:{cluster.port}",
        "-h db.acme.com": f"-h 127.0.0.1 -p {cluster.port}",
    }
    page = [(kind, instead(text, names)) for kind, text in blocks("mlflow-on-postgresql.md")]
    at = [kind for kind, _ in page].index("sh server")
    first, then = ("".join(text for kind, text in some if kind == "sh") for some in (page[:at], page[at:]))
    run(first, folder, PGPASSWORD=cluster.password)
    (folder / "deploy.yaml").write_text(instead(file_named("mlflow-on-postgresql.md", "deploy.yaml"), names))
    with served(page[at][1], folder, port):
        said = run(then, folder)
    assert '"1"' in said.splitlines()  # the version that the alias names, as MLflow's server says
    assert "Created experiment 'acme-direct'" in said
    assert (folder / "mlflow.dump").stat().st_size > 10_000


@contextlib.contextmanager
def served(script: str, folder: Path, port: int) -> Iterator[None]:
    """A script that runs until it is stopped, and answers by now."""
    bin = str(Path(sys.executable).parent)
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(
            ["bash", "-euc", script],
            cwd=folder,
            env={**os.environ, "PATH": f"{bin}:{os.environ['PATH']}", "AWS_DEFAULT_REGION": "us-east-1"},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        end = time.monotonic() + 300
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert process.poll() is None, (folder / "server.log").read_text()
            assert time.monotonic() < end, (folder / "server.log").read_text()
            time.sleep(0.1)
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


PIPELINE = """
project: acme-ocr
targets:
  mobile: {kind: mobile-ort}
environments:
  staging:
    mobile: {to: ./out/staging}
  prod:
    after: staging
    approve: true
    mobile: {to: ./out/prod}
"""


@pytest.mark.real
def test_pipeline(folder: Path) -> None:
    (folder / "deploy.yaml").write_text(PIPELINE)
    script = "".join(text for kind, text in blocks("pipeline.md") if kind == "sh")
    said = run(script, folder, MODEL="better.onnx", BUILD="7")
    assert said.splitlines() == ["mobile 1 live"]
    again = json.loads((folder / "prod.json").read_text())["deployments"][0]
    assert (again["outcome"], again["version"]) == ("unchanged", 1)


@pytest.mark.real
def test_pipelines_of_services(folder: Path) -> None:
    """The commands of their jobs, but for the installation."""
    (folder / "deploy.yaml").write_text(PIPELINE.replace("    after: staging\n", ""))
    github = yaml.safe_load(file_named("pipeline.md", ".github/workflows/deploy.yml"))["jobs"]["deploy"]
    steps = [step for step in github["steps"] if not step.get("run", "pip install").startswith("pip install")]
    summary = folder / "summary.md"
    for step in steps:
        run(step["run"], folder, **step.get("env", {}), GITHUB_SHA="abc", GITHUB_STEP_SUMMARY=str(summary))
    assert summary.read_text() == "- mobile: ocr-rec/1, live\n"
    gitlab = yaml.safe_load(file_named("pipeline.md", ".gitlab-ci.yml"))["deploy"]
    lines = [line for line in gitlab["script"] if not line.startswith("pip install")]
    said = run("\n".join(lines), folder, **gitlab["variables"], CI_COMMIT_SHA="abc")
    assert "healthy" in said
    assert (folder / gitlab["artifacts"]["paths"][0]).is_file()

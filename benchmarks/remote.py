"""The rows that send to a service, which runs on this machine too: S3 and SSH."""

from __future__ import annotations

import os
import shutil
import statistics
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import services
from measure import Contest, Subject, run
from scene import HERE, Group, answer, big_model, live, project, require, sha256, shipway

MB = 1_000_000
TENSORS = 25  # files that the version of 500 MB consists of


def s3(work: Path) -> Iterator[Contest]:
    with services.s3(work / "service") as server:
        yield _new_file(work, server)
        yield _one_changed(work, server)


def _new_file(work: Path, server: services.S3) -> Contest:
    file = _random(work / "500.bin", 500)
    digest = sha256(file)

    def ours() -> float:
        _empty(server)
        script = [sys.executable, HERE / "upload.py", server.endpoint, f"{file}={digest}"]
        return run(script, work, services.S3_ENVIRONMENT).wall

    def by(name: str, *words: str | Path) -> tuple[str, Callable[[], float]]:
        def copy() -> float:
            _empty(server)
            command = [*words, "cp", file, "s3://bench/theirs"]
            return run(command, work, services.S3_ENVIRONMENT).wall

        return name, copy

    rivals = dict(
        [
            by("s5cmd", services.installed("s5cmd"), "--endpoint-url", server.endpoint),
            by("AWS CLI", services.installed("awscli"), "--endpoint-url", server.endpoint, "s3"),
        ]
    )
    times = {name: statistics.median(copy() for _ in range(3)) for name, copy in rivals.items()}
    fastest = min(times, key=lambda name: times[name])
    baseline = rivals[fastest]

    def arrived() -> None:
        ours()
        require(sha256(_blob(server, digest)) == digest, "the object is not the file that was sent")

    subject = Subject("upload a new 500 MB file to S3", 1.1, ours)
    told = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in times.items())
    print(f"  of the two: {told}", file=sys.stderr)
    return Contest(fastest, baseline, (subject,), arrived)


def _one_changed(work: Path, server: services.S3) -> Contest:
    """A version of many files, and its successor, which shares all but one: as the store is given them."""
    files = [_random(work / f"tensor-{number}.bin", 500 // TENSORS) for number in range(TENSORS)]
    newer = [*files[:-1], _random(work / "tensor-new.bin", 500 // TENSORS)]
    digests = {path: sha256(path) for path in (*files, newer[-1])}

    def upload(version: list[Path]) -> float:
        script = [sys.executable, HERE / "upload.py", server.endpoint]
        given = (f"{path}={digests[path]}" for path in version)
        return run([*script, *given], work, services.S3_ENVIRONMENT).wall

    def whole() -> float:
        _empty(server)
        return upload(files)

    def changed() -> float:
        _empty(server)
        upload(files)
        return upload(newer)

    def arrived() -> None:
        changed()
        for path, digest in digests.items():
            require(sha256(_blob(server, digest)) == digest, f"{path.name} is not what was sent")

    subject = Subject("upload of a version that shares all but one file", 0.1, changed)
    return Contest("the full upload", whole, (subject,), arrived)


def _blob(server: services.S3, digest: str) -> Path:
    return server.folder / "store/blobs/sha256" / digest[:2] / digest


def _empty(server: services.S3) -> None:
    for path in server.folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _random(path: Path, megabytes: int) -> Path:
    with path.open("wb") as stream:
        for _ in range(megabytes):
            stream.write(os.urandom(MB))
    return path


def ssh(work: Path) -> Iterator[Contest]:
    """The bundle is in the store, the host has nothing of it, and its kind starts no program there."""
    model = big_model(work / "200.onnx", 200)
    with services.sshd(work / "sshd") as host:
        login = f"{host.user}@127.0.0.1"
        there = work / "host"
        more = f"""\
  hosts:
    mobile:
      to: ssh://{host.user}@{{host}}:{host.port}{there}
      hosts: [127.0.0.1]
      ssh: {{keys: ["{host.key}"], known_hosts: "{host.known_hosts}"}}
"""
        home = project(work / "home", more)
        shipway(home, "register", model, "--name", "big")
        shipway(home, "plan", "big/1", "--to", "prod", "--target", "mobile")

        def push() -> float:
            shutil.rmtree(there, ignore_errors=True)
            for old in ("ledger", "mirror"):
                shutil.rmtree(home / ".shipway/store" / old, ignore_errors=True)
            took = shipway(home, "promote", "big/1", "--to", "hosts")
            live(home, "hosts", "big/1")
            return took

        def scp() -> float:
            shutil.rmtree(work / "copied", ignore_errors=True)
            (work / "copied").mkdir()
            options = [
                "-q",
                "-P",
                str(host.port),
                "-i",
                host.key,
                "-o",
                f"UserKnownHostsFile={host.known_hosts}",
            ]
            return run(["scp", *options, model, f"{login}:{work / 'copied'}/model.onnx"], work).wall

        def arrived() -> None:
            answer(home, "verify", there / "current")

        subject = Subject("push 200 MB over SSH", 1.3, push)
        yield Contest("scp", scp, (subject,), arrived)


REMOTE = (
    Group(s3, ("upload a new 500 MB file to S3", "upload of a version that shares all but one file")),
    Group(ssh, ("push 200 MB over SSH",)),
)

"""The pages on hosts and on rolling back: their files and commands, on two real sshd."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from howto import blocks, file_named, run, write_models
from ssh_hosts import USER, Host, running


def configuration(folder: Path, client_key: Path, hosts: tuple[Host, Host]) -> str:
    """``deploy.yaml`` as the page puts it together, and ``hosts.yaml`` beside it."""
    placed, grouped, _, trusted = (text for kind, text in blocks("ssh.md")[:4])
    inventory = file_named("ssh.md", "hosts.yaml")
    at = [f"{{address: {host.name}, user: {USER}, port: {host.port}}}" for host in hosts]
    replaced = {
        "line-1: {address: 10.0.4.1, user: deploy, port: 2222}": f"line-1: {at[0]}",
        "  line-2:\n": f"  line-2: {at[1]}\n",
    }
    for name, real in replaced.items():
        assert name in inventory
        inventory = inventory.replace(name, real)
    (folder / "hosts.yaml").write_text(inventory)
    lines = [grouped.rstrip() if "hosts: [line-1" in line else line for line in placed.splitlines()]
    text = "\n".join([*lines, trusted])
    text = text.replace("ssh://deploy@{host}/opt/acme ", f"ssh://deploy@{{host}}{folder}/{{host}} ")
    text = text.replace("~/.ssh/deploy", str(client_key))
    # What the check needs is the host's to have: the tests' own interpreter has it.
    options = f'{{kind: jetson-ort, providers: [cpu], python: "{sys.executable}"}}'
    return f"project: acme-ocr\ntargets:\n  jetson: {options}\n{text}"


@pytest.mark.real
def test_hosts_over_ssh_and_back(tmp_path: Path, client_key: Path) -> None:
    write_models(tmp_path)
    with (
        running(tmp_path / "one", client_key, listen="127.0.0.2") as one,
        running(tmp_path / "two", client_key, listen="127.0.0.3") as two,
    ):
        (tmp_path / "deploy.yaml").write_text(configuration(tmp_path, client_key, (one, two)))
        scripts = [text for kind, text in blocks("ssh.md") if kind == "sh"]
        (trust,) = [text for text in scripts if "ssh-keyscan" in text]
        (deploy,) = [text for text in scripts if "shipway promote" in text]
        # OpenSSH's own last two lines need the account that the tests run in.
        trust = "".join(
            line for line in trust.splitlines(keepends=True) if not line.startswith(("ssh ", "ssh-copy"))
        )
        trust = trust.replace("-p 2222 10.0.4.1", f"-p {one.port} {one.name}")
        trust = trust.replace("ssh-keyscan line-2", f"ssh-keyscan -p {two.port} {two.name}")
        run(trust, tmp_path)
        assert len((tmp_path / "known_hosts").read_text().splitlines()) >= 2
        register = "shipway register {} --name ocr-rec\n"
        run(register.format("model.onnx") + register.format("better.onnx"), tmp_path)
        run("shipway promote ocr-rec/1 --to prod", tmp_path)
        run(deploy, tmp_path)
        for host in (one, two):
            assert (tmp_path / host.name / "current").resolve().name.startswith("ocr-rec-1-")  # rolled back
        run("shipway promote ocr-rec/2 --to prod; shipway promote ocr-rec/1 --to prod", tmp_path)
        (back,) = [text for _, text in blocks("roll-back.md")]
        wanted = {"--target server": "--target jetson", "--to-version 3": "--to-version 2"}
        for line in back.splitlines():
            for name, real in wanted.items():
                line = line.replace(name, real)
            run(line, tmp_path)
            goes_back = "rollback" in line and "--dry-run" not in line
            live = (tmp_path / one.name / "current").resolve().name
            assert live.startswith("ocr-rec-2-" if goes_back else "ocr-rec-1-"), line
            if goes_back:
                run("shipway promote ocr-rec/1 --to prod", tmp_path)

"""A child without a network: cut off where the kernel allows it, else as it was, which ``doctor`` tells."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from shipway.registry import process
from shipway.registry.cli import app
from shipway.registry.verbs import doctor

WHERE = "import os; print(os.readlink('/proc/self/ns/net'))"
TALK = "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', 9))"
WHO = """
import ctypes, json, os, runpy, socket, sys
cut_off = runpy.run_path(sys.argv[1])["cut_off"]
if os.geteuid() == 0:
    os.setgroups([]), os.setgid(65534), os.setuid(65534)
    ctypes.CDLL(None).prctl(4, 1)  # PR_SET_DUMPABLE: who changes its user else owns its own /proc no more
before = os.getuid(), os.getgid(), os.readlink("/proc/self/ns/net")
done = cut_off()
open("mine", "w").close()
after = os.getuid(), os.getgid(), os.readlink("/proc/self/ns/net")
owner = os.stat("mine")
print(json.dumps([done, before, after, [owner.st_uid, owner.st_gid]]))
"""


def allowed() -> bool:
    command = [sys.executable, "-I", "-S", str(process.OFFLINE)]
    return subprocess.run(command, check=False, timeout=60).returncode == 0


def test_a_child_has_a_network_of_its_own_where_that_is_allowed() -> None:
    here = str(Path("/proc/self/ns/net").readlink())
    assert process.run([sys.executable, "-c", WHERE]).stdout.strip() == here
    done = process.run([sys.executable, "-c", WHERE], offline=True)
    assert done.code == 0
    assert (done.stdout.strip() != here) == allowed()


def test_nothing_goes_out_of_it() -> None:
    assert process.run([sys.executable, "-c", TALK]).code == 0
    done = process.run([sys.executable, "-c", TALK], offline=True)
    assert ("Network is unreachable" in done.stderr) == allowed()


def test_the_child_gets_its_arguments_its_input_and_its_exit_status() -> None:
    code = "import sys; print(sys.argv[1:], sys.stdin.read(), sys.flags.isolated); sys.exit(7)"
    done = process.run([sys.executable, "-c", code, "a b", "-x"], stdin=b"in", offline=True)
    assert (done.code, done.stdout) == (7, "['a b', '-x'] in 0\n")


def test_a_program_that_is_not_there_has_failed_with_the_reason(tmp_path: Path) -> None:
    gone = str(tmp_path / "gone")
    with pytest.raises(FileNotFoundError):
        process.run([gone])
    done = process.run([gone], offline=True)
    assert done.code == 1
    assert "No such file or directory" in done.stderr


def test_an_ordinary_user_stays_who_it_is_and_so_do_its_files(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    command = [sys.executable, "-c", WHO, str(process.OFFLINE)]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
    assert run.returncode == 0, run.stderr
    done, before, after, owner = json.loads(run.stdout)
    assert after[:2] == before[:2] == owner
    assert (after[2] != before[2]) is done


@pytest.mark.parametrize(("code", "state"), [(0, "ok"), (1, "missing")])
def test_doctor_says_which_of_both_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, state: str
) -> None:
    assert doctor.isolation().state == ("ok" if allowed() else "missing")
    (tmp_path / "offline.py").write_text(f"raise SystemExit({code})")
    monkeypatch.setattr(process, "OFFLINE", tmp_path / "offline.py")
    finding = doctor.isolation()
    assert finding.state == state
    assert bool(finding.remedy) == (state == "missing")
    monkeypatch.chdir(tmp_path)
    assert app.main(["doctor", "--json"]) == 0  # converters work without it

"""Children: what they say, and that none is left."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from shipway.registry import errors, process

WORKER = """
import os, sys, time
from shipway.registry import process
from shipway.registry.errors import ConversionError

def prepare():
    print("noise while importing")
    return answer

def answer(request):
    what = request["do"]
    print("noise on stdout")
    os.write(1, b"noise from C")
    if what == "echo":
        return request
    if what == "where":
        return [os.getcwd(), os.environ.get("MARK"), os.getpid()]
    if what == "touch":
        open(request["name"], "w").close()
    if what == "raise":
        raise ConversionError("no", why="because", remedy="do this")
    if what == "exit":
        raise SystemExit(-1)
    if what == "die":
        print("last words", file=sys.stderr, flush=True)
        os._exit(7)
    if what == "crash":
        os.kill(os.getpid(), 11)
    if what == "hang":
        time.sleep(600)
    if what == "undo":
        try:
            open("begun", "w").close()
            time.sleep(600)
        finally:
            open("undone", "w").close()
    if what == "eat":
        return len(bytearray(request["bytes"]))

if __name__ == "__main__":
    process.serve(prepare)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "child_of_test.py").write_text(WORKER)
    return tmp_path


def start(folder: Path, **options: object) -> process.Worker:
    return process.Worker("child_of_test", cwd=folder, env={"MARK": "set"}, **options)  # type: ignore[arg-type]


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def gone(pid: int, within: float = 60) -> bool:
    deadline = time.monotonic() + within
    while is_alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not is_alive(pid)


def test_worker_answers_in_order_whatever_is_printed(folder: Path) -> None:
    with start(folder) as worker:
        worker.send({"do": "echo", "text": "ä"})
        worker.send({"do": "where"})
        assert worker.receive() == {"do": "echo", "text": "ä"}
        cwd, mark, pid = worker.receive()
        assert (cwd, mark) == (str(folder), "set")
        assert "noise while importing" in worker.log()
        assert "noise from C" in worker.log()
    assert gone(pid)


def test_worker_that_is_told_gives_no_answer_be_it_that_it_fails(folder: Path) -> None:
    with start(folder) as worker:
        worker.tell({"do": "touch", "name": "told"})
        worker.tell({"do": "raise"})
        assert worker.ask({"do": "echo"}) == {"do": "echo"}
    assert (folder / "told").exists()


def test_worker_hands_on_a_shipway_error_whole(folder: Path) -> None:
    with start(folder) as worker:
        with pytest.raises(errors.ConversionError) as caught:
            worker.ask({"do": "raise"})
        assert (caught.value.what, caught.value.why, caught.value.remedy) == ("no", "because", "do this")
        assert worker.ask({"do": "echo"}) == {"do": "echo"}  # it lives on


def test_worker_survives_system_exit(folder: Path) -> None:
    with start(folder) as worker:
        with pytest.raises(process.WorkerError) as caught:
            worker.ask({"do": "exit"})
        assert caught.value.kind == "SystemExit"
        assert worker.ask({"do": "echo"}) == {"do": "echo"}


@pytest.mark.parametrize(
    ("do", "message"), [("die", "ended with exit status 7"), ("crash", "ended by SIGSEGV")]
)
def test_worker_that_dies_says_how(folder: Path, do: str, message: str) -> None:
    with start(folder) as worker, pytest.raises(process.WorkerError) as caught:
        worker.ask({"do": do})
    assert caught.value.kind == "Died"
    assert message in caught.value.message
    if do == "die":
        assert "last words" in caught.value.log


def test_worker_that_takes_its_time_to_die_is_heard_to_its_end(folder: Path) -> None:
    """A traceback takes long on a busy machine, and is written after all else has ended."""
    (folder / "slow_child.py").write_text(
        "import sys, time\n"
        "from shipway.registry import process\n"
        "def prepare():\n"
        "    sys.excepthook = lambda *error: (time.sleep(1), sys.__excepthook__(*error))\n"
        "    raise MemoryError('no room')\n"
        "process.serve(prepare)\n"
    )
    with process.Worker("slow_child", cwd=folder) as worker, pytest.raises(process.WorkerError) as caught:
        worker.ask({})
    assert caught.value.message == "ended with exit status 1"
    assert caught.value.log.endswith("MemoryError: no room\n")


def test_worker_that_hangs_is_killed(folder: Path) -> None:
    with start(folder) as worker:
        pid = worker.ask({"do": "where"})[2]
        with pytest.raises(process.WorkerError) as caught:
            worker.ask({"do": "hang"}, timeout=0.3)
        assert caught.value.kind == "TimedOut"
        assert gone(pid)


def test_worker_within_its_memory(folder: Path) -> None:
    with start(folder, memory=1 << 30) as worker:
        assert worker.ask({"do": "eat", "bytes": 1 << 20}) == 1 << 20
        with pytest.raises(process.WorkerError) as caught:
            worker.ask({"do": "eat", "bytes": 2 << 30})
        assert caught.value.kind == "MemoryError"


def test_worker_that_is_killed_is_gone_before_it_is_closed(folder: Path) -> None:
    with start(folder) as worker:
        pid = worker.ask({"do": "where"})[2]
        worker.send({"do": "hang"})
        worker.kill()
        assert gone(pid)
        with pytest.raises(process.WorkerError, match="SIGKILL"):
            worker.receive()


def test_worker_undoes_when_its_parent_fails(folder: Path) -> None:
    def fail() -> None:
        with start(folder, grace=20.0) as worker:
            worker.send({"do": "undo"})
            while not (folder / "begun").exists():
                time.sleep(0.02)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert (folder / "undone").exists()


def test_worker_dies_with_its_parent(folder: Path) -> None:
    parent = (
        "import sys, time; from pathlib import Path; from shipway.registry import process\n"
        "w = process.Worker('child_of_test', cwd=Path(sys.argv[1]))\n"
        "print(w.ask({'do': 'where'})[2], flush=True); w.send({'do': 'hang'}); time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", parent, str(folder)], stdout=subprocess.PIPE) as process_:
        assert process_.stdout is not None
        pid = int(process_.stdout.readline())
        assert is_alive(pid)
        process_.send_signal(signal.SIGKILL)
    assert gone(pid)


def test_worker_whose_parent_died_before_it_could_know_ends_too(folder: Path) -> None:
    """What is left then is that nobody holds the other end of its stdin."""
    command = [sys.executable, "-m", "child_of_test"]
    with subprocess.Popen(command, cwd=folder, stdin=subprocess.PIPE) as child:
        assert child.stdin is not None
        child.stdin.close()
        assert child.wait(60) == 0


@pytest.mark.real
def test_the_first_process_of_a_container_may_have_workers(folder: Path) -> None:
    """It is number 1, which elsewhere adopts those whose parent is gone."""
    parent = (
        "import os, sys; from pathlib import Path; from shipway.registry import process\n"
        "with process.Worker('child_of_test', cwd=Path(sys.argv[1])) as w:\n"
        "    print(os.getpid(), w.ask({'do': 'echo'}))\n"
    )
    container = ["unshare", "--pid", "--fork", "--mount-proc"]
    run = subprocess.run(
        [*container, sys.executable, "-c", parent, str(folder)],
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert run.stdout == "1 {'do': 'echo'}\n", run.stderr


def test_run_captures_and_reports() -> None:
    code = "import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)"
    done = process.run([sys.executable, "-c", code])
    assert (done.code, done.stdout, done.stderr, done.timed_out) == (3, "out\n", "err\n", False)


def test_run_kills_the_whole_group_on_a_timeout() -> None:
    for seconds in (0.5, 5, 50):  # until it had the time to speak: most machines need no second try
        done = process.run(["sh", "-c", "sleep 600 & echo $!; wait"], timeout=seconds)
        assert done.timed_out
        assert done.code < 0
        if done.stdout:
            break
    assert gone(int(done.stdout))


def test_run_leaves_no_grandchild_after_a_normal_end() -> None:
    done = process.run(["sh", "-c", "sleep 600 >/dev/null 2>&1 & echo $!"], timeout=120)
    assert done.code == 0
    assert gone(int(done.stdout))


def test_run_limits_memory() -> None:
    code = (
        "import resource as r, time\n"
        "while r.getrlimit(r.RLIMIT_AS)[0] == r.RLIM_INFINITY: time.sleep(0.01)\n"  # it is set from outside
        "bytearray(2 << 30)"
    )
    done = process.run([sys.executable, "-c", code], memory=1 << 30, timeout=60)
    assert "MemoryError" in done.stderr

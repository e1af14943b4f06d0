"""Hosts for tests: real sshd processes, on loopback or in network namespaces, and a proxy with faults."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ports import free_port

SSHD = "/usr/sbin/sshd"  # it insists on being called by its whole path
USER = "root" if os.geteuid() == 0 else os.environ["USER"]

_CONFIG = """
Port {port}
ListenAddress {listen}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized_keys
PidFile none
UsePAM no
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
MaxStartups 200
Subsystem sftp internal-sftp
{more}
"""


def make_key(path: Path) -> Path:
    """A new key pair; the public half is beside it."""
    if not path.exists():
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", path.name, "-f", path],
            check=True,
            stdin=subprocess.DEVNULL,
        )
    return path


@dataclass
class Host:
    """A running sshd. ``root`` is the destination's folder; ``folder`` has its keys and log."""

    name: str
    port: int
    folder: Path
    root: Path
    process: subprocess.Popen[bytes] = field(repr=False)

    @property
    def url(self) -> str:
        return f"ssh://{USER}@{self.name}:{self.port}{self.root}"

    @property
    def host_key(self) -> str:
        return " ".join((self.folder / "host_key.pub").read_text().split()[:2])

    def known(self, port: int | None = None) -> str:
        """Its line for a known_hosts file."""
        return f"[{self.name}]:{port or self.port} {self.host_key}\n"


@contextlib.contextmanager
def running(
    folder: Path,
    client_key: Path,
    *,
    listen: str = "127.0.0.1",
    port: int | None = None,
    namespace: str | None = None,
    within: Sequence[str] = (),
    more: str = "",
) -> Iterator[Host]:
    """An sshd with a host key of its own that lets ``client_key`` in; afterwards its processes are gone.

    ``within`` is a command that runs the one that follows it in another world.
    """
    folder.mkdir(parents=True, exist_ok=True)  # of a host that comes back
    make_key(folder / "host_key")
    shutil.copy(client_key.with_suffix(".pub"), folder / "authorized_keys")
    port = port or free_port()
    (folder / "sshd_config").write_text(_CONFIG.format(port=port, listen=listen, folder=folder, more=more))
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    command = [*within, SSHD, "-D", "-e", "-f", str(folder / "sshd_config")]
    if namespace:
        command = ["ip", "netns", "exec", namespace, *command]
    with (folder / "log").open("wb") as log, subprocess.Popen(command, stderr=log) as process:
        try:
            _wait_for(folder / "log", process)
            yield Host(listen, port, folder, folder / "root", process)
        finally:
            _end(process)


def _wait_for(log: Path, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 60
    while b"Server listening" not in log.read_bytes():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.01)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End sshd and the processes of its connections, by their ids."""
    doomed = descendants(process.pid)
    for pid in [process.pid, *doomed]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, 9)
    process.wait()


def descendants(pid: int) -> list[int]:
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    found, queue = [], [pid]
    while queue:
        at = queue.pop()
        children = [child for child, parent in parents.items() if parent == at]
        found += children
        queue += children
    return found


def helpers(host: Host) -> list[int]:
    """The ids of shipway's helpers that run on a host now."""
    found = []
    for pid in descendants(host.process.pid):
        with contextlib.suppress(OSError):
            command = Path(f"/proc/{pid}/cmdline").read_bytes()  # empty where it has just ended
            program = command.split(b"\0")[0].rpartition(b"/")[2]
            if program.startswith(b"python") and b"zlib.decompress" in command:
                found.append(pid)
    return found


# disks and networks


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A file system of that size (``6m``), until the end of the block."""
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


@contextlib.contextmanager
def network(names: Sequence[str], subnet: str) -> Iterator[dict[str, str]]:
    """A network namespace for each name, joined by a veth pair; gives their addresses."""
    made = []
    try:
        for number, name in enumerate(names, 1):
            _ip("netns", "add", name)
            made.append(name)
            here, there = f"v{name[-8:]}h", f"v{name[-8:]}n"
            _ip("link", "add", here, "type", "veth", "peer", "name", there, "netns", name)
            _ip("addr", "add", f"{subnet}.{number}.1/24", "dev", here)
            _ip("link", "set", here, "up")
            _ip("-n", name, "addr", "add", f"{subnet}.{number}.2/24", "dev", there)
            _ip("-n", name, "link", "set", there, "up")
            _ip("-n", name, "link", "set", "lo", "up")
        yield {name: f"{subnet}.{number}.2" for number, name in enumerate(names, 1)}
    finally:
        for name in made:
            _ip("netns", "del", name)  # the pair of links goes with it


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


class Wire:
    """A TCP proxy in front of a host: counts bytes, cuts the n-th connection after so many, or goes silent.

    ``cuts`` and ``stalls``: for each connection in turn, the bytes from the client after which it strikes.
    ``loses``: for each connection in turn, how often the host is heard before its next words are kept back
    and the connection ends. ``delay``: seconds before anything goes on, in both directions.
    """

    def __init__(
        self,
        port: int,
        *,
        cuts: Sequence[int] = (),
        stalls: Sequence[int] = (),
        loses: Sequence[int] = (),
        delay: float = 0.0,
    ) -> None:
        self.sent = 0  # by the client, over all connections
        self.connections = 0
        self._upstream = port
        self._cuts = list(cuts)
        self._stalls = list(stalls)
        self._loses = list(loses)
        self._delay = delay
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self.port = int(self._listener.getsockname()[1])

    def __enter__(self) -> Wire:
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            doomed = list(self._open)
            self._open.clear()
        for end in doomed:
            _hang_up(end)
        for thread in self._threads:
            thread.join()
        for end in doomed:
            end.close()

    def _start(self, work: object, *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._upstream))
            with self._lock:
                number = self.connections
                self.connections += 1
                self._open += [client, server]
            cut = self._cuts[number] if number < len(self._cuts) else None
            stall = self._stalls[number] if number < len(self._stalls) else None
            lose = self._loses[number] if number < len(self._loses) else None
            stalled = threading.Event()
            self._start(self._forward, client, server, cut, stall, stalled)
            self._start(self._return, server, client, lose, stalled)

    def _forward(
        self,
        client: socket.socket,
        server: socket.socket,
        cut: int | None,
        stall: int | None,
        stalled: threading.Event,
    ) -> None:
        seen = 0
        with contextlib.suppress(OSError):
            while data := client.recv(1 << 16):
                seen += len(data)
                self.sent += len(data)
                if cut is not None and seen >= cut:
                    break
                if stall is not None and seen >= stall:
                    stalled.set()
                    return  # nothing goes through any more, and nobody is told
                time.sleep(self._delay)
                server.sendall(data)
        _hang_up(client)
        _hang_up(server)

    def _return(
        self, server: socket.socket, client: socket.socket, lose: int | None, stalled: threading.Event
    ) -> None:
        with contextlib.suppress(OSError):
            for heard in itertools.count():
                data = server.recv(1 << 16)
                if not data or heard == lose:
                    break
                time.sleep(self._delay)
                if not stalled.is_set():
                    client.sendall(data)
        if not stalled.is_set():
            _hang_up(client)
            if lose is not None:
                _hang_up(server)


def _hang_up(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)

"""What asyncssh would do that is of no use here, and that it is not done."""

from __future__ import annotations

import ctypes.util
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from ssh_hosts import Host
from ssh_scene import HASTE, Shelf, noise

from shipway.targets.deliveries import ssh_library
from shipway.targets.deliveries.ssh_address import Address, SshOptions, Traffic
from shipway.targets.deliveries.ssh_link import Link
from shipway.targets.deliveries.ssh_session import _Loop

IMPORT = """
import ctypes.util, sys
started = []
sys.addaudithook(lambda event, given: started.append(given[0]) if event == "subprocess.Popen" else None)
search = ctypes.util.find_library
from shipway.targets.deliveries import ssh_library
assert ssh_library.load().connect
assert ctypes.util.find_library is search
print(*started)
"""


def test_no_compiler_is_started_to_import_it() -> None:
    done = subprocess.run([sys.executable, "-c", IMPORT], capture_output=True, text=True, check=True)
    assert {Path(program).name for program in done.stdout.split()} <= {"ldconfig"}


def test_a_library_that_the_loader_knows_is_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def search(name: str) -> str:
        asked.append(name)
        return f"lib{name}.so.0"

    monkeypatch.setattr(ctypes.util, "find_library", search)
    monkeypatch.delitem(sys.modules, "asyncssh", raising=False)
    monkeypatch.delenv("LD_LIBRARY_PATH", raising=False)
    with ssh_library._searching_less():
        assert ctypes.util.find_library("c") == "libc.so.0"
        assert ctypes.util.find_library("that-nobody-has") is None
    assert asked == ["c"]
    monkeypatch.setenv("LD_LIBRARY_PATH", "/opt/lib")  # there it may be, and the cache does not say so
    with ssh_library._searching_less():
        assert ctypes.util.find_library("that-nobody-has") == "libthat-nobody-has.so.0"


class Talker:
    """A connection that sends an empty packet before each one, as asyncssh does."""

    def __init__(self, cipher: str) -> None:
        self.cipher = cipher
        self.sent: list[int] = []
        self.send_packet: Callable[..., None] = self._send

    def get_extra_info(self, name: str) -> str | None:
        return self.cipher if name == "send_cipher" else None

    def _send(self, kind: int, *parts: bytes, handler: object = None) -> None:
        if kind > 49:
            self.send_packet(2, b"")
        self.sent.append(kind)


@pytest.mark.parametrize(
    ("cipher", "sent"), [("aes128-gcm@openssh.com", [94, 20]), ("aes256-cbc", [2, 94, 20])]
)
def test_empty_packets_are_left_out_where_the_cipher_needs_none(cipher: str, sent: list[int]) -> None:
    talker = Talker(cipher)
    ssh_library.spare(talker)  # type: ignore[arg-type]
    talker.send_packet(94, b"data", handler=talker)
    talker.send_packet(20)
    assert talker.sent == sent


@pytest.mark.real
def test_a_file_goes_in_as_few_packets_as_it_fits_into(
    host: Host, shelf: Shelf, known_hosts: Path, client_key: Path
) -> None:
    size = 4_000_000
    release = shelf.bundle(1, {"weights.bin": noise(size)})
    file = release.manifest.file("weights.bin")
    assert file is not None
    link = Link(Address.parse(host.url), SshOptions(known_hosts, (client_key,)), HASTE, "token", Traffic())
    request = {"do": "receive", "sha": file.digest.hex, "size": size, "release": "r", "path": "weights.bin"}

    async def send() -> int:
        await link.open()
        try:
            before = link._connection._send_seq  # type: ignore[union-attr]
            await link.stream(request, shelf.fetch(file), size)
            return link._connection._send_seq - before  # type: ignore[union-attr]
        finally:
            await link.close()

    whole = size // 32_768
    assert whole <= _Loop.run(send()) < 1.3 * whole


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path / "store")

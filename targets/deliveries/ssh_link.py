"""A connection to one host and the helper (``on_host``) at its other end.

Rules: a host is talked to only when its key is in a known_hosts file, whatever an SSH configuration says; no
password is ever asked for or sent. What can be mended by connecting again is a ``CutError``; everything else
is a DeliveryError that says what to do.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
from collections.abc import Awaitable
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, Protocol, TypeVar

from shipway.registry.errors import ConfigError, DeliveryError
from shipway.registry.nouns import Json
from shipway.targets.deliveries import ssh_helper, ssh_library
from shipway.targets.deliveries.base import OutOfReachError
from shipway.targets.deliveries.ssh_address import Address, Patience, SshOptions, Traffic
from shipway.targets.deliveries.ssh_answers import nonsense

if TYPE_CHECKING:
    import asyncssh

_T = TypeVar("_T")
_CHUNK = 1 << 18  # bytes read from a file at a time: asyncio warns of more writes to a dead socket
_WINDOW = 1 << 21  # bytes the host may send before we answer
_LINE = 1 << 24  # bytes that an answer may have
_SHORTLY_S = 2.0  # for what is only of interest if it comes at once
_GREETING = 1 << 16  # bytes that a talkative login may print before the helper speaks
_USUAL = ("~/.ssh/known_hosts", "~/.ssh/known_hosts2", "/etc/ssh/ssh_known_hosts")


class Source(Protocol):
    """What is sent: a file's path, or something else that can be read from any place."""

    def open(self, mode: Literal["rb"]) -> BinaryIO: ...


class CutError(Exception):
    """The connection is gone, or never came to be: trying again may help."""


class Link:
    """One connection. Its coroutines run one at a time, in one event loop."""

    def __init__(
        self, address: Address, options: SshOptions, patience: Patience, token: str, traffic: Traffic
    ) -> None:
        self._address = address
        self._options = options
        self._patience = patience
        self._token = token
        self._traffic = traffic
        self.offset = 0  # of the file under way: where the host said last that it has got to
        self._connection: asyncssh.SSHClientConnection | None = None
        self._process: asyncssh.SSHClientProcess[bytes] | None = None

    @property
    def is_open(self) -> bool:
        return self._process is not None

    async def open(self) -> None:
        """Connect and start the helper. Raises CutError or DeliveryError."""
        presented: list[asyncssh.SSHKey] = []
        try:
            self._connection = await self._connect(presented)
        except Exception as error:
            raise self._explained(error, presented) from error
        self._traffic.connections += 1
        try:
            await asyncio.wait_for(self._start_helper(), self._patience.login)
        except asyncio.TimeoutError:  # a login that hangs, in a home that hangs: SSH itself is all right
            await self.close()
            raise CutError(f"no helper within {self._patience.login:g} s of the login") from None
        except BaseException:
            await self.close()
            raise

    async def _connect(self, presented: list[asyncssh.SSHKey]) -> asyncssh.SSHClientConnection:
        library = ssh_library.load()

        class Client(library.SSHClient):  # type: ignore[name-defined, misc]
            def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
                presented.append(key)  # asked about keys that known_hosts does not vouch for
                return False

        wanted: dict[str, Any] = {}
        if self._address.user is not None:
            wanted["username"] = self._address.user
        if self._address.port is not None:
            wanted["port"] = self._address.port
        if self._options.keys:
            wanted["client_keys"] = [str(key) for key in self._options.keys]
            wanted["agent_path"] = None
        silence = self._patience.silence
        connection = await library.connect(
            self._address.host,
            client_factory=Client,
            known_hosts=self._known_hosts(),
            encryption_algs="^" + ",".join(ssh_library.CIPHERS),
            connect_timeout=self._patience.connect,
            login_timeout=self._patience.login,
            keepalive_interval=silence / 3,
            keepalive_count_max=2,
            **wanted,
        )
        ssh_library.spare(connection)
        return connection  # type: ignore[no-any-return]

    def _known_hosts(self) -> bytes:
        files = [self._options.known_hosts] if self._options.known_hosts else map(Path, _USUAL)
        texts = []
        for file in files:
            path = file.expanduser()
            try:
                texts.append(path.read_bytes())
            except FileNotFoundError:
                if self._options.known_hosts:
                    raise
        # Never empty: asyncssh would take that for a wish to trust whatever is usual.
        return b"\n".join([b"# what shipway trusts", *texts, b""])

    async def _start_helper(self) -> None:
        assert self._connection is not None
        helper = ssh_helper.program(self._address.folder, self._token)
        try:
            self._process = await self._connection.create_process(
                ssh_helper.boot(helper), encoding=None, window=_WINDOW
            )
        except Exception as error:
            raise self._explained(error, []) from error
        self._write(helper)
        seen = b""
        while True:
            line = await self._line(limit=_GREETING)
            seen += line
            if line.startswith(ssh_helper.greeting()):
                return
            if not line.endswith(b"\n") or len(seen) > _GREETING:
                raise await self._no_helper(seen)

    async def _no_helper(self, seen: bytes) -> Exception:
        process = self._process
        assert process is not None
        complaint, code = b"", None
        with contextlib.suppress(Exception):
            complaint = await asyncio.wait_for(process.stderr.read(2000), _SHORTLY_S)
            await asyncio.wait_for(process.wait_closed(), _SHORTLY_S)
            code = process.exit_status
        if code is None and not seen and not complaint:
            return CutError("the connection was cut while the helper started")
        text = _shown(complaint or seen)
        if code == 127 or "not found" in text:
            return DeliveryError(
                f"{self._address} has no python3.",
                why=text,
                remedy="Install Python 3.6 or newer there, so that 'python3' starts it, then try again.",
            )
        return DeliveryError(
            f"{self._address} did not start the helper that puts files in place.",
            why=f"{text or 'It said nothing'} (exit status {code})",
            remedy=f"Try it: ssh {self._address.login} python3 --version",
        )

    async def ask(self, request: Json, payload: bytes = b"") -> Json:
        """Send a request, and bytes that belong to it; return the answer. Raises CutError."""
        self._write(json.dumps(request).encode() + b"\n" + payload)
        return await self._soon_enough(self._answer())

    async def stream(self, request: Json, source: Source, size: int) -> Json:
        """Send a file from where the host says that it has got to; return the answer. Raises CutError.

        OSError where ``source`` can't be read, EOFError where it is shorter than ``size`` bytes.
        """
        answer = await self.ask(request)
        if "offset" not in answer:
            return answer
        if not isinstance(answer["offset"], int) or not 0 <= answer["offset"] <= size:
            raise nonsense(str(self._address), answer)
        self.offset = answer["offset"]
        assert self._process is not None
        reply = asyncio.create_task(self._answer())
        try:
            with source.open("rb") as stream:
                left = size - stream.seek(answer["offset"])
                while left and not reply.done():
                    data = stream.read(min(_CHUNK, left))
                    if not data:
                        raise EOFError(source)
                    left -= len(data)
                    self._write(data)
                    await self._soon_enough(self._drained())
                    await asyncio.sleep(0)  # to hear of a cut, or of an answer that came early
            return await self._soon_enough(reply)
        except BaseException:
            reply.cancel()
            with contextlib.suppress(BaseException):
                await reply
            await self.close()  # the helper still waits for bytes
            raise

    async def _soon_enough(self, work: Awaitable[_T]) -> _T:
        """For a helper that stands still while SSH itself is all right: stopped, or on a disk that hangs."""
        try:
            return await asyncio.wait_for(work, self._patience.answer)
        except asyncio.TimeoutError:
            raise OutOfReachError(
                f"{self._address} gave no answer within {self._patience.answer:g} s.",
                why="The connection stands, but what runs there does not go on.",
                remedy="Look at that host's disk and memory, then try again.",
            ) from None

    async def _drained(self) -> None:
        assert self._process is not None
        with contextlib.suppress(Exception):  # the host hung up: what reads its answer says so
            await self._process.stdin.drain()

    def _write(self, data: bytes) -> None:
        assert self._process is not None
        self._traffic.sent += len(data)
        with contextlib.suppress(OSError):  # the same
            self._process.stdin.write(data)

    async def _answer(self) -> Json:
        line = await self._line(limit=_LINE)
        if not line.endswith(b"\n"):
            raise CutError("the connection was cut")
        try:
            answer = json.loads(line)
            if not isinstance(answer, dict):
                raise ValueError
        except (ValueError, RecursionError):
            raise nonsense(str(self._address), _shown(line)) from None
        return answer

    async def _line(self, *, limit: int) -> bytes:
        """A line, or what there was of it when the connection ended."""
        assert self._process is not None
        line = b""
        while len(line) < limit:
            try:
                return line + await self._process.stdout.readuntil(b"\n")
            except asyncio.IncompleteReadError as error:  # noqa: PERF203 - no line needs many rounds
                line += error.partial
                if not error.partial or self._process.stdout.at_eof():
                    break
            except OSError as error:
                raise CutError(str(error)) from error
            except Exception as error:
                raise self._explained(error, []) from error
        return line

    async def close(self) -> None:
        """Hang up; the helper ends by itself."""
        connection = self._connection
        self.hang_up()
        if connection is not None:
            with contextlib.suppress(Exception):
                await asyncio.wait_for(connection.wait_closed(), _SHORTLY_S)

    def hang_up(self) -> None:
        """The same without seeing it through. To be called in the loop."""
        process, connection = self._process, self._connection
        self._process = self._connection = None
        with contextlib.suppress(Exception):
            if process is not None:
                process.close()
        with contextlib.suppress(Exception):
            if connection is not None:
                connection.abort()

    def _explained(self, error: Exception, presented: list[asyncssh.SSHKey]) -> Exception:
        asyncssh = ssh_library.load()
        if isinstance(error, CutError | DeliveryError | ConfigError):
            return error
        if isinstance(error, asyncssh.HostKeyNotVerifiable):
            return self._unknown_key(presented, str(error))
        if isinstance(error, asyncssh.PermissionDenied):
            keys = ", ".join(map(str, self._options.keys)) or "the agent's keys and those in ~/.ssh"
            return DeliveryError(
                f"{self._address} let nobody in.",
                why=f"{error.reason}; tried: {keys}.",
                remedy=f"Try 'ssh {self._address.login}': 'ssh-copy-id' puts a key on the host, 'ssh-add' "
                "one into the agent.",
            )
        if isinstance(error, asyncssh.KeyExchangeFailed | asyncssh.ProtocolNotSupported):
            return DeliveryError(
                f"{self._address} speaks no SSH that is still safe.",
                why=str(error),
                remedy="Bring its SSH server up to date.",
            )
        if isinstance(error, asyncssh.KeyImportError | asyncssh.KeyEncryptionError | FileNotFoundError):
            return ConfigError(
                f"A key or known_hosts file for {self._address} can't be used.",
                why=str(error),
                remedy="Set 'ssh: {keys: [...], known_hosts: ...}' right in deploy.yaml; "
                "a key with a passphrase belongs in the agent (ssh-add).",
            )
        if isinstance(error, OSError | asyncssh.Error | EOFError):
            return CutError(str(error) or type(error).__name__)
        return error

    def _unknown_key(self, presented: list[asyncssh.SSHKey], message: str) -> DeliveryError:
        port = self._address.port or 22
        name = self._address.host if port == 22 else f"[{self._address.host}]:{port}"
        file = self._options.known_hosts or "~/.ssh/known_hosts"
        known = ssh_library.load().match_known_hosts(self._known_hosts(), self._address.host, "", port)[0]
        shown = f"It shows {_fingerprint(presented[0])}. " if presented else ""
        if known:
            wanted = ", ".join(map(_fingerprint, known))
            return DeliveryError(
                f"{self._address} is not the host that it was: it has another key.",
                why=f"{shown}{file} has {wanted}. Somebody may be listening in, or it was set up anew.",
                remedy=f"Ask whoever runs it. If it is right: 'ssh-keygen -R {name}', then add its new key.",
            )
        return DeliveryError(
            f"{self._address} is not known: its key is not in {file}.",
            why=shown.strip() or message,
            remedy=f"Add it: 'ssh-keyscan -p {port} {self._address.host} >> {file}'; then compare the "
            "fingerprint with what 'ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub' prints on the host.",
        )


def _fingerprint(key: asyncssh.SSHKey) -> str:
    digest = base64.b64encode(hashlib.sha256(key.public_data).digest()).decode().rstrip("=")
    return f"{key.get_algorithm()} SHA256:{digest}"


def _shown(data: bytes) -> str:
    """Bytes from a host, fit for a terminal."""
    text = data.decode("utf-8", errors="replace").strip()[-500:]
    return "".join(letter if letter.isprintable() or letter == "\n" else "?" for letter in text)

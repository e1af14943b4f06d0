"""A folder as the store."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from shipway.registry import files
from shipway.registry.errors import DeliveryError, IntegrityError
from shipway.registry.nouns import Digest


class FolderObjects:
    """Objects as files below ``root``. Creating-if-absent is a hard link, which no two processes win."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.address = str(root)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise DeliveryError(
                f"The store {self.address} can't be used.",
                why=f"{error.strerror or error}: {error.filename or self.address}",
                remedy="Free space or mend the permissions there, or set another 'store' in deploy.yaml.",
            ) from error

    def get(self, key: str) -> bytes | None:
        with self._explained():
            try:
                return (self.root / key).read_bytes()
            except (FileNotFoundError, NotADirectoryError):
                return None

    def put(self, key: str, data: bytes) -> None:
        with self._explained():
            files.write_atomic(self.root / key, data)

    def create(self, key: str, data: bytes) -> bool:
        with self._explained():
            return files.create_exclusive(self.root / key, data)

    def put_file(self, key: str, source: Path, digest: Digest) -> None:
        with self._explained():
            try:
                files.copy_atomic(source, self.root / key, expect=digest)
            except ValueError as error:
                raise IntegrityError(
                    f"{source} changed while it was being stored.",
                    why=str(error),
                    remedy="Leave the file alone and run the command again.",
                ) from error

    def local(self, key: str) -> Path | None:
        return self.root / key if self.exists(key) else None

    def exists(self, key: str) -> bool:
        with self._explained():
            try:
                return stat.S_ISREG((self.root / key).stat().st_mode)
            except (FileNotFoundError, NotADirectoryError):
                return False

    def is_intact(self, key: str, digest: Digest) -> bool:
        with self._explained():
            try:
                return files.digest_of(self.root / key) == digest
            except (FileNotFoundError, NotADirectoryError):
                return False

    def list(self, prefix: str) -> Iterator[str]:
        with self._explained():
            found = sorted(self._walk(self.root / prefix))
        yield from (path.relative_to(self.root).as_posix() for path in found)

    @staticmethod
    def _walk(base: Path) -> Iterator[Path]:
        """Raises OSError for a folder that can't be read, which ``rglob`` would take for an empty one."""

        def told(error: OSError) -> None:
            if not isinstance(error, (FileNotFoundError, NotADirectoryError)):
                raise error

        for folder, _, names in os.walk(base, onerror=told):
            yield from (
                path
                for path in (Path(folder, name) for name in names if not name.endswith(".tmp"))
                if path.is_file()
            )

    def folders(self, prefix: str) -> Iterator[str]:
        with self._explained():
            try:
                entries = sorted((self.root / prefix).iterdir())
            except (FileNotFoundError, NotADirectoryError):
                return
        yield from (entry.name for entry in entries if entry.is_dir())

    def delete(self, key: str) -> None:
        with self._explained():
            (self.root / key).unlink(missing_ok=True)

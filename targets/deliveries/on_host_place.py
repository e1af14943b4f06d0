"""What is at the destination on the host, and the lock on changing it. Part of ``on_host``."""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import signal
import time
from typing import Any, Dict, Iterator, List, Optional, Set, Tuple

from shipway.targets.deliveries.on_host_files import is_folder, listed, name_of, names, plain, read, size

MANIFEST = "bundle.json"
CHUNK = 1 << 18
LOCK_S = 5  # how long to wait for another one of us that is about to end
PATIENT_S = 150  # and where what is live is at stake: one of us that was cut off ends before (wire.IDLE_S)
TICK_NS = 20000000  # longer than a tick of the clock that stamps files


class Refused(Exception):
    """An answer that is no success: ``kind`` and what belongs to it."""

    def __init__(self, kind: str, **more: Any) -> None:
        Exception.__init__(self, kind)
        self.answer = dict(more, error=kind)


class Place:
    """One destination on this host. ``do_*`` answer requests."""

    def __init__(self, root: str, token: str) -> None:
        self.root = os.path.expanduser(root)
        self.token = token
        self.releases = os.path.join(self.root, "releases")
        self.current = os.path.join(self.root, "current")
        self.hidden = os.path.join(self.root, ".shipway")
        self.live = os.path.join(self.hidden, "live")
        self.staging = os.path.join(self.hidden, "staging")
        self.uploads = os.path.join(self.hidden, "uploads")
        self.lock: Optional[int] = None
        self.digests: Dict[Tuple[int, ...], str] = {}

    def do_pointer(self) -> Dict[str, Any]:
        return {"pointer": self.pointer()}

    def do_has(self, release: str, manifest: str) -> Dict[str, Any]:
        home = self.home(release)
        raw = read(home, MANIFEST)
        if raw is None or hashlib.sha256(raw).hexdigest() != manifest:
            return {"has": False}
        return {"has": all(size(home, file["path"]) == file["size"] for file in listed(raw))}

    def do_holds(self) -> Dict[str, Any]:
        found: Set[str] = set()
        for name in self.sealed():
            home = self.home(name)
            files = listed(read(home, MANIFEST))
            found.update(file["sha256"] for file in files if size(home, file["path"]) == file["size"])
        found.update(name for name in names(self.uploads) if "." not in name)
        return {"sha256": sorted(found)}

    def do_releases(self) -> Dict[str, Any]:
        return {"releases": self.sealed()}

    def do_audit(self, release: str, manifest: str) -> Dict[str, Any]:
        """Digests of what is there of the files that ``manifest``, the text of bundle.json, lists."""
        home, found = self.home(release), {}
        for file in json.loads(manifest)["files"]:
            if plain(home, file["path"]):
                found[file["path"]] = self.digest(os.path.join(home, file["path"]))
        raw = read(home, MANIFEST)
        same = None if raw is None else raw == manifest.encode()
        return {"found": found, "manifest": same}

    def hold(self, seconds: Optional[float] = None) -> None:
        """Have the lock until the request is done: no other one of us is in the middle of anything."""
        if self.lock is not None:
            return
        os.makedirs(self.hidden, exist_ok=True)
        descriptor = os.open(os.path.join(self.hidden, "lock"), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        end = time.monotonic() + (LOCK_S if seconds is None else seconds)
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                holder = os.pread(descriptor, 256, 0).decode("ascii", "replace").split()
                if time.monotonic() > end:
                    os.close(descriptor)
                    raise Refused("busy", pid=" ".join(holder[:1]))
                if len(holder) == 2 and holder[1] == self.token:
                    # It serves a connection of ours that was cut before this one.
                    with contextlib.suppress(ProcessLookupError):  # it ended by itself meanwhile
                        os.kill(int(holder[0]), signal.SIGKILL)
                self.pause(0.05)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, ("%d %s\n" % (os.getpid(), self.token)).encode(), 0)
        self.lock = descriptor

    def let_go(self) -> None:
        if self.lock is not None:
            os.ftruncate(self.lock, 0)  # or who holds it next might be taken for us
            os.close(self.lock)
            self.lock = None

    def pause(self, seconds: float) -> None:
        time.sleep(seconds)

    @contextlib.contextmanager
    def using(self, release: str, how: int) -> Iterator[None]:
        """Have a lock of its own on a sealed release: shared by those who read it, alone to remove it."""
        try:
            descriptor = os.open(self.home(release), os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError:
            raise Refused("release", release=release)
        try:
            try:
                fcntl.flock(descriptor, how)
            except BlockingIOError:
                raise Refused("busy", pid="that uses %s" % release)
            except OSError:
                pass  # a file system that can't lock a folder (NFS): then only the lock above is there
            if release not in self.sealed():  # removed while we waited
                raise Refused("release", release=release)
            yield
        finally:
            os.close(descriptor)

    def home(self, release: str) -> str:
        return os.path.join(self.releases, name_of(release))

    def sealed(self) -> List[str]:
        found = [(name, os.path.join(self.releases, name)) for name in names(self.releases)]
        return [name for name, home in found if is_folder(home) and plain(home, MANIFEST)]

    def link(self) -> Optional[str]:
        """The text of ``current`` where it is one that we wrote."""
        try:
            text = os.readlink(self.current)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EINVAL, errno.ENOTDIR):
                return None
            raise
        parts = text.split(os.sep)
        ours = len(parts) == 8 and text == link_to(parts[2], parts[7])
        return text if ours and parts[2] not in ("", ".", "..") else None

    def pointer(self) -> Optional[Dict[str, Any]]:
        link = self.link()
        if link is None:
            return None
        parts = link.split(os.sep)
        try:
            found = json.loads((read(os.path.join(self.live, parts[2]), "pointer.json") or b"").decode())
            return found if found["release"] == parts[7] else None
        except (ValueError, KeyError, TypeError, RecursionError):
            return None

    def right(self, folder: str, file: Dict[str, Any]) -> bool:
        path = os.path.join(folder, file["path"])
        return size(folder, file["path"]) == file["size"] and self.digest(path) == str(file["sha256"])

    def digest(self, path: str) -> str:
        """A file's sha256, computed once as long as the file stays as it is (see FolderDelivery)."""
        seen = os.lstat(path)
        key = key_of(seen)
        if key in self.digests:
            return self.digests[key]
        digest = hashlib.sha256()
        with open(path, "rb") as stream:
            for data in iter(lambda: stream.read(CHUNK), b""):
                digest.update(data)
        if abs(time.time() * 1e9 - seen.st_ctime_ns) > TICK_NS:
            self.digests[key] = digest.hexdigest()
        return digest.hexdigest()

    def know(self, path: str, sha: str, seen: os.stat_result) -> None:
        """Note a digest that was just read back of the file that has come to ``path`` since, ``seen`` before.

        Whoever wrote to it in between has changed its time, which was set back for that.
        """
        now = os.lstat(path)
        if key_of(now)[:-1] == key_of(seen)[:-1] and abs(time.time() * 1e9 - now.st_mtime_ns) > TICK_NS:
            self.digests[key_of(now)] = sha


def key_of(seen: os.stat_result) -> Tuple[int, ...]:
    """What tells a file that stayed as it is; its ctime, which no one can set, comes last."""
    return seen.st_dev, seen.st_ino, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns


def link_to(deployment: str, release: str) -> str:
    """The text of ``current``: by way of the folder that says of what deployment it is."""
    return os.path.join(".shipway", "live", deployment, "..", "..", "..", "releases", release)

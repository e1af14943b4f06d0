"""Files that come to the host, and files that it makes of what it holds. Part of ``on_host``."""

import contextlib
import errno
import os
import time
from typing import Any, Dict, Optional

from shipway.targets.deliveries.on_host_delta import follow
from shipway.targets.deliveries.on_host_files import (
    copy,
    is_folder,
    listed,
    make_way,
    plain,
    read,
    remove,
    sha_of,
)
from shipway.targets.deliveries.on_host_follower import Follower
from shipway.targets.deliveries.on_host_place import MANIFEST, Place, Refused
from shipway.targets.deliveries.on_host_wire import Wire

PAST_NS = 1000000000  # how far a file's time is set back: further than two clocks of one host are apart


class Intake(Place):
    """A destination that takes in files."""

    def __init__(self, root: str, wire: Wire, token: str) -> None:
        Place.__init__(self, root, token)
        self.wire = wire

    def pause(self, seconds: float) -> None:
        self.wire.pause(seconds)

    def do_receive(
        self, sha: str, size: int, inline: bool = False, release: str = "", path: str = "", mode: int = 0o644
    ) -> Dict[str, Any]:
        """Take in a file, going on where an earlier try ended; it is put into the release being staged."""
        self.hold()
        os.makedirs(self.uploads, exist_ok=True)
        whole = os.path.join(self.uploads, sha_of(sha))
        part = whole + ".part"
        if not inline and self.do_reuse(release, path, sha, size, mode)["copied"]:
            self.wire.say({"offset": size})
            return {}
        remove(whole)
        try:
            seen = self.fill(part, sha, size, inline)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                remove(self.uploads)  # room is what this host lacks
            raise
        if seen is None:
            os.unlink(part)
            raise Refused("digest", path=path)
        os.rename(part, whole)
        self.know(self.take(whole, release, path, mode), sha, seen)
        return {}

    def fill(self, part: str, sha: str, size: int, inline: bool) -> Optional[os.stat_result]:
        """What ``part`` is once the rest of its bytes have come; None where they are not what they should be.

        Its digest is that of what is read back from it, from its first byte on, an earlier try's too.
        """
        descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "r+b", buffering=0) as stream, Follower(descriptor) as follower:
            offset = 0 if inline else min(os.fstat(descriptor).st_size, size)
            stream.truncate(offset)
            stream.seek(offset)
            follower.reach(offset)
            if not inline:
                self.wire.say({"offset": offset})
            failure: Optional[OSError] = None
            while offset < size:
                data = self.wire.bytes(size - offset)
                offset += len(data)
                try:
                    while data and failure is None:
                        data = data[stream.write(data) :]
                except OSError as error:
                    failure = error  # the rest is on its way: take it in, then say so
                    if not inline:
                        raise
                follower.reach(offset)
            if failure is not None:
                raise failure
            past = int(time.time() * 1e9) - PAST_NS
            # So that whatever is written from now on shows, however soon; else it is read once more.
            with contextlib.suppress(OSError):
                os.utime(descriptor, ns=(past, past))
            seen = os.fstat(descriptor)
            os.fsync(descriptor)
            return seen if follower.digest() == sha and seen.st_size == size else None

    def do_reuse(self, release: str, path: str, sha: str, size: int, mode: int = 0o644) -> Dict[str, Any]:
        """Copy a file from where this host has it; ``copied`` is False where it turns out to be damaged."""
        self.hold()
        source = self.held(sha)
        if source is None:
            return {"copied": False}
        self.take(source, release, path, mode)
        return {"copied": True}

    def held(self, sha: str) -> Optional[str]:
        """Where this host has a file of that digest, read anew; None where it has none, or a damaged one."""
        whole = os.path.join(self.uploads, sha_of(sha))
        if plain(self.uploads, sha) and self.digest(whole) == sha:
            return whole
        for name in self.sealed():
            home = self.home(name)
            for twin in listed(read(home, MANIFEST)):
                source = os.path.join(home, twin["path"])
                if twin["sha256"] == sha and plain(home, twin["path"]) and self.digest(source) == sha:
                    return source
        return None

    def do_patch(
        self,
        sha: str,
        size: int,
        base: str,
        recipe: str,
        length: int,
        release: str = "",
        path: str = "",
        mode: int = 0o644,
    ) -> Dict[str, Any]:
        """Make a file of one that is held, ``base``, and a recipe of ``length`` bytes that is taken in first.

        ``patched`` is False where that can't be: the whole file has to be sent. ``asked``: for the recipe.
        """
        self.hold()
        os.makedirs(self.uploads, exist_ok=True)
        if self.do_reuse(release, path, sha, size, mode)["copied"]:
            return {"patched": True}
        source = self.held(base)
        found = os.statvfs(self.hidden)
        free = (found.f_bfree if os.geteuid() == 0 else found.f_bavail) * found.f_frsize
        if source is None or free < size + length + (1 << 20):
            return {"patched": False, "asked": False}
        whole = os.path.join(self.uploads, sha)
        given, made = whole + "." + sha_of(recipe)[:16] + ".part", whole + ".made.part"
        try:
            good = self.fill(given, recipe, length, False) is not None
            good = good and self.make(made, source, given, sha, size)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            remove(given)
            remove(made)
            raise Refused("room")
        os.unlink(given)
        if not good:
            remove(made)
            return {"patched": False, "asked": True}
        os.rename(made, whole)
        self.take(whole, release, path, mode)
        return {"patched": True}

    def make(self, made: str, base: str, recipe: str, sha: str, size: int) -> bool:
        """Whether following the recipe gave the file that it should."""
        remove(made)
        descriptor = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as out, open(base, "rb") as below, open(recipe, "rb") as given:
                right = follow(given, below, out, size) == sha
                out.flush()
                os.fsync(out.fileno())
                return right
        except ValueError:
            return False

    def take(self, source: str, release: str, path: str, mode: int) -> str:
        """Put a file into the release being staged, or straight into a sealed one that it mends; its path."""
        home = self.home(release)
        folder = home if is_folder(home) else os.path.join(self.staging, release)
        os.makedirs(folder, exist_ok=True)
        part = source
        if not source.startswith(self.uploads + os.sep):
            os.makedirs(self.uploads, exist_ok=True)
            part = os.path.join(self.uploads, "copy.part")
            copy(source, part)
        os.chmod(part, mode)
        target = make_way(folder, path)
        os.rename(part, target)
        return target

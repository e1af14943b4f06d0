"""Runs on the host, sent there over SSH and never stored. Python 3.6 and its standard library, nothing else.

The other ``on_host`` modules travel with it. It answers one JSON line to each one that it reads, in order;
the bytes of a file follow the request that announces them. Where things lie below the destination's folder:

==========================================  ==================================================================
``releases/<release>/``                     sealed releases: every file as in its ``bundle.json``
``current``                                 the live release: a link, replaced by one rename
``.shipway/live/<serial>-<digest>/``        ``pointer.json``, which says of what deployment the link is
``.shipway/staging/``                       releases being put together and being removed
``.shipway/uploads/<sha256>[...part]``      files that have arrived, or a part of one, by what is in them
``.shipway/engines/<model>/``               TensorRT's engines, which a bundle's ``runner.py`` puts there
``.shipway/lock``                           held while a request changes something; a check only reads
==========================================  ==================================================================

``current`` leads to ``.shipway/live/<serial>-<digest>/../../../releases/<release>``: the link's text names
the deployment and the release, so that one rename replaces both. Everything is on disk (fsync) before the
rename that publishes it. Files are copied, never hard-linked, from one release to another. Links planted in a
release are never followed: they count as damage.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import stat
import sys
from typing import Any, Dict, Iterator, List, NoReturn, Optional, Tuple

from shipway.targets.deliveries.on_host_files import (
    is_folder,
    listed,
    name_of,
    names,
    read,
    remove,
    sync,
    sync_tree,
    write,
)
from shipway.targets.deliveries.on_host_intake import Intake
from shipway.targets.deliveries.on_host_place import MANIFEST, PATIENT_S, Refused, link_to
from shipway.targets.deliveries.on_host_wire import Wire, run

MAGIC = "shipway-host-1 "


class Host(Intake):
    """One destination that can be changed."""

    def do_stage(self, release: str, files: List[Tuple[str, int]]) -> Dict[str, Any]:
        """Make the place ready. ``files``: sha256 and size of all that must be copied or sent."""
        self.hold()
        wanted = {sha for sha, _ in files}
        for name in names(self.uploads):
            if name.split(".")[0] not in wanted:
                remove(os.path.join(self.uploads, name))
        remove(self.staging)
        os.makedirs(os.path.join(self.staging, name_of(release)))
        os.makedirs(self.uploads, exist_ok=True)
        os.makedirs(self.releases, exist_ok=True)
        held = sum(os.path.getsize(os.path.join(self.uploads, name)) for name in names(self.uploads))
        found = os.statvfs(self.hidden)
        need = sum(length + 4096 for _, length in files) + (1 << 20) - held
        free = (found.f_bfree if os.geteuid() == 0 else found.f_bavail) * found.f_frsize
        if free < need:
            self.do_clear()
            if not names(self.uploads):
                remove(self.uploads)
            raise Refused("space", need=need, free=free)
        return {"free": free}

    def do_seal(self, release: str, sha: str, manifest: str = "") -> Dict[str, Any]:
        """Give the release its name, or say what must be sent first: paths, or the ``manifest``."""
        self.hold()
        home, staged = self.home(release), os.path.join(self.staging, release)
        if os.path.lexists(home) and not is_folder(home):
            os.unlink(home)
        fresh = not os.path.exists(home)
        folder = staged if fresh else home
        raw = manifest.encode() or read(home, MANIFEST) or b""
        if hashlib.sha256(raw).hexdigest() != sha:
            return {"manifest": True}
        os.makedirs(folder, exist_ok=True)
        executables, wrong = json.loads(raw.decode())["executables"], []
        for file in listed(raw):
            if not self.right(folder, file):
                wrong.append(file["path"])
                continue
            path, mode = os.path.join(folder, file["path"]), 0o755 if file["path"] in executables else 0o644
            if stat.S_IMODE(os.lstat(path).st_mode) != mode:
                os.chmod(path, mode)
        if wrong:
            return {"wrong": wrong}
        if read(folder, MANIFEST) != raw:
            remove(os.path.join(folder, MANIFEST))
            write(os.path.join(self.hidden, "bundle.part"), raw)
            os.rename(os.path.join(self.hidden, "bundle.part"), os.path.join(folder, MANIFEST))
        sync_tree(folder)
        if fresh:
            os.makedirs(self.releases, exist_ok=True)
            os.rename(staged, home)
        sync(self.releases)
        remove(self.staging)
        remove(self.uploads)
        return {}

    def do_point(self, pointer: Dict[str, Any], seen: Optional[Dict[str, Any]]) -> Dict[str, Any]:
        """Make a release the live one in place of ``seen`` (or once more), noting what was live before it."""
        self.hold(PATIENT_S)
        if self.pointer() not in (seen, pointer):
            raise Refused("changed")
        if pointer["release"] not in self.sealed():
            raise Refused("release", release=pointer["release"])
        content = json.dumps(pointer, indent=2, sort_keys=True).encode() + b"\n"
        name = "%d-%s" % (pointer["serial"], hashlib.sha256(content).hexdigest()[:12])
        before = self.link()
        folder = os.path.join(self.live, name)
        os.makedirs(folder, exist_ok=True)
        # Asked for twice it is live already. Serials say nothing: a store that is new begins with 1 again.
        if before is None:
            remove(os.path.join(folder, "before"))
        elif before.split(os.sep)[2] != name:
            write(os.path.join(folder, "before.part"), before.encode())
            os.rename(os.path.join(folder, "before.part"), os.path.join(folder, "before"))
        write(os.path.join(folder, "pointer.part"), content)
        os.rename(os.path.join(folder, "pointer.part"), os.path.join(folder, "pointer.json"))
        sync_tree(self.live)
        self.swap(link_to(name, pointer["release"]))
        # Who just read the old link still walks through its folder, so that one stays; and so does the one to
        # go back to, which is another one where this is asked for twice.
        links = [link for link in (before, self.before(name)) if link]
        stay = {name} | {link.split(os.sep)[2] for link in links}
        for old in names(self.live):
            if old not in stay:
                remove(os.path.join(self.live, old))
        return {"size": len(content)}

    def before(self, name: str) -> str:
        """The link that the deployment called ``name`` replaced; empty where there was none."""
        return (read(os.path.join(self.live, name), "before") or b"").decode()

    def do_undo(self, pointer: Dict[str, Any]) -> Dict[str, Any]:
        """Make live again what was live before ``pointer``; nothing, where that is not what is live."""
        link = self.link()
        if link is None or self.pointer() != pointer:
            return {"size": 0}
        self.hold(PATIENT_S)
        if self.pointer() != pointer:
            return {"size": 0}
        before = self.before(link.split(os.sep)[2])
        if before and os.path.exists(os.path.join(self.root, before)):
            self.swap(before)
            return {"size": len(before)}
        return self.do_withdraw()

    def swap(self, text: str) -> None:
        fresh = os.path.join(self.hidden, "current.part")
        remove(fresh)
        os.symlink(text, fresh)
        if is_folder(self.current):
            raise Refused("current")
        os.rename(fresh, self.current)
        sync(self.root)

    def do_withdraw(self) -> Dict[str, Any]:
        self.hold(PATIENT_S)
        if os.path.islink(self.current):
            os.unlink(self.current)
            sync(self.root)
        return {"size": 0}

    def do_prune(self, release: str) -> Dict[str, Any]:
        if not os.path.isdir(self.hidden):
            return {}  # nothing was ever put here, and asking leaves nothing
        self.hold()
        pointer = self.pointer()
        if pointer is not None and pointer["release"] == release:
            raise Refused("live", release=release)
        home, doomed = self.home(release), os.path.join(self.staging, release + ".old")
        if os.path.lexists(home):
            os.makedirs(self.staging, exist_ok=True)
            remove(doomed)
            with self.unused(release):
                os.rename(home, doomed)  # no half-removed release ever has a release's name
        self.do_clear()
        return {}

    @contextlib.contextmanager
    def unused(self, release: str) -> Iterator[None]:
        """For removing a release; what is none, a link or a rest without a manifest, nobody uses."""
        if release not in self.sealed():
            yield
            return
        with self.using(release, fcntl.LOCK_EX | fcntl.LOCK_NB):
            yield

    def do_clear(self) -> Dict[str, Any]:
        """Remove what was being put together. Files that have arrived stay: a next try can use them."""
        if os.path.isdir(self.hidden):
            self.hold()
            remove(self.staging)
            for name in names(self.hidden):
                if name.endswith(".part"):
                    remove(os.path.join(self.hidden, name))
        return {}

    def do_run(
        self, release: str, argv: List[str], timeout: float, stdin: str = "", look: bool = False
    ) -> Dict[str, Any]:
        """Run a command in a sealed release. The other end hanging up kills it.

        One that only looks (a check) holds up nobody but who wants to remove that release.
        """
        if not look:
            self.hold()
        with self.using(release, fcntl.LOCK_SH):
            return run(argv, self.home(release), stdin.encode(), timeout, self.wire)

    def do_preflight(self, argv: List[str], program: str, timeout: float) -> Dict[str, Any]:
        """Run a program (on stdin) where the destination is, or will be. Nothing is changed, nothing made."""
        folder = self.root
        while not is_folder(folder):
            folder = os.path.dirname(folder)
        return run(argv, folder, program.encode(), timeout, self.wire)


def main(root: str, token: str) -> NoReturn:
    """Serve until the other end hangs up. ``token`` is the same for all connections of one client."""
    os.umask(0o022)
    wire = Wire()
    host = Host(root, wire, token)
    wire.say({"python": "%d.%d.%d" % sys.version_info[:3], "root": host.root}, MAGIC)
    while True:
        request = json.loads(wire.line().decode())
        verb = request.pop("do")
        try:
            if not os.path.isabs(host.root):  # whatever '~' is, it would lead to where we happen to be
                raise OSError(errno.ENOENT, "There is no such home folder", host.root)
            answer = getattr(host, "do_" + verb)(**request)
        except Refused as refused:
            answer = refused.answer
        except OSError as error:
            text, path = error.strerror or str(error), error.filename
            answer = {"error": "os", "errno": error.errno, "text": text, "path": str(path or host.root)}
        except (KeyError, TypeError, ValueError, AttributeError) as error:  # nobody may ask for that
            answer = {"error": "request", "text": str(error)}
        host.let_go()
        wire.say(answer)
        if verb in ("receive", "patch") and "error" in answer:
            sys.exit(0)  # bytes that are still on their way would be taken for requests

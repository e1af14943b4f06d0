"""A process without a network: from then on it lives in a network namespace of its own, which has no way out.

Linux lets root do so, and most kernels an ordinary user, in a user namespace of its own in which the user
stays who it is (man 7 network_namespaces, user_namespaces). Containers mostly forbid both: then nothing is
changed. Not root in a user namespace: there it could no longer read files of others, as root may.

Run as a file before a program, because there may be no second thread yet, and nothing else is to be imported:

    python offline.py [PROGRAM ARGUMENT...]

becomes the program, cut off where that is allowed. Without one it ends with 0 where it is, else with 1.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys

_NEW_NETWORK = 0x40000000  # CLONE_NEWNET, CLONE_NEWUSER: linux/sched.h
_NEW_USER = 0x10000000


def cut_off() -> bool:
    """Leave the network for good, with all that this process will start. False where that is not allowed."""
    if sys.platform != "linux":
        return False
    user, group = os.geteuid(), os.getegid()
    if user == 0:
        return _unshare(_NEW_NETWORK)
    if not _unshare(_NEW_NETWORK | _NEW_USER):
        return False
    for name, text in (
        ("setgroups", "deny"),  # without it no ordinary user may say which group it is
        ("uid_map", f"{user} {user} 1"),
        ("gid_map", f"{group} {group} 1"),
    ):
        # Where it fails the user has no name, but the rights that it had.
        # No pathlib: its import would take as long as all the rest.
        with contextlib.suppress(OSError), open(f"/proc/self/{name}", "wb") as stream:  # noqa: PTH123
            stream.write(text.encode())
    return True


def _unshare(kinds: int) -> bool:
    try:
        return bool(ctypes.CDLL(None).unshare(kinds) == 0)
    except (OSError, AttributeError):
        return False


if __name__ == "__main__":
    alone = cut_off()
    if sys.argv[1:]:
        os.execv(sys.argv[1], sys.argv[1:])  # noqa: S606 - it is what was asked for
    sys.exit(0 if alone else 1)

"""A host that dies at a moment of its own: ``python3`` there counts what it changes in its file system.

The helper is told nothing of it: the first ``python3`` on the host's PATH is a script that starts the real
one with a few lines of ours before the helper's own.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

_ARM = """
import json, os, signal, sys
CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.chmod",
           "os.truncate"}
ORDER = FOLDER + "/order.json"
with open(ORDER) as stream:
    left = [json.load(stream)]
def hook(event, arguments):
    order = left[0]
    if order is None:
        return
    if event == "open":
        changes = isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    else:
        changes = event in CHANGES
    named = arguments[1] if event == "os.rename" else arguments[0] if arguments else ""
    if changes and event == order.get("event", event) and str(named).endswith(order["ends"]):
        order["number"] -= 1
        if order["number"] < 0:
            left[0] = None
            os.rename(ORDER, FOLDER + "/struck")
            os.kill(os.getpid(), getattr(signal, order["signal"]))
sys.addaudithook(hook)
"""

_PYTHON3 = """#!/bin/sh
case "$3" in
  *zlib.decompress*)
    if [ -e '{folder}/order.json' ]; then exec '{python}' -IS -c "FOLDER = '{folder}'
$(cat '{folder}/arm.py')
$3"; fi ;;
esac
if [ "$1" = check.py ] && [ -e '{folder}/hold' ]; then
  mv '{folder}/hold' '{folder}/struck'
  exec sleep 600
fi
exec '{python}' "$@"
"""


class Moments:
    """Orders for the ``python3`` of one host, in a folder beside its sshd."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        (folder / "bin").mkdir(parents=True)
        (folder / "arm.py").write_text(_ARM)
        script = folder / "bin" / "python3"
        script.write_text(_PYTHON3.format(folder=folder, python=sys.executable))
        script.chmod(0o755)

    @property
    def sshd_config(self) -> str:
        # Not SetEnv: a login shell may put something before it.
        return f'ForceCommand PATH="{self._folder}/bin:$PATH"; export PATH; eval "$SSH_ORIGINAL_COMMAND"'

    def kill_at(self, number: int) -> None:
        """kill -9 the next helper right before its change of that number, from 0."""
        self._order({"number": number, "ends": "", "signal": "SIGKILL"})

    def stop_at(self, event: str, ends: str) -> None:
        """Freeze the next helper before that audit event on a path that ends so."""
        self._order({"number": 0, "event": event, "ends": ends, "signal": "SIGSTOP"})

    def stop_in_check(self) -> None:
        """Have the next golden check hang."""
        self.forget()
        (self._folder / "hold").touch()

    def forget(self) -> bool:
        """No order any more; says whether the last one was carried out."""
        struck = (self._folder / "struck").exists()
        for name in ("order.json", "hold", "struck"):
            (self._folder / name).unlink(missing_ok=True)
        return struck

    @property
    def struck(self) -> bool:
        return (self._folder / "struck").exists()

    def _order(self, order: dict[str, Any]) -> None:
        self.forget()
        (self._folder / "order.part").write_text(json.dumps(order))
        (self._folder / "order.part").rename(self._folder / "order.json")

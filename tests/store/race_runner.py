"""A process that runs shipway's command line when told to: its imports are over before a race begins.

A line of JSON on stdin is the arguments; "ready" is the answer. The next line, whatever it says, is the
signal to start. Then comes the exit code.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys

from shipway.registry.cli import app

for line in sys.stdin:
    arguments = json.loads(line)
    print("ready", flush=True)
    sys.stdin.readline()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as told:
        code = app.main(arguments)
    print(json.dumps([code, told.getvalue() if code not in (0, 7) else ""]), flush=True)

"""Nothing that shipway uses may phone home.

Several libraries report their use to their makers unless an environment variable says no before they are
imported; ONNX Runtime does so from its Linux wheels as well (and leaves ``.ses`` in the temporary folder).
Children inherit what is set here. A user's own settings win.
"""

from __future__ import annotations

import os

NO_TELEMETRY = {
    "DO_NOT_TRACK": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "ORT_DISABLE_TELEMETRY": "1",
}


def no_telemetry() -> None:
    """Call before importing such a library."""
    for key, value in NO_TELEMETRY.items():
        os.environ.setdefault(key, value)

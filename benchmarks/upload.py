"""Put files into a store in a bucket, as ``register`` does with those of a version.

    python upload.py ENDPOINT FILE=SHA256...

Credentials are found as AWS tools find them.
"""

from __future__ import annotations

import gc
import sys
import tempfile
from pathlib import Path

from shipway.registry.nouns import Digest
from shipway.registry.s3.bucket import Service
from shipway.registry.store.s3 import S3Objects
from shipway.registry.store.store import Store


def main(endpoint: str, *files: str) -> None:
    with tempfile.TemporaryDirectory() as cache:
        store = Store(S3Objects("s3://bench/store", Path(cache), Service(endpoint=endpoint)))
        for file in files:
            path, _, sha = file.rpartition("=")
            store.add_file(Path(path), Digest(sha))


if __name__ == "__main__":
    gc.set_threshold(1_000_000, 20, 20)  # as shipway's command line has it
    main(*sys.argv[1:])

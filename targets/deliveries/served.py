"""How files are served from storage: content types, encodings and how long caches may keep them.

The table is our own: ``mimetypes`` reads files of the machine it runs on, and a bundle must be served the
same wherever it was sent from. Types: https://www.iana.org/assignments/media-types/media-types.xhtml
"""

from __future__ import annotations

from pathlib import PurePosixPath

FOREVER = "public, max-age=31536000, immutable"
"""For files of a release: their address holds the bundle's digest, so they never change. RFC 8246."""

SHORTLY = "public, max-age=5, must-revalidate"
"""For the pointer: a promotion or a rollback is seen within five seconds, and a busy page asks seldom."""

_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".jpg": "image/jpeg",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".map": "application/json",
    ".md": "text/markdown; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".pbtxt": "text/plain; charset=utf-8",
    ".png": "image/png",
    ".py": "text/x-python; charset=utf-8",
    ".sh": "text/x-shellscript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".ts": "text/plain; charset=utf-8",
    ".txt": "text/plain; charset=utf-8",
    ".wasm": "application/wasm",  # or browsers can't compile it while it streams in
    ".yaml": "application/yaml",
    ".yml": "application/yaml",
}


def headers_of(path: str, cache: str = FOREVER) -> dict[str, str]:
    """The headers of a file by its name: ContentType, CacheControl and, of ``*.br``, ContentEncoding."""
    name = PurePosixPath(path)
    encoding = {"ContentEncoding": "br"} if name.suffix == ".br" else {}
    suffix = (name.with_suffix("") if encoding else name).suffix.lower()
    return {"ContentType": _TYPES.get(suffix, "application/octet-stream"), **encoding, "CacheControl": cache}

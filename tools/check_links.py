"""Every relative link between the documents leads to a file, and every #anchor to a heading."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).resolve().parent.parent


def _walk(tokens: list[Token]) -> Iterator[Token]:
    for token in tokens:
        yield token
        yield from _walk(token.children or [])


def anchors(text: str) -> set[str]:
    """The anchors that code hosts make of headings: lower case, spaces to hyphens, punctuation dropped."""
    tokens = MarkdownIt().parse(text)
    titles = (tokens[i + 1].content for i, token in enumerate(tokens) if token.type == "heading_open")
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def broken(document: Path) -> Iterator[str]:
    """Links of ``document`` that lead nowhere. Links to other hosts are not followed: checks work offline."""
    for token in _walk(MarkdownIt("commonmark").enable("table").parse(document.read_text())):
        target = str(token.attrs.get("href") or token.attrs.get("src") or "")
        if not target or "://" in target or target.startswith("mailto:"):
            continue
        name, _, anchor = unquote(target).partition("#")
        path = (document.parent / name).resolve() if name else document
        if not path.exists():
            yield f"{document.relative_to(ROOT)}: {target} leads to no file"
        elif anchor and path.suffix == ".md" and anchor not in anchors(path.read_text()):
            yield f"{document.relative_to(ROOT)}: {target} leads to no heading"


def main() -> int:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    problems = [problem for name in listed for problem in broken(ROOT / name)]
    print("\n".join(problems) or f"{len(listed)} documents, every link leads somewhere")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())

"""``make corpus``: every model of the corpus, by plain paddle2onnx of today and by shipway.

    python tests/corpus/table.py [--only NAME]... [--saved-by 2.6.2|3.3.1] [--public] [--markdown FILE]

Models are saved by two versions of Paddle and run by Paddle Inference of the same version, which says what
their numbers are. Then each is converted with paddle2onnx by its own command line, and registered with
shipway's. One judge holds what comes out against Paddle's numbers. ``--public`` tries every other public
toolchain too. A run that was stopped goes on where it was: what is in ``build/corpus`` is kept while the
code that made it is the same. Exit 1 where a public toolchain converts what shipway does not.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import page
import shipped
from environments import OTHERS, PLAIN, SAVERS, Public
from verdicts import Row, Verdict, of_bare

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
BARE = "3.3.1"  # whose models are registered without samples, too
_TELLERS = ("table.py", "page.py", "verdicts.py", "shipped.py", "test_")  # of what the others made


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", action="append", metavar="NAME", help="this model; may come again")
    parser.add_argument("--saved-by", choices=SAVERS, help="models of this Paddle alone")
    parser.add_argument("--public", action="store_true", help="try every other public toolchain too")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "corpus", help="where models are kept")
    parser.add_argument("--json", type=Path, default=ROOT / "build" / "corpus.json")
    parser.add_argument("--markdown", type=Path, help="write the page of the reference, too")
    asked = parser.parse_args()
    began = time.monotonic()
    publics = OTHERS if asked.public else ()
    rows: list[Row] = []
    with _openmp():
        for saver in [asked.saved_by] if asked.saved_by else SAVERS:
            rows += _rows(saver, asked.only, publics, asked.work.resolve() / saver)
    minutes = (time.monotonic() - began) / 60
    page.show(rows)
    asked.json.parent.mkdir(parents=True, exist_ok=True)
    document = {
        "machine": page.machine(),
        "versions": page.versions(),
        "rows": [row.to_json() for row in rows],
    }
    asked.json.write_text(json.dumps(document, indent=1) + "\n")
    if asked.markdown:
        asked.markdown.write_text(page.markdown(rows), encoding="utf-8")
    print(f"{minutes:.1f} minutes", file=sys.stderr)
    missed = [row for row in rows if row.missed_by_shipway]
    for row in missed:
        others = ", ".join(row.missed_by_shipway)
        print(f"shipway does not convert {row.model}, saved by {row.saved_by}, which these do: {others}")
    return 1 if missed else 0


def _rows(saver: str, only: list[str] | None, publics: Sequence[Public], root: Path) -> list[Row]:
    """Save, run, convert, register and judge; the models of one Paddle."""
    python = SAVERS[saver].python()
    listed = subprocess.run([python, HERE / "make.py", "--list"], capture_output=True, text=True, check=True)
    names = [line.split()[0] for line in listed.stdout.splitlines()]
    if unknown := set(only or ()) - set(names):
        sys.exit(f"no such model: {', '.join(sorted(unknown))}")
    names = [name for name in names if only is None or name in only]
    makers = [path for path in sorted(HERE.glob("*.py")) if not path.name.startswith(_TELLERS)]
    _keep_if_made_by(root, _digest([*makers, HERE / "locks"]))
    stage = _Stage(root, saver)
    making = [python, "make.py", "--out", root]
    stage.run("saved", "case.json", names, lambda some: [*making, *_only(some)], may_fail=True)
    names = [name for name in names if (root / name / "case.json").exists()]
    stage.run("run by Paddle", "expected.json", names, lambda some: [python, "expected.py", root, *some])
    for name in list(names):
        if "error" in json.loads((root / name / "expected.json").read_text()):
            print(f"{name} left out: Paddle {saver} can't run what it saved", file=sys.stderr)
            names.remove(name)
    for public in (PLAIN, *publics):
        fitting = [name for name in names if _model(root / name).suffix in public.formats]
        if fitting:
            _convert(public, fitting, stage)
    _register(names, stage)
    return [_row(saver, name, publics, root) for name in names]


def _only(names: Sequence[str]) -> list[str]:
    return [word for name in names for word in ("--only", name)]


@dataclass(frozen=True)
class _Stage:
    """Runs scripts over the models of one Paddle, telling how far they are."""

    root: Path
    saver: str

    def run(
        self,
        title: str,
        mark: str,
        names: Sequence[str],
        command: Callable[[list[str]], Sequence[str | Path]],
        *,
        may_fail: bool = False,
    ) -> None:
        """Run a command over the models that lack the file ``mark``, which it leaves for each.

        Where it does not, that ends the run, unless it ``may_fail`` on some.
        """
        missing = self._lacking(names, mark)
        if not missing:
            return
        python, script, *words = command(missing)
        env = {**os.environ, "PYTHONWARNINGS": "ignore"}
        with (
            tempfile.TemporaryFile() as log,
            tempfile.TemporaryDirectory(prefix="shipway-corpus-") as scratch,
        ):
            env["TMPDIR"] = scratch
            argv = [python, HERE / script, *words]
            child = subprocess.Popen(argv, stdout=log, stderr=log, env=env, cwd=scratch)
            try:
                self._watch(child, title, mark, missing)
            finally:
                child.kill()
                child.wait()
            if failed := self._lacking(missing, mark):
                log.seek(0)
                print(log.read().decode(errors="replace")[-4000:], file=sys.stderr)
                print(f"{self.saver}: {title}: failed on {', '.join(failed)}", file=sys.stderr)
                if not may_fail:
                    sys.exit(1)

    def _lacking(self, names: Sequence[str], mark: str) -> list[str]:
        return [name for name in names if not (self.root / name / mark).exists()]

    def _watch(self, child: subprocess.Popen[bytes], title: str, mark: str, names: list[str]) -> None:
        told = -1
        while child.poll() is None:
            done = len(names) - len(self._lacking(names, mark))
            if done != told:
                print(f"{self.saver}: {title}: {done} of {len(names)}", file=sys.stderr, flush=True)
                told = done
            time.sleep(0.5)


def _convert(public: Public, names: list[str], stage: _Stage) -> None:
    label = _label(public)
    python = public.environment.python()
    opset = ["--opset", str(public.opset)] if public.opset else []
    command = [python, "public.py", stage.root, label, *opset]
    stage.run(public.name, f"{label}/result.json", names, lambda some: [*command, *some])
    _score(label, public.name, names, stage)


def _score(label: str, title: str, names: list[str], stage: _Stage) -> None:
    command = [Path(sys.executable), "score.py", stage.root, label]
    stage.run(f"{title}, judged", f"{label}/score.json", names, lambda some: [*command, *some])


def _label(public: Public) -> str:
    return "public-" + public.name.replace(" ", "")


def _register(names: list[str], stage: _Stage) -> None:
    """Register each model that was not registered by this very code before."""
    sources = [path for path in (ROOT / "registry").rglob("*") if path.suffix in (".py", ".txt")]
    code = _digest(sorted(sources))
    with tempfile.TemporaryDirectory(prefix="shipway-corpus-") as scratch:
        home = shipped.project(Path(scratch))
        for number, name in enumerate(names, 1):
            made_by = stage.root / name / "shipway" / "made-by"
            bare = made_by.with_name("bare.json")
            wanted = stage.saver == BARE
            if made_by.exists() and made_by.read_text() == code and (bare.exists() or not wanted):
                continue
            print(f"{stage.saver}: register: {number} of {len(names)}: {name}", file=sys.stderr, flush=True)
            began = time.monotonic()
            told = shipped.register(home, stage.root / name)
            told["wall"] = round(time.monotonic() - began, 1)
            (made_by.parent / "told.json").write_text(json.dumps(told))
            if wanted:
                bare.write_text(json.dumps(shipped.register_bare(home, stage.root / name)))
            made_by.write_text(code)
    _score("shipway", "shipway", names, stage)


def _row(saver: str, name: str, publics: Sequence[Public], root: Path) -> Row:
    folder = root / name

    def verdict(label: str) -> Verdict:
        return Verdict.of_score(json.loads((folder / label / "score.json").read_text()))

    told: dict[str, Any] = json.loads((folder / "shipway" / "told.json").read_text())
    bare = folder / "shipway" / "bare.json"
    outcome = verdict("shipway")
    if "error" in told:
        error = told["error"]
        outcome = Verdict(f"exit {error['exit']}", f"{error['what']} {error['why']}".strip())
    return Row(
        model=name,
        kind=json.loads((folder / "case.json").read_text())["kind"],
        saved_by=saver,
        plain=verdict(_label(PLAIN)),
        shipway=outcome,
        toolchain=told.get("toolchain", ""),
        repairs=tuple(f"{repair['rule']} x{repair['count']}" for repair in told.get("repairs", ())),
        notes=tuple(note for link in told.get("links", ()) for note in link["notes"]),
        links=tuple(told.get("links", ())),
        seconds=told["wall"],
        bare=of_bare(told, json.loads(bare.read_text())) if bare.exists() else "",
        public={p.name: verdict(_label(p)) for p in publics if _model(folder).suffix in p.formats},
    )


def _model(folder: Path) -> Path:
    (model,) = (path for path in folder.glob("inference.*") if path.suffix in (".json", ".pdmodel"))
    return model


def _digest(paths: Sequence[Path]) -> str:
    found = hashlib.sha256()
    for path in paths:
        for file in sorted(path.iterdir()) if path.is_dir() else [path]:
            found.update(file.name.encode() + b"\0" + file.read_bytes())
    return found.hexdigest()


def _keep_if_made_by(root: Path, code: str) -> None:
    """Forget what other code made."""
    marker = root / "made-by"
    if not marker.exists() or marker.read_text() != code:
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir(parents=True)
        marker.write_text(code)


@contextlib.contextmanager
def _openmp() -> Iterator[None]:
    """Let the children find OpenMP on a bare system, as shipway's own do."""
    from shipway.registry.convert import openmp

    with tempfile.TemporaryDirectory(prefix="shipway-openmp-") as name:
        os.environ.update(openmp.environment(Path(name)))
        yield


if __name__ == "__main__":
    sys.exit(main())

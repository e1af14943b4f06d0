"""What the user gave to ``register``: found, checked for being whole, and named by its content.

A path that does not exist or is ambiguous is a UsageError; a model that is there but half, empty or no model
at all is a ConversionError. Nothing here imports paddle or onnx (but for ONNX with external data), so that a
model that is registered already is recognised at once.
"""

from __future__ import annotations

import json
import mmap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from shipway.registry import files
from shipway.registry.convert import paddle_files
from shipway.registry.errors import ConversionError, UsageError
from shipway.registry.nouns import Digest, Json
from shipway.targets.manifest import check_path

FORMATS = {".json": "pir", ".pdmodel": "pdmodel", ".onnx": "onnx"}
FOUND_ASSETS = ("inference.yml",)  # PaddleX writes it beside a model: labels and pre- and postprocessing

_WHAT = {
    "pir": "a Paddle 3 model (.json)",
    "pdmodel": "a Paddle model (.pdmodel)",
    "onnx": "an ONNX model",
}


@dataclass(frozen=True, slots=True)
class Source:
    """A model's files as given. ``params`` are Paddle's weights, ``external`` ONNX's files of tensor data."""

    format: str  # 'pir', 'pdmodel' or 'onnx'
    model: Path
    params: Path | None = None
    external: tuple[Path, ...] = ()
    assets: tuple[Path, ...] = ()

    def identity(self, options: Json) -> Digest:
        """A digest of the content and of the options that shape the result, never of the paths."""
        parts = {
            "schema": 1,
            "format": self.format,
            "model": str(files.digest_of(self.model)),
            "params": str(files.digest_of(self.params)) if self.params else None,
            "external": [[self._inside(path), str(files.digest_of(path))] for path in self.external],
            "assets": [[path.name, str(files.digest_of(path))] for path in self.assets],
            "options": options,
        }
        return Digest.of(json.dumps(parts, sort_keys=True).encode())

    def copy_into(self, folder: Path) -> Source:
        """The same source in ``folder``, under names that no tool stumbles over."""
        model = folder / f"model{self.model.suffix}"
        files.copy_atomic(self.model, model)
        params = folder / "model.pdiparams" if self.params else None
        if self.params and params:
            files.copy_atomic(self.params, params)
        external = tuple(folder / self._inside(path) for path in self.external)
        for given, copy in zip(self.external, external, strict=True):
            files.copy_atomic(given, copy)
        return Source(self.format, model, params, external, self.assets)

    def _inside(self, path: Path) -> str:
        return path.relative_to(self.model.parent).as_posix()


def read_source(path: Path, assets: Sequence[Path] = ()) -> Source:
    """Find and check the model that ``path`` means: a folder, a file, or Paddle's prefix of two files."""
    model = _find_model(path)
    kind = FORMATS[model.suffix]
    if model.stat().st_size == 0:
        raise _broken(model, kind, "The file is empty.")
    params: Path | None = None
    external: tuple[Path, ...] = ()
    if kind == "onnx":
        external = tuple(_external_data(model))
    else:
        _check_program(model, kind)
        params = model.with_suffix(".pdiparams")
        _check_params(params, model)
    return Source(kind, model, params, external, _find_assets(model, assets))


def _find_model(path: Path) -> Path:
    if path.is_dir():
        return _only_model(path)
    if path.is_file():
        if path.suffix in FORMATS:
            return path
        if path.suffix == ".pdiparams":
            return _only_model(path.parent, path.stem)
        raise UsageError(
            f"{path} is no model that shipway reads.",
            why=f"It takes {_listed(_WHAT.values())}, each Paddle model with its .pdiparams beside it.",
            remedy="Give the folder or the file that paddle.jit.save wrote.",
        )
    if path.parent.is_dir() and path.name and any(path.with_name(path.name + s).is_file() for s in FORMATS):
        return _only_model(path.parent, path.name)
    raise UsageError(
        f"There is no {path}.", remedy="Give the folder or the file of a trained model (is the path right?)."
    )


def _only_model(folder: Path, stem: str | None = None) -> Path:
    """The one model in a folder. Where a program is there in both of Paddle's forms, the newer one."""
    found: dict[str, Path] = {}
    for suffix in FORMATS:
        for path in sorted(folder.glob(f"*{suffix}")):
            wanted = path.is_file() and path.stem not in found and (stem is None or path.stem == stem)
            if wanted and (suffix != ".json" or path.with_suffix(".pdiparams").exists() or _is_pir(path)):
                found[path.stem] = path
    if len(found) == 1:
        return next(iter(found.values()))
    weights = sorted(path for path in folder.glob("*.pdiparams") if stem is None or path.stem == stem)
    if weights and not found:
        raise ConversionError(
            f"{_listed(map(str, weights))} lacks its program.",
            why=f"There is neither {weights[0].stem}.json nor {weights[0].stem}.pdmodel beside it.",
            remedy="Copy both files that paddle.jit.save wrote; weights alone say nothing of the model.",
        )
    if found:
        raise UsageError(
            f"{folder} holds more than one model: {_listed(path.name for path in found.values())}.",
            remedy="Give the file of the one to register.",
        )
    raise UsageError(
        f"{folder} holds no model.",
        why=f"Looked for {_listed(_WHAT.values())}.",
        remedy="Give the folder that paddle.jit.save or PaddleX's export wrote, or an .onnx file.",
    )


def _is_pir(path: Path) -> bool:
    with path.open("rb") as stream:
        return b'"pir"' in stream.read(200)


def _check_program(model: Path, kind: str) -> None:
    raw = model.read_bytes()
    if kind == "pir":
        try:
            program = json.loads(raw)
        except ValueError as error:
            raise _broken(model, kind, f"It is not whole JSON: {error}.") from error
        base = program.get("base_code") if isinstance(program, dict) else None
        if not isinstance(base, dict) or base.get("magic") != "pir":
            raise _broken(model, kind, "It is JSON, but no program that Paddle saved.")
    elif not paddle_files.is_protobuf(raw):
        raise _broken(model, kind, "It is no whole protobuf message: truncated, or another kind of file.")


def _check_params(params: Path, model: Path) -> None:
    if not params.is_file():
        raise ConversionError(
            f"{model} lacks its weights.",
            why=f"There is no {params.name} beside it.",
            remedy="Copy both files that paddle.jit.save wrote; a model without weights says nothing.",
        )
    size = params.stat().st_size
    why = "The file is empty." if size == 0 else paddle_files.first_broken_tensor(params, size)
    if why:
        raise ConversionError(
            f"{params} can't be read as Paddle's weights.",
            why=why,
            remedy="Was the copy or the download cut short? Save or fetch the model again.",
        )


def _broken(model: Path, kind: str, why: str) -> ConversionError:
    return ConversionError(
        f"{model} can't be read as {_WHAT[kind]}.",
        why=why,
        remedy="Was the copy or the download cut short? Save or fetch the model again.",
    )


def _external_data(model: Path) -> Iterator[Path]:
    """Files beside an ONNX model that hold its tensors. One that lies elsewhere or lacks is refused."""
    with model.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as raw:
        if raw.find(b"\x08location") < 0:  # the key that every external tensor carries, with its length
            return
    from shipway.registry.convert import graph

    for name in graph.external_names(graph.load(model, data=False)):
        if not files.is_inside(model.parent, name):
            raise ConversionError(
                f"{model} names tensor data outside its own folder: {name!r}.",
                remedy="Save the model again with its data in one folder (onnx.save, location='model.data').",
            )
        path = model.parent / name
        if not path.is_file():
            raise ConversionError(
                f"{model} lacks its tensor data.",
                why=f"There is no {name} beside it.",
                remedy="Copy the model together with its data.",
            )
        yield path


def _find_assets(model: Path, given: Sequence[Path]) -> tuple[Path, ...]:
    beside = [model.parent / name for name in FOUND_ASSETS if (model.parent / name).is_file()]
    found: dict[str, Path] = {}
    for path in given:
        if not path.is_file():
            raise UsageError(f"There is no asset {path}.", remedy="--asset takes a file.")
        if path.name in found:
            raise UsageError(
                f"Two assets are called {path.name}.", remedy="Rename one: assets travel by their file names."
            )
        try:
            check_path(f"assets/{path.name}")
        except ValueError as error:
            raise UsageError(f"{path.name!r} can't be an asset's name.", remedy="Rename the file.") from error
        found[path.name] = path
    for path in beside:
        found.setdefault(path.name, path)
    return tuple(found[name] for name in sorted(found))


def _listed(words: Iterable[str]) -> str:
    return ", ".join(words)

"""``browser-wasm``: an ES module around ONNX Runtime Web, a page that shows the golden check, header files.

The runtime is fetched with npm once (see ``npm``), the smallest pair of files that runs on WebAssembly: 14.2
MB where the builds with WebGPU have 27 MB. Building is the only step that may use the network, and only while
the package is not in the cache.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar

from pydantic import Field, ValidationInfo, field_validator, model_validator

from shipway.registry.errors import DeliveryError
from shipway.registry.nouns import Digest, Json, TensorSpec
from shipway.targets import squeeze
from shipway.targets.base import BundlePlan, BundleWriter, RuntimeLimits, TargetOptions, VerifiedModel
from shipway.targets.limits import Size, onnx_runtime
from shipway.targets.parts import OnnxRuntimeKind, Threads, Version, facts, place_model, place_proof

PACKAGE = "onnxruntime-web"
PINNED = "1.30.0"
INTEGRITY = "sha512-q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="

# Every web server knows .js; many still serve .mjs as a download, which browsers refuse to run as a module.
_RUNTIME = {
    "dist/ort.wasm.min.mjs": "ort/ort.wasm.min.js",
    "dist/ort-wasm-simd-threaded.mjs": "ort/ort-wasm-simd-threaded.js",
    "dist/ort-wasm-simd-threaded.wasm": "ort/ort-wasm-simd-threaded.wasm",
}

_MODULE = ("model.js", "model.d.ts", "golden.js", "sw.js", "package.json", "check.mjs")
_PAGE = ("index.html", "page.js", "try.js", "page.css")
_HOSTING = (
    "hosting/nginx.conf",
    "hosting/_headers",
    "hosting/s3-cors.json",
    "hosting/cloudfront.json",
)
_COPIES = "hosting/cloudfront-function.js"  # it can't look which files there are: only where all copies are

_ARRAYS = {  # numpy's name: JavaScript's typed array
    **{f"int{bits}": f"Int{bits}Array" for bits in (8, 16, 32)},
    **{f"uint{bits}": f"Uint{bits}Array" for bits in (8, 16, 32)},
    "int64": "BigInt64Array",
    "uint64": "BigUint64Array",
    "bool": "Uint8Array",
    "float16": "Uint16Array",
    "float32": "Float32Array",
    "float64": "Float64Array",
}


class BrowserOptions(TargetOptions):
    """Options of ``browser-wasm``."""

    size_limit: Size | None = Field(None, description="largest bundle that may be built, as in 25MB")
    threads: Threads = Field(
        0, description="threads where the page is cross-origin isolated; 0: half the cores, 4 at most"
    )
    brotli: bool = Field(True, description="put .br copies of the model and the runtime beside the originals")
    runtime_version: Version = Field(PINNED, description="release of onnxruntime-web")
    runtime_integrity: str = Field(
        INTEGRITY, pattern=r"^sha512-[A-Za-z0-9+/]{86}==$", description="npm's integrity of that release"
    )
    # Where the package came from is no property of the bundle: its integrity is.
    runtime_tarball: Path | None = Field(
        None, exclude=True, description="a local copy of the package, for machines without a network"
    )

    @field_validator("runtime_tarball")
    @classmethod
    def _from_root(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        """Relative to the folder of deploy.yaml, which the reader of that file passes as ``root``."""
        root = info.context.get("root") if isinstance(info.context, dict) else None
        return Path(root, value) if root and value else value

    @model_validator(mode="after")
    def _pinned(self) -> BrowserOptions:
        if self.runtime_version != PINNED and self.runtime_integrity == INTEGRITY:
            raise ValueError(
                "another runtime_version needs its own runtime_integrity (npm view ... dist.integrity)"
            )
        return self


class BrowserWasm(OnnxRuntimeKind[BrowserOptions]):
    """See the module."""

    kind: ClassVar[str] = "browser-wasm"
    options: ClassVar[type[TargetOptions]] = BrowserOptions

    def limits(self) -> RuntimeLimits:
        return onnx_runtime(self.chosen.runtime_version, size=self.chosen.size_limit)

    def fingerprint(self) -> Sequence[Digest]:
        """The runtime's files follow from the package's integrity, copies from how they are made."""
        qualities = (squeeze.CODE, squeeze.WEIGHTS) if self.chosen.brotli else ()
        copies = map(squeeze.recipe, qualities)
        return tuple(Digest.of(text.encode()) for text in (self.chosen.runtime_integrity, *copies))

    def build(self, model: VerifiedModel, out: BundleWriter) -> BundlePlan:
        from shipway.targets import npm

        options, limits = self.chosen, self.limits()
        graph = place_model(model, out)
        place_proof(model, out)
        copies = 0
        with self._squeezed_model(model, out) as pool:
            package = npm.tarball(
                PACKAGE, options.runtime_version, options.runtime_integrity, options.runtime_tarball
            )
            content = {
                _RUNTIME[name]: data for name, data in npm.read_members(package, list(_RUNTIME)).items()
            }
            squeezed = {
                path: pool.submit(squeeze.copy, data, squeeze.CODE, keep=True)
                for path, data in content.items()
                if options.brotli
            }
            for path, data in content.items():
                out.write(path, data)
        for path, made in squeezed.items():
            if (copy := made.result()) is not None:
                out.write(f"{path}.br", copy)
                copies += 1
        values = {
            **facts(model),
            "runtime_version": options.runtime_version,
            "types": {"inputs": _types(model.version.inputs), "outputs": _types(model.version.outputs)},
            "package": {
                "name": f"@shipway/{facts(model)['label']}",
                "version": f"{model.version.version}.0.0",
                "private": True,
                "type": "module",
                "exports": "./model.js",
                "types": "./model.d.ts",
                "sideEffects": False,
            },
        }
        hosting = (*_HOSTING, _COPIES) if copies == len(_RUNTIME) else _HOSTING
        for name in (*_MODULE, *_PAGE, *hosting, "README.md"):
            out.render(name, name, **values)
        runtime: dict[str, Json] = {
            "name": PACKAGE,
            "version": options.runtime_version,
            "integrity": options.runtime_integrity,
            "opset": limits.opset,
            "ir": limits.ir,
            "threads": options.threads,
            "model_files": [file.path for file in model.variant.files],
        }
        return BundlePlan(graph, ("node", "check.mjs"), runtime)

    @contextlib.contextmanager
    def _squeezed_model(self, model: VerifiedModel, out: BundleWriter) -> Iterator[ThreadPoolExecutor]:
        """Compress the model's files while the block does something else, and add what is worth it.

        The block may have the same threads compress more: they are done when all is over.
        """
        with tempfile.TemporaryDirectory(prefix="shipway-") as name, ThreadPoolExecutor(2) as pool:
            copies = {
                file: (path := Path(name, str(index)), pool.submit(_squeeze, out.open(file), path))
                for index, file in enumerate(model.variant.files if self.chosen.brotli else ())
            }
            yield pool
            for file, (path, worth) in copies.items():
                if worth.result():
                    out.add(f"{file.path}.br", path)


def _squeeze(source: Path, target: Path) -> bool:
    try:
        return squeeze.copy_file(source, target, squeeze.WEIGHTS)
    except OSError as error:
        raise DeliveryError(
            "The model can't be compressed for browsers.",
            why=f"{error.strerror or error}: {error.filename or target.parent}",
            remedy="Free space, or set TMPDIR to a folder that has some. Nothing was changed.",
        ) from error


def _types(specs: Sequence[TensorSpec]) -> list[dict[str, str]]:
    return [{"name": spec.name, "array": _ARRAYS[spec.dtype], "dtype": spec.dtype} for spec in specs]

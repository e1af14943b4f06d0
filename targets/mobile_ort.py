"""``mobile-ort``: the model for ONNX Runtime on phones, with wrappers and updaters in Kotlin and Swift.

The model stays ``.onnx`` unless ``format: ort`` asks for the runtime's own format (see ``ort_format``).
``required_operators.config`` lists what a runtime built for this model alone must hold, by the graph in use
(https://onnxruntime.ai/docs/reference/operators/reduced-operator-config-file.html).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field

from shipway.registry.nouns import Digest, File, TensorSpec
from shipway.targets import onnx_wire, ort_format
from shipway.targets.base import BundlePlan, BundleWriter, RuntimeLimits, TargetOptions, VerifiedModel
from shipway.targets.limits import Size, onnx_runtime
from shipway.targets.parts import (
    OnnxRuntimeKind,
    Threads,
    Version,
    facts,
    place_model,
    place_python_runner,
    python_runtime,
)

_KOTLIN = ("Bundle.kt", "Model.kt", "Golden.kt", "Json.kt", "Updater.kt", "Shipped.kt", "Android.kt")
_SWIFT = ("Model.swift", "Updater.swift")
_CONFIG = "required_operators.config"


class MobileOptions(TargetOptions):
    """Options of ``mobile-ort``."""

    size_limit: Size | None = Field(None, description="largest bundle that may be built, as in 20MB")
    threads: Threads = Field(0, description="threads of one run; 0: what the runtime takes")
    providers: tuple[Literal["nnapi", "xnnpack", "cpu"], ...] = Field(
        ("xnnpack", "cpu"),
        min_length=1,
        description="what to run on, best first; without cpu nothing steps in",
    )
    format: Literal["onnx", "ort"] = Field(
        "onnx",
        description="ort: ONNX Runtime's own format, for a runtime of exactly runtime_version's release",
    )
    package: str = Field(
        "shipway.model",
        pattern=r"^[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)*$",
        description="Kotlin package of the wrapper",
    )
    min_sdk: int = Field(24, ge=24, le=36, description="oldest Android API level that the app runs on")
    runtime_version: Version = Field(
        "1.22.0", description="release of onnxruntime-android; iOS takes the newest from it on"
    )


class MobileOrt(OnnxRuntimeKind[MobileOptions]):
    """See the module."""

    kind: ClassVar[str] = "mobile-ort"
    options: ClassVar[type[TargetOptions]] = MobileOptions

    def limits(self) -> RuntimeLimits:
        return onnx_runtime(self.chosen.runtime_version, size=self.chosen.size_limit)

    def fingerprint(self) -> Sequence[Digest]:
        """An ``.ort`` file follows from the converter's version as well."""
        if self.chosen.format == "onnx":
            return ()
        return (Digest.of(ort_format.converter(self.chosen.runtime_version).encode()),)

    def build(self, model: VerifiedModel, out: BundleWriter) -> BundlePlan:
        options, version = self.chosen, model.version
        judge = place_python_runner(model, out, "onnxruntime", options.runtime_version)
        parts, operators = self._place(model, out, judge)
        values: dict[str, Any] = {
            **facts(model),
            "runtime_version": options.runtime_version,
            "package": options.package,
            "min_sdk": options.min_sdk,
            "threads": options.threads,
            "format": options.format,
            "providers": [name.upper() for name in options.providers],
            "model_files": [file.to_json() for file in parts],
            "signature": {"inputs": _signature(version.inputs), "outputs": _signature(version.outputs)},
        }
        out.render(_CONFIG, _CONFIG, **values, operators=operators)
        out.render("android/build.gradle.kts", "build.gradle.kts", **values)
        out.render("android/consumer-rules.pro", "consumer-rules.pro")
        out.render("android/src/main/AndroidManifest.xml", "AndroidManifest.xml")
        folder = options.package.replace(".", "/")
        for name in _KOTLIN:
            out.render(f"android/src/main/kotlin/{folder}/{name}", name, **values)
        out.render("ios/Package.swift", "Package.swift", **values)
        for name in _SWIFT:
            out.render(f"ios/Sources/ShipwayModel/{name}", name, **values)
        out.render("README.md", "README.md", **values)
        runtime = python_runtime(self.limits(), options.runtime_version, ["cpu"], threads=options.threads)
        runtime |= {"format": options.format, "model_files": [file.path for file in parts]}
        return BundlePlan(parts[0].path, ("python3", "check.py"), runtime)

    def _place(
        self, model: VerifiedModel, out: BundleWriter, judge: File
    ) -> tuple[list[File], list[dict[str, Any]]]:
        """Add the model in the format that is wanted; its files, and the lines of the operators' listing.

        The runtime optimises what it writes in its own format, so that form is measured: by ``judge``, the
        bundle's own ``golden.py``.
        """
        given = model.variant.files
        if self.chosen.format == "onnx":
            place_model(model, out)
            found = onnx_wire.operators(out.open(given[0]))
            lines = [
                {"domain": domain, "opset": opset, "names": names} for (domain, opset), names in found.items()
            ]
            return list(given), lines
        content, config = ort_format.convert({file.path: out.open(file) for file in given})
        golden = {file.path: out.open(file) for file in model.version.golden}
        ort_format.require_right(content, out.open(judge), golden, model.tolerance, str(model.version.ref))
        rows = (line.split(";") for line in config.splitlines())
        lines = [
            {"domain": domain, "opset": int(opset), "names": names.split(",")}
            for domain, opset, names in rows
        ]
        return [out.write("model.ort", content)], lines


def _signature(specs: tuple[TensorSpec, ...]) -> list[dict[str, Any]]:
    return [
        {
            "name": spec.name,
            "dtype": spec.dtype,
            "shape": [size if isinstance(size, int) else -1 for size in spec.shape],
        }
        for spec in specs
    ]

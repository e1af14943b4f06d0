"""``mobile-ort``: the ONNX file for ONNX Runtime on Android and iOS, with wrappers in Kotlin and Swift.

The model stays ``.onnx``: the ``.ort`` format is tied to the runtime's version
(https://github.com/microsoft/onnxruntime/issues/7553). ``required_operators.config`` lists what a runtime
built for this model alone must hold
(https://onnxruntime.ai/docs/reference/operators/reduced-operator-config-file.html).
"""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field

from shipway.registry.nouns import TensorSpec
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

_OWN_OPSETS = {"com.microsoft": 1, "ai.onnx.ml": 3}  # domains that are not numbered with the default one


class MobileOptions(TargetOptions):
    """Options of ``mobile-ort``."""

    size_limit: Size | None = Field(None, description="largest bundle that may be built, as in 20MB")
    threads: Threads = Field(0, description="threads of one run; 0: what the runtime takes")
    package: str = Field(
        "shipway.model",
        pattern=r"^[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)*$",
        description="Kotlin package of the wrapper",
    )
    min_sdk: int = Field(24, ge=21, le=36, description="oldest Android API level that the app runs on")
    runtime_version: Version = Field(
        "1.22.0", description="release of onnxruntime-android and of its iOS twin"
    )


class MobileOrt(OnnxRuntimeKind[MobileOptions]):
    """See the module."""

    kind: ClassVar[str] = "mobile-ort"
    options: ClassVar[type[TargetOptions]] = MobileOptions

    def limits(self) -> RuntimeLimits:
        return onnx_runtime(self.chosen.runtime_version, size=self.chosen.size_limit)

    def build(self, model: VerifiedModel, out: BundleWriter) -> BundlePlan:
        options, version, precision = self.chosen, model.version, model.variant.precision
        graph = place_model(model, out)
        place_python_runner(model, out, f"onnxruntime=={options.runtime_version}")
        values: dict[str, Any] = {
            **facts(model),
            "runtime_version": options.runtime_version,
            "package": options.package,
            "min_sdk": options.min_sdk,
            "threads": options.threads,
            "model_files": [file.path for file in model.variant.files],
            "signature": {"inputs": _signature(version.inputs), "outputs": _signature(version.outputs)},
            # The record lists the fp32 graph's operators: a quantised graph has others.
            "operators": _operators(version.operators, version.opset) if precision == "fp32" else [],
        }
        if values["operators"]:
            out.render("required_operators.config", "required_operators.config", **values)
        out.render("android/build.gradle.kts", "build.gradle.kts", **values)
        folder = options.package.replace(".", "/")
        for name in ("Model.kt", "Bundle.kt"):
            out.render(f"android/src/main/kotlin/{folder}/{name}", name, **values)
        out.render("ios/Package.swift", "Package.swift", **values)
        out.render("ios/Sources/ShipwayModel/Model.swift", "Model.swift", **values)
        out.render("README.md", "README.md", **values)
        runtime = python_runtime(self.limits(), options.runtime_version, ["cpu"], threads=options.threads)
        return BundlePlan(graph, ("python3", "check.py"), runtime)


def _operators(operators: tuple[str, ...], opset: int) -> list[dict[str, Any]]:
    """Lines of the configuration file: domain, opset and the operators' names."""
    domains: dict[str, list[str]] = {}
    for operator in sorted(set(operators)):
        domain, colons, name = operator.rpartition("::")
        domains.setdefault(domain if colons else "ai.onnx", []).append(name)
    return [
        {"domain": domain, "opset": _OWN_OPSETS.get(domain, opset), "names": names}
        for domain, names in sorted(domains.items())
    ]


def _signature(specs: tuple[TensorSpec, ...]) -> list[dict[str, Any]]:
    return [
        {
            "name": spec.name,
            "dtype": spec.dtype,
            "shape": [size if isinstance(size, int) else -1 for size in spec.shape],
        }
        for spec in specs
    ]

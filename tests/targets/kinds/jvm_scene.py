"""The phones' Kotlin on the JVM: the real compiler, ONNX Runtime for Java, ``jvm/Main.kt`` to drive it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent / "jvm"
SOURCES = "android/src/main/kotlin/shipway/model"
RUNTIME, ANDROID = "onnxruntime-", "android-all-"


def jars() -> list[Path]:
    """What Maven fetched for jvm/pom.xml."""
    root = Path(os.environ.get("SHIPWAY_CACHE") or Path.home() / ".cache" / "shipway")
    found = sorted((root / "jvm").glob("*.jar"))
    assert found, "tools/install-real-parts.sh has Maven fetch the Kotlin compiler and ONNX Runtime"
    return found


def path_of(*names: str) -> str:
    return os.pathsep.join(str(jar) for jar in jars() if jar.name.startswith(names))


def kotlinc(sources: list[Path], out: Path, *libraries: str) -> None:
    """Compile; warnings are errors."""
    compiler = path_of("kotlin", "trove", "annotations")
    argv = ["java", "-Xmx1g", "-cp", compiler, "org.jetbrains.kotlin.cli.jvm.K2JVMCompiler"]
    argv += ["-no-stdlib", "-no-reflect", "-Werror", "-jvm-target", "17", "-d", str(out)]
    argv += ["-cp", path_of("kotlin-stdlib", *libraries), *map(str, sources)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@dataclass
class Kotlin:
    """A compiled wrapper, a folder or a jar; it runs any bundle."""

    classes: Path

    def __call__(self, *arguments: object, code: int | None = 0) -> Any:
        libraries = os.pathsep.join([str(self.classes), path_of("kotlin-stdlib", RUNTIME)])
        argv = ["java", "-Xshare:auto", "-cp", libraries, "MainKt", *map(str, arguments)]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120)
        assert code is None or done.returncode == code, done.stdout + done.stderr
        assert len(done.stdout.splitlines()) == 1
        return json.loads(done.stdout)


def compiled(bundle: Path, classes: Path) -> Kotlin:
    """The wrapper of the bundle in a folder: all but the lines that need Android's classes."""
    sources = [path for path in (bundle / SOURCES).iterdir() if path.name != "Android.kt"]
    kotlinc([*sources, HERE / "Main.kt"], classes, RUNTIME)
    return Kotlin(classes)


def shrunk(wrapper: Kotlin, out: Path, *rules: Path) -> Kotlin:
    """The wrapper and ONNX Runtime's classes shrunk and renamed, as in a release build."""
    modules = Path(shutil.which("java") or "java").resolve().parents[1] / "jmods"
    inputs = [str(wrapper.classes), f"{path_of(RUNTIME)}(**.class)"]
    libraries = [
        path_of("kotlin-stdlib"),
        *(f"{modules}/java.{name}.jmod(**.class)" for name in ("base", "logging")),
    ]
    argv = ["java", "-XX:TieredStopAtLevel=1", "-cp", path_of(""), "proguard.ProGuard"]
    argv += [f"@{file}" for file in rules]
    argv += [
        "-keep",
        "class MainKt { void main(java.lang.String[]); }",
        "-dontoptimize",
        "-dontnote",
        "-dontwarn",
    ]
    for flag, paths in (("-injars", inputs), ("-outjars", [str(out)]), ("-libraryjars", libraries)):
        argv += [word for path in paths for word in (flag, path)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return Kotlin(out)

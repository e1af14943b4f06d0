"""A stand-in for the child that holds Paddle: it runs ``$TRUTH`` (an ONNX model) as the trained model, and
converts as badly as the model's ``how`` says. Run by ``Worker`` as a module."""

from __future__ import annotations

import errno
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from shipway.registry import process


def convert(how: str, out: Path, opset: int) -> None:
    truth = Path(os.environ["TRUTH"]).read_bytes()
    if how == "exit":
        print("[ERROR] Operator fancy_conv is not supported", file=sys.stderr, flush=True)
        raise SystemExit(-1)
    if how == "crash":
        os.abort()
    if how == "logged":
        print("2026-01-31 12:00:00 [ERROR]\\tUnsupported: fancy_conv", file=sys.stderr, flush=True)
        raise SystemExit(-1)
    if how == "where":
        raise RuntimeError(str(Path("/proc/self/ns/net").readlink()))
    if how == "full":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(out))
    if how == "empty":
        out.touch()
    if how == "text":
        out.write_text("no model at all")
    if how == "half":
        out.write_bytes(truth[:-200])
    if how == "dangling":
        out.write_bytes(altered(truth, lambda model: model.graph.node[1].input.__setitem__(0, "nobody")))
    if how == "hang":
        out.write_bytes(b"half")
        time.sleep(600)
    if how == "memory":
        kept = []
        while True:
            kept.append(bytearray(100 << 20))
    if how == "wrong":
        out.write_bytes(altered(truth, wrong_by_a_thousandth))
    if how == "risen":
        out.write_bytes(altered(truth, lambda model: setattr(model.opset_import[0], "version", opset + 1)))
    if how == "good":
        out.write_bytes(truth)


def altered(raw: bytes, alter: Any) -> bytes:
    import onnx

    model = onnx.load_from_string(raw)
    alter(model)
    return model.SerializeToString()


def wrong_by_a_thousandth(model: Any) -> None:
    from onnx import numpy_helper

    bias = next(tensor for tensor in model.graph.initializer if tensor.name == "b1")
    bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + 1e-3, "b1"))


def run(request: Any) -> None:
    import numpy as np
    import onnxruntime

    session = onnxruntime.InferenceSession(os.environ["TRUTH"], providers=["CPUExecutionProvider"])
    for index, case in enumerate(request["cases"]):
        outputs = session.run(None, dict(np.load(case)))
        named = {f"{position:04d}": output for position, output in enumerate(outputs)}
        np.savez(Path(request["out"]) / f"{index}.npz", **named)


def answer(request: Any) -> None:
    if request["do"] == "run":
        run(request)
    elif request["do"] == "translate":
        raise RuntimeError("no such program")
    elif request["do"] == "load":
        pass
    else:
        raw = Path(request["model"]).read_bytes()
        how = json.loads(raw)["how"] if raw.startswith(b"{") else raw[2:].decode()
        convert(how, Path(request["out"]), request["opset"])


if __name__ == "__main__":
    process.serve(lambda: answer)

"""Proof of numbers: golden inputs, what ONNX Runtime makes of them, and the verdict."""

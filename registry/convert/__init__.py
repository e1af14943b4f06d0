"""From what a user trained to a canonical ONNX: reading it, converting it in a child, naming its identity."""

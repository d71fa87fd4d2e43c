"""Export to ONNX and torch programs."""

"""An encoder taken elsewhere: one file a target, loaded when it is asked for; `TARGETS` is the table.

A target's file ends with `TARGET`, which holds all that the house knows of it: see `parts.Target`.
"""

TARGETS: dict[str, str] = {
    "safetensors": "lookalike.export.safetensors",
    "transformers": "lookalike.export.transformers",
    "sentence-transformers": "lookalike.export.sentence_transformers",
    "open_clip": "lookalike.export.open_clip",
    "timm": "lookalike.export.timm",
    "onnx": "lookalike.export.onnx",
    "openvino": "lookalike.export.openvino",
    "saved_model": "lookalike.export.saved_model",
    "tflite": "lookalike.export.tflite",
    "torchscript": "lookalike.export.torchscript",
    "submission": "lookalike.export.submission",
}
"""Target -> module."""

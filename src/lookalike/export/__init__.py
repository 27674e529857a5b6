"""An encoder taken elsewhere: one file a target, loaded when it is asked for; `TARGETS` is the table.

A target's module has `NEEDS` (libraries without which it can't write), `READS` (those that its README's lines import)
and `write(export, directory) -> Written`.
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

"""An encoder taken elsewhere: one file a target, loaded when it is asked for; `TARGETS` is the table.

A target's module has `NEEDS` (libraries without which it can't write), `READS` (those that its README's lines import)
and `write(export, directory) -> Written`.
"""

TARGETS: dict[str, str] = {
    "safetensors": "likeness.export.safetensors",
    "transformers": "likeness.export.transformers",
    "sentence-transformers": "likeness.export.sentence_transformers",
    "open_clip": "likeness.export.open_clip",
    "timm": "likeness.export.timm",
    "onnx": "likeness.export.onnx",
    "openvino": "likeness.export.openvino",
    "saved_model": "likeness.export.saved_model",
    "tflite": "likeness.export.tflite",
    "torchscript": "likeness.export.torchscript",
    "submission": "likeness.export.submission",
}
"""Target -> module."""

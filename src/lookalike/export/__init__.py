"""An encoder taken elsewhere: `TARGETS` is the table of what is loaded when it is asked for.

A target is one value, which holds all that the house knows of it (see `parts.Target`): `TARGET` of a file, or, where a
file makes several forms of one thing, what stands behind the colon.
"""

TARGETS: dict[str, str] = {
    "safetensors": "lookalike.export.published:SAFETENSORS",
    "transformers": "lookalike.export.published:TRANSFORMERS",
    "sentence-transformers": "lookalike.export.sentence_transformers",
    "open_clip": "lookalike.export.open_clip",
    "timm": "lookalike.export.published:TIMM",
    "onnx": "lookalike.export.onnx",
    "openvino": "lookalike.export.onnx:OPENVINO",
    "saved_model": "lookalike.export.tensorflow",
    "tflite": "lookalike.export.tensorflow:TFLITE",
    "torchscript": "lookalike.export.torchscript",
    "submission": "lookalike.export.torchscript:SUBMISSION",
}
"""Target -> module."""

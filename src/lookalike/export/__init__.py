"""An encoder taken elsewhere. A target is one `parts.Target`: `TARGET` of its file, or what stands behind the colon."""

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

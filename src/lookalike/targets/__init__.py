"""An encoder taken elsewhere. A target is one `parts.Target`: `TARGET` of its file, or what stands behind the colon."""

TARGETS: dict[str, str] = {
    "safetensors": "lookalike.targets.published:SAFETENSORS",
    "transformers": "lookalike.targets.published:TRANSFORMERS",
    "sentence-transformers": "lookalike.targets.sentence_transformers",
    "open_clip": "lookalike.targets.open_clip",
    "timm": "lookalike.targets.published:TIMM",
    "onnx": "lookalike.targets.onnx",
    "openvino": "lookalike.targets.onnx:OPENVINO",
    "saved_model": "lookalike.targets.tensorflow",
    "tflite": "lookalike.targets.tensorflow:TFLITE",
    "torchscript": "lookalike.targets.torchscript",
    "submission": "lookalike.targets.torchscript:SUBMISSION",
}

"""LiteRT, which was TensorFlow Lite: the SavedModel of the other target, converted, by built-in operators alone."""

import tempfile
from pathlib import Path

from lookalike.core.errors import EncoderError
from lookalike.export import onnx, saved_model, tensorflow
from lookalike.export.parts import Export, Target, Written, opening

_LARGEST = 2**31 - 2**20
"""Bytes of weights that one file can hold."""


def write(export: Export, directory: Path) -> Written:
    """`model.tflite`, numbers in 32 bits; the signature is `serving_default`.

    Raises:
        EncoderError: The weights are too large for one file, or LiteRT can't compute the preprocessing.
    """
    if export.preprocess and export.config.preprocess.mode == "pad":
        raise EncoderError(
            "LiteRT does not compute in double precision, by which the sides of padded images are found.",
            hint="`--no-preprocess` leaves resizing out",
        )
    if (size := sum(tensor.nbytes for tensor in export.tensors.values())) > _LARGEST:
        raise EncoderError(
            f"A file of LiteRT holds at most 2.1 GB, and these weights are {size / 1e9:.1f} GB.",
            hint="`--to saved_model` has no such limit",
        )
    tf = tensorflow.load()
    with tempfile.TemporaryDirectory() as scratch:
        saved_model.save(export, Path(scratch))
        converted: bytes = tf.lite.TFLiteConverter.from_saved_model(scratch).convert()
    (directory / "model.tflite").write_bytes(converted)
    code = (
        "import numpy as np\nfrom ai_edge_litert.interpreter import Interpreter\nfrom PIL import Image, ImageOps\n\n"
        f"{opening(export)}\n"
        "encode = Interpreter('model.tflite').get_signature_runner('serving_default')\n\n"
        "def embed(path):\n    return encode(images=prepared(path)[None])['vectors'][0]\n"
    )
    return Written(code, onnx.kept(export))


TARGET = Target(
    write,
    "tflite",
    needs=("tensorflow", "ai_edge_litert"),  # the second checks what the first wrote
    reads=("ai_edge_litert",),
    graph=True,
)

"""TensorFlow's SavedModel, of the same graph that the ONNX target writes."""

from pathlib import Path

from lookalike.export import onnx, tensorflow
from lookalike.export.parts import Export, Target, Written, opening


def write(export: Export, directory: Path) -> Written:
    """`saved_model.pb`, and the weights in `variables`; the signature is `serving_default`."""
    save(export, directory)
    code = (
        f"import numpy as np\nimport tensorflow as tf\nfrom PIL import Image, ImageOps\n\n{opening(export)}\n"
        "model = tf.saved_model.load('.')\nencode = model.signatures['serving_default']\n\n"
        "def embed(path):\n    return encode(images=tf.constant(prepared(path)[None]))['vectors'][0].numpy()\n"
    )
    return Written(code, onnx.kept(export))


def save(export: Export, directory: Path) -> None:
    """What TensorFlow loads from `directory`."""
    module = tensorflow.module(onnx.assemble(export))
    tensorflow.load().saved_model.save(module, str(directory), signatures={"serving_default": module.encode})


TARGET = Target(write, needs=("tensorflow",), reads=("tensorflow",), graph=True)

"""TensorFlow's SavedModel, and LiteRT made of it: our own ONNX graphs and no others, each operator in TensorFlow's.

Maps are turned to channels last around each convolution, as TensorFlow computes on CPUs, and LiteRT alone can.
"""

import os
import tempfile
from collections.abc import Callable, Mapping
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto, helper, numpy_helper

from lookalike.targets.onnx import LARGEST, assemble, written
from lookalike.targets.parts import Export, Target, Written, refused

_HELD = 1024  # numbers from which a constant is a variable: constants are part of the graph, which must stay below 2 GB


def write(export: Export, directory: Path) -> Written:
    """`saved_model.pb`, and the weights in `variables`; the signature is `serving_default`."""
    made = module(assemble(export))
    load().saved_model.save(made, str(directory), signatures={"serving_default": made.encode})
    lines = "model = tf.saved_model.load('.')\nencode = model.signatures['serving_default']\n"
    run = "encode(images=tf.constant(prepared(path)[None]))['vectors'][0].numpy()"
    return written(export, "import tensorflow as tf", lines, run)


def write_tflite(export: Export, directory: Path) -> Written:
    """`model.tflite`, numbers in 32 bits, by built-in operators alone; the signature is `serving_default`."""
    if export.preprocess and export.config.preprocess.mode == "pad":
        raise refused(
            "LiteRT does not compute in double precision, by which the sides of padded images are found.",
            "`--no-preprocess` leaves resizing out",
        )
    if (size := sum(tensor.nbytes for tensor in export.tensors.values())) > LARGEST:
        raise refused(
            f"A file of LiteRT holds at most 2.1 GB, and these weights are {size / 1e9:.1f} GB.",
            "`--to saved_model` has no such limit",
        )
    with tempfile.TemporaryDirectory() as scratch:
        write(export, Path(scratch))
        converted: bytes = load().lite.TFLiteConverter.from_saved_model(scratch).convert()
    (directory / "model.tflite").write_bytes(converted)
    lines = "encode = Interpreter('model.tflite').get_signature_runner('serving_default')\n"
    run = "encode(images=prepared(path)[None])['vectors'][0]"
    return written(export, "from ai_edge_litert.interpreter import Interpreter", lines, run)


def load() -> Any:
    """TensorFlow on the CPU: JAX may hold the memory of an accelerator, which rounds matrix products besides."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # read once: what its C++ says of devices and of its own steps
    import tensorflow as tf

    tf.config.set_visible_devices([], "GPU")
    return tf


def module(model: ModelProto) -> Any:
    """A `tf.Module` whose function `encode` computes the graph; its weights are variables."""
    # Without the nodes themselves, which would keep the whole graph in memory, weights and all.
    given = [{a.name: helper.get_attribute_value(a) for a in node.attribute} for node in model.graph.node]
    steps = [(n.op_type, list(n.input), n.output[0], given[i]) for i, n in enumerate(model.graph.node)]
    if missing := sorted({kind for kind, *_ in steps} - set(OPERATORS)):
        raise refused(f"The operators {', '.join(missing)} have no counterpart in the TensorFlow export.")
    tf = load()
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for kind, inputs, _, attributes in steps:
        if kind == "Conv":  # [out in h w] to [h w in out], of depthwise kernels [h w out 1]
            axes = (2, 3, 0, 1) if attributes.get("group", 1) > 1 else (2, 3, 1, 0)
            arrays[inputs[1]] = np.ascontiguousarray(arrays[inputs[1]].transpose(axes))
    held = [name for name, array in arrays.items() if array.size >= _HELD and array.dtype == np.float32]
    made = tf.Module()
    made.weights = {name: tf.Variable(arrays.pop(name), trainable=False) for name in held}
    (image,), (output,) = model.graph.input, (value.name for value in model.graph.output)
    name, sides = image.name, [side.dim_value or None for side in image.type.tensor_type.shape.dim]

    def encode(images: Any) -> dict[str, Any]:
        values: dict[str, Any] = {**arrays, **made.weights, name: images}
        for kind, inputs, result, attributes in steps:
            values[result] = OPERATORS[kind](tf, *(values[i] if i else None for i in inputs), **attributes)
        return {output: values[output]}

    made.encode = tf.function(encode, input_signature=[tf.TensorSpec(sides, tf.uint8, name)], autograph=False)
    return made


def _last(tf: Any, x: Any, pads: Any, fill: Any = 0.0) -> Any:
    """Channels last, with `fill` around."""
    top, left, bottom, right = pads
    x = tf.transpose(x, [0, 2, 3, 1])
    return tf.pad(x, [[0, 0], [top, bottom], [left, right], [0, 0]], constant_values=fill) if any(pads) else x


def _conv(tf: Any, x: Any, kernel: Any, bias: Any = 0.0, **given: Any) -> Any:
    conv: dict[str, Any] = {"group": 1, "pads": [0] * 4, "strides": [1, 1], "dilations": [1, 1]} | given
    y = _last(tf, x, conv["pads"])
    if conv["group"] > 1:
        y = tf.nn.depthwise_conv2d(y, kernel, [1, *conv["strides"], 1], "VALID", dilations=conv["dilations"])
    else:
        y = tf.nn.conv2d(y, kernel, conv["strides"], "VALID", dilations=conv["dilations"])
    return tf.transpose(y + bias, [0, 3, 1, 2])


def _max_pool(tf: Any, x: Any, *, kernel_shape: Any, strides: Any, pads: Any) -> Any:
    y = tf.nn.max_pool2d(_last(tf, x, pads, np.finfo(np.float32).min), kernel_shape, strides, "VALID")
    return tf.transpose(y, [0, 3, 1, 2])


def _attention(
    tf: Any, q: Any, k: Any, v: Any, bias: Any = None, *, q_num_heads: int = 0, scale: float = 0, **_: Any
) -> Any:
    """Of [B T heads*d], or of [B heads T d]."""
    flat = len(q.shape) == 3
    if flat:
        q, k, v = (
            tf.transpose(tf.reshape(x, [-1, x.shape[1], q_num_heads, x.shape[2] // q_num_heads]), [0, 2, 1, 3])
            for x in (q, k, v)
        )
    scores = tf.matmul(q * np.float32(scale or q.shape[-1] ** -0.5), k, transpose_b=True)
    y = tf.matmul(tf.nn.softmax(scores if bias is None else scores + bias), v)
    return tf.reshape(tf.transpose(y, [0, 2, 1, 3]), [-1, y.shape[2], y.shape[1] * y.shape[3]]) if flat else y


def _rotary(tf: Any, x: Any, cos: Any, sin: Any, _: Any, *, num_heads: int) -> Any:
    """Of [B T heads*d], by one row of the tables a token."""
    tokens, width = x.shape[1:]
    one, other = tf.split(tf.reshape(x, [-1, tokens, num_heads, width // num_heads]), 2, axis=-1)
    cos, sin = cos[:, None], sin[:, None]
    return tf.reshape(tf.concat([one * cos - other * sin, one * sin + other * cos], -1), [-1, tokens, width])


def _normed(tf: Any, x: Any, axes: list[int], eps: float) -> Any:
    mean = tf.reduce_mean(x, axes, keepdims=True)
    apart = x - mean
    return apart * tf.math.rsqrt(tf.reduce_mean(apart * apart, axes, keepdims=True) + eps)


def _slice(tf: Any, x: Any, starts: Any, ends: Any, axes: Any, steps: Any = None) -> Any:
    if steps is not None and (steps < 0).any():  # our graphs have it for whole mirror images alone
        return tf.reverse(x, axes)
    cut = [slice(None)] * len(x.shape)
    for start, end, axis in zip(starts, ends, axes, strict=True):
        cut[axis] = slice(int(start), int(end))
    return x[tuple(cut)]


def _reshape(tf: Any, x: Any, shape: Any) -> Any:
    if isinstance(shape, np.ndarray):
        shape = [(x.shape[i] or tf.shape(x)[i]) if side == 0 else int(side) for i, side in enumerate(shape)]
    return tf.reshape(x, shape)


def _div(tf: Any, x: Any, y: Any) -> Any:
    """Whole numbers toward zero, by one above zero.

    LiteRT divides them in 32 bits alone. `pixels` has twice the product of two sides there at most, which goes beyond
    them for no image but one of ten thousand pixels that is hundreds of times as wide as high.
    """
    if tf.as_dtype(x.dtype).is_floating:
        return x / y
    x, y = tf.cast(x, tf.int32), tf.cast(y, tf.int32)
    return tf.cast(tf.sign(x) * (tf.abs(x) // y), tf.int64)


def _named(name: str) -> Callable[..., Any]:
    return lambda tf, *inputs, **attributes: attrgetter(name)(tf)(*inputs, **attributes)


def _reduced(name: str) -> Callable[..., Any]:
    return lambda tf, x, axes, keepdims=1: getattr(tf, name)(x, axis=axes.tolist(), keepdims=bool(keepdims))


# Operators that are functions of TensorFlow: ONNX's name, its name.
_SAME = """
Abs abs, Add add, And logical_and, Clip clip_by_value, Equal equal, Expand broadcast_to, Floor floor,
GreaterOrEqual greater_equal, Identity identity, Less less, LessOrEqual less_equal, MatMul matmul, Max maximum,
Mul multiply, Pow pow, Range range, Round round, Sigmoid sigmoid, Sin sin, Squeeze squeeze, Sub
subtract, Transpose transpose, Where where, Relu nn.relu
"""

OPERATORS: Mapping[str, Callable[..., Any]] = {
    **{operator: _named(name) for operator, name in (pair.split() for pair in _SAME.split(","))},
    "Attention": _attention,
    "Cast": lambda tf, x, to: tf.cast(x, helper.tensor_dtype_to_np_dtype(to)),
    "Concat": lambda tf, *parts, axis: tf.concat(parts, axis),
    "Conv": _conv,
    "Div": _div,
    "Flatten": lambda tf, x, axis: tf.reshape(x, [-1, np.prod(x.shape[axis:])]),
    "Gather": lambda tf, x, at, axis=0: tf.gather(x, at, axis=axis),
    "Gelu": lambda tf, x, approximate=b"none": tf.nn.gelu(x, approximate == b"tanh"),
    "Gemm": lambda tf, x, weight, bias=0.0: tf.matmul(x, weight) + bias,
    "GlobalAveragePool": lambda tf, x: tf.reduce_mean(x, [2, 3], keepdims=True),
    "InstanceNormalization": lambda tf, x, weight, bias, epsilon: (
        _normed(tf, x, [2], epsilon) * weight[:, None] + bias[:, None]
    ),
    "LayerNormalization": lambda tf, x, weight, bias, axis, epsilon: _normed(tf, x, [axis], epsilon) * weight + bias,
    "LpNormalization": lambda tf, x, axis, **_: tf.math.divide_no_nan(x, tf.norm(x, axis=axis, keepdims=True)),
    "Pad": lambda tf, x, pads, *_, **__: tf.pad(x, pads.reshape(2, -1).T),
    "ReduceL2": lambda tf, x, axes, keepdims: tf.sqrt(tf.reduce_sum(x * x, axes.tolist(), keepdims=bool(keepdims))),
    "ReduceMax": _reduced("reduce_max"),
    "ReduceMean": _reduced("reduce_mean"),
    "ReduceSum": _reduced("reduce_sum"),
    "Reshape": _reshape,
    "RotaryEmbedding": _rotary,
    "Shape": lambda tf, x, start=0, end=None: tf.shape(x, tf.int64)[start:end],
    "Slice": _slice,
    "Unsqueeze": lambda tf, x, axes: tf.expand_dims(x, int(axes[0])),
    "MaxPool": _max_pool,
}
"""Operator -> what computes it; the first argument is the module tensorflow."""

TARGET = Target(write, needs=("tensorflow",), reads=("tensorflow",), graph=True)
# The second library that it needs checks what the first wrote.
TFLITE = Target(write_tflite, "tflite", needs=("tensorflow", "ai_edge_litert"), reads=("ai_edge_litert",), graph=True)

"""Our own ONNX graphs as a TensorFlow function: the operators that they use, each in TensorFlow's.

No general converter: operators, attributes and shapes that our graphs don't have are not here. Maps are turned to
channels last around each convolution, which is how TensorFlow computes on CPUs, and the only way that LiteRT knows.
"""

import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

from lookalike.core.errors import EncoderError

_HELD = 1024
"""Numbers from which a constant is a variable: constants are part of the graph, which must stay below 2 GB."""

_KINDS = {
    TensorProto.FLOAT: "float32",
    TensorProto.DOUBLE: "float64",
    TensorProto.UINT8: "uint8",
    TensorProto.INT64: "int64",
}


def load() -> Any:
    """TensorFlow on the CPU: JAX may hold the memory of an accelerator, which rounds matrix products besides."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # read once: what its C++ says of devices and of its own steps
    import tensorflow as tf

    tf.config.set_visible_devices([], "GPU")
    return tf


def module(model: ModelProto) -> Any:
    """A `tf.Module` whose function `encode` computes the graph; its weights are variables.

    Raises:
        EncoderError: The graph has an operator that is not here.
    """
    # Without the nodes themselves, which would keep the whole graph in memory, weights and all.
    steps = [(node.op_type, list(node.input), node.output[0], _attributes(node)) for node in model.graph.node]
    if missing := sorted({kind for kind, *_ in steps} - set(OPERATORS)):
        raise EncoderError(
            f"The operators {', '.join(missing)} have no counterpart in the TensorFlow export.",
            hint="`--to onnx` takes every encoder",
        )
    tf = load()
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for kind, inputs, _, attributes in steps:
        if kind == "Conv":
            arrays[inputs[1]] = _kernel(arrays[inputs[1]], attributes["group"])
    held = [name for name, array in arrays.items() if array.size >= _HELD and array.dtype == np.float32]
    made = tf.Module()
    made.weights = {name: tf.Variable(arrays.pop(name), trainable=False) for name in held}
    (given,) = model.graph.input
    name, output = given.name, model.graph.output[0].name

    def encode(images: Any) -> dict[str, Any]:
        values: dict[str, Any] = {**arrays, **made.weights, name: images}
        for kind, inputs, result, attributes in steps:
            values[result] = OPERATORS[kind](tf, *(values[i] if i else None for i in inputs), **attributes)
        return {output: values[output]}

    sides = [side.dim_value or None for side in given.type.tensor_type.shape.dim]
    made.encode = tf.function(encode, input_signature=[tf.TensorSpec(sides, tf.uint8, name)], autograph=False)
    return made


def _attributes(node: Any) -> dict[str, Any]:
    given = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    if node.op_type == "Conv":
        given = {"strides": [1, 1], "dilations": [1, 1], "group": 1, "pads": [0] * 4} | given
    return given


def _kernel(kernel: np.ndarray, group: int) -> np.ndarray:
    """[out in h w] to [h w in out], of depthwise kernels [h w out 1]."""
    return np.ascontiguousarray(kernel.transpose((2, 3, 0, 1) if group > 1 else (2, 3, 1, 0)))


def _conv(
    tf: Any, x: Any, kernel: Any, bias: Any = None, *, group: int, pads: Any, strides: Any, dilations: Any, **_: Any
) -> Any:
    top, left, bottom, right = pads
    y = tf.transpose(x, [0, 2, 3, 1])
    if any(pads):
        y = tf.pad(y, [[0, 0], [top, bottom], [left, right], [0, 0]])
    if group > 1:
        y = tf.nn.depthwise_conv2d(y, kernel, [1, *strides, 1], "VALID", dilations=dilations)
    else:
        y = tf.nn.conv2d(y, kernel, strides, "VALID", dilations=dilations)
    return tf.transpose(y if bias is None else y + bias, [0, 3, 1, 2])


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


def _pad(tf: Any, x: Any, pads: Any, *_: Any, **__: Any) -> Any:
    return tf.pad(x, pads.reshape(2, -1).T)


def _max_pool(tf: Any, x: Any, *, kernel_shape: Any, strides: Any, pads: Any) -> Any:
    y = tf.transpose(x, [0, 2, 3, 1])
    y = tf.pad(y, [[0, 0], [pads[0], pads[2]], [pads[1], pads[3]], [0, 0]], constant_values=np.finfo(np.float32).min)
    return tf.transpose(tf.nn.max_pool2d(y, kernel_shape, strides, "VALID"), [0, 3, 1, 2])


def _named(name: str) -> Callable[..., Any]:
    return lambda tf, *inputs, **attributes: getattr(tf, name)(*inputs, **attributes)


def _reduced(name: str) -> Callable[..., Any]:
    return lambda tf, x, axes, keepdims=1: getattr(tf, name)(x, axis=axes.tolist(), keepdims=bool(keepdims))


# Operators that are functions of TensorFlow: ONNX's name, its name.
_SAME = """
Abs abs, Add add, And logical_and, Clip clip_by_value, Equal equal, Expand broadcast_to, Floor floor,
GreaterOrEqual greater_equal, Identity identity, Less less, LessOrEqual less_equal, MatMul matmul, Max maximum,
Min minimum, Mul multiply, Pow pow, Range range, Round round, Sigmoid sigmoid, Sin sin, Squeeze squeeze, Sub
subtract, Transpose transpose, Where where
"""

OPERATORS: Mapping[str, Callable[..., Any]] = {
    **{operator: _named(name) for operator, name in (pair.split() for pair in _SAME.split(","))},
    "Attention": _attention,
    "Cast": lambda tf, x, to: tf.cast(x, _KINDS[to]),
    "Concat": lambda tf, *parts, axis: tf.concat(parts, axis),
    "Conv": _conv,
    "Div": _div,
    "Flatten": lambda tf, x, axis: tf.reshape(x, [-1, np.prod(x.shape[axis:])]),
    "Gather": lambda tf, x, at, axis=0: tf.gather(x, at, axis=axis),
    "Gelu": lambda tf, x, approximate=b"none": tf.nn.gelu(x, approximate == b"tanh"),
    "Gemm": lambda tf, x, weight, bias=None: tf.matmul(x, weight) if bias is None else tf.matmul(x, weight) + bias,
    "GlobalAveragePool": lambda tf, x: tf.reduce_mean(x, [2, 3], keepdims=True),
    "InstanceNormalization": lambda tf, x, weight, bias, epsilon: (
        _normed(tf, x, [2], epsilon) * weight[:, None] + bias[:, None]
    ),
    "LayerNormalization": lambda tf, x, weight, bias, axis, epsilon: _normed(tf, x, [axis], epsilon) * weight + bias,
    "LpNormalization": lambda tf, x, axis, **_: tf.math.divide_no_nan(x, tf.norm(x, axis=axis, keepdims=True)),
    "Pad": _pad,
    "ReduceL2": lambda tf, x, axes, keepdims: tf.sqrt(tf.reduce_sum(x * x, axes.tolist(), keepdims=bool(keepdims))),
    "ReduceMax": _reduced("reduce_max"),
    "ReduceMean": _reduced("reduce_mean"),
    "ReduceSum": _reduced("reduce_sum"),
    "Relu": lambda tf, x: tf.nn.relu(x),
    "Reshape": _reshape,
    "RotaryEmbedding": _rotary,
    "Shape": lambda tf, x, start=0, end=None: tf.shape(x, tf.int64)[start:end],
    "Slice": _slice,
    "Unsqueeze": lambda tf, x, axes: tf.expand_dims(x, int(axes[0])),
    "MaxPool": _max_pool,
}
"""Operator -> what computes it; the first argument is the module tensorflow."""

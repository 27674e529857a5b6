"""Key tables: how a published layout names and lays out the tensors that we have, read in both directions.

A row says which of our tensors it makes and from which of theirs. Import and export follow the same rows, so that a
table can't be right in one direction only.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from math import isqrt

import numpy as np

from lookalike.core.errors import EncoderError
from lookalike.encoders.config import Tensors
from lookalike.published.stored import Published
from lookalike.towers.programs.declare import Shapes

Change = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Form:
    """How one of their arrays becomes ours, and back."""

    ours: Change
    theirs: Change
    axes: int | None = None
    """How many axes their array must have; None: any number."""


SAME = Form(lambda a: a, lambda a: a)
MATRIX = Form(lambda a: a.T, lambda a: a.T, axes=2)
"""[out, in] to [in, out]."""
KERNEL = Form(lambda a: a.transpose(2, 3, 1, 0), lambda a: a.transpose(3, 2, 0, 1), axes=4)
"""[out, in, height, width] to [height, width, in, out]; also right for depthwise kernels, where in is 1."""
PATCH = Form(
    lambda a: a.transpose(2, 3, 1, 0).reshape(-1, a.shape[0]),
    lambda a: a.reshape(isqrt(a.shape[0] // 3), isqrt(a.shape[0] // 3), 3, a.shape[1]).transpose(3, 2, 0, 1),
    axes=4,
)
"""A kernel as large as its stride, to a matrix [height * width * in, out]."""
POINT = Form(lambda a: a[:, :, 0, 0].T, lambda a: a.T[:, :, None, None], axes=4)
"""A kernel of one tap, [out, in, 1, 1], to a matrix [in, out]."""
TOKEN = Form(lambda a: a.reshape(-1), lambda a: a.reshape(1, 1, -1), axes=3)
"""[1, 1, width] to [width]."""
TOKENS = Form(lambda a: a[0], lambda a: a[None], axes=3)
"""[1, tokens, width] to [tokens, width]."""


@dataclass(frozen=True)
class Key:
    """One row of a table."""

    ours: str
    theirs: tuple[str, ...]
    """Several are joined along our last axis. `{}` stands for the layer; ours is then stacked over the layers."""
    form: Form = SAME
    shares: tuple[int, ...] = ()
    """How many equal parts of our last axis each of several has; (): one each."""

    def split(self, ours: np.ndarray) -> list[np.ndarray]:
        """Our array in as many pieces as there are of theirs."""
        shares = self.shares or (1,) * len(self.theirs)
        ends = np.cumsum(shares)[:-1] * ours.shape[-1] // sum(shares)
        return np.split(ours, ends, axis=-1)


def norm(ours: str, theirs: str) -> tuple[Key, ...]:
    """Scale and shift."""
    return Key(f"{ours}.weight", (f"{theirs}.weight",)), Key(f"{ours}.bias", (f"{theirs}.bias",))


def linear(ours: str, *theirs: str, biased: tuple[str, ...] | None = None, form: Form = MATRIX) -> tuple[Key, ...]:
    """Matrices side by side, laid out as `form` says, and the biases of those that have one (`biased`; None: all)."""
    biases = tuple(f"{name}.bias" for name in (theirs if biased is None else biased))
    weight = Key(f"{ours}.weight", tuple(f"{name}.weight" for name in theirs), form)
    return (weight, Key(f"{ours}.bias", biases)) if biases else (weight,)


def gather(published: Published, keys: Sequence[Key], shapes: Shapes, prefix: str, ignored: Sequence[str]) -> Tensors:
    """Our tensors by the rows `keys`; their final shapes are for the caller to check.

    Args:
        published: The open file.
        keys: The table.
        shapes: Of our tensors, by the names of the table.
        prefix: What stands before the names of the table.
        ignored: Patterns of tensors that are known and not needed.

    Raises:
        EncoderError: A tensor is missing, left over, or of another kind than the table says.
    """
    _check_names(keys, shapes, prefix, ignored, published)
    return {key.ours: _gather(key, shapes, prefix, published) for key in keys}


def scatter(keys: Sequence[Key], tensors: Mapping[str, np.ndarray], prefix: str) -> Tensors:
    """The way back of `gather`: their tensors, from ours."""
    exported = {}
    for key in keys:
        ours = tensors[key.ours]
        for layer, array in enumerate(ours if "{}" in key.theirs[0] else [ours]):
            for name, part in zip(key.theirs, key.split(array), strict=True):
                exported[_full(prefix, name, layer)] = np.ascontiguousarray(key.form.theirs(part))
    return exported


def _full(prefix: str, name: str, layer: int) -> str:
    """A name of the table as it stands in the file; `/` marks a name outside the prefix."""
    return name[1:].format(layer) if name.startswith("/") else prefix + name.format(layer)


def _layers(shapes: Shapes, key: Key) -> int:
    return shapes[key.ours][0] if "{}" in key.theirs[0] else 1


def _check_names(
    keys: Sequence[Key], shapes: Shapes, prefix: str, ignored: Sequence[str], published: Published
) -> None:
    """Every one of theirs is used once, or known as not needed, or holds no number; none that we need is missing."""
    names = published.shapes
    if (layers := max(_layers(shapes, key) for key in keys)) > len(names):
        raise EncoderError(
            f"The config of `{published.path}` has {layers:,} layers; its file has {len(names)} tensors."
        )
    wanted = {_full(prefix, name, i) for key in keys for name in key.theirs for i in range(_layers(shapes, key))}
    faults = [f"`{name}` is missing" for name in sorted(wanted - names.keys())]
    faults += [
        f"`{name}` is unknown"
        for name in sorted(names.keys() - wanted)
        if 0 not in names[name] and not any(fnmatchcase(name, pattern) for pattern in ignored)
    ]
    if faults:
        more = f"; and {len(faults) - 8} more" if len(faults) > 8 else ""
        raise EncoderError(f"The tensors of `{published.path}` do not fit its config: {'; '.join(faults[:8])}{more}.")


def _gather(key: Key, shapes: Shapes, prefix: str, published: Published) -> np.ndarray:
    """Our tensor of one row."""
    layers = list(_rows(key, _layers(shapes, key), prefix, published))
    if "{}" not in key.theirs[0]:
        return np.ascontiguousarray(layers[0])
    for i, layer in enumerate(layers):
        if layer.shape != layers[0].shape:
            raise EncoderError(
                f"`{_full(prefix, key.theirs[0], i)}` of `{published.path}` has shape {list(layer.shape)}, "
                f"where layer 0 has {list(layers[0].shape)} (axes in our order)."
            )
    return np.stack(layers)


def _rows(key: Key, layers: int, prefix: str, published: Published) -> Iterator[np.ndarray]:
    for layer in range(layers):
        names = [_full(prefix, name, layer) for name in key.theirs]
        yield np.concatenate([key.form.ours(_ranked(published, name, key)) for name in names], axis=-1)


def _ranked(published: Published, name: str, key: Key) -> np.ndarray:
    """One of theirs, its number of axes checked so that the change of form can't fail."""
    array = published.get(name)
    if key.form.axes not in (None, array.ndim):
        raise EncoderError(
            f"Tensor `{name}` of `{published.path}` has shape {list(array.shape)}, not {key.form.axes} axes."
        )
    return array

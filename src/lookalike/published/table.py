"""The two tables of a published layout. Both ways follow the same rows, so that none can be right in one alone.

Key tables: what the tensors that we have are called and how they are laid out, with a row for each, or for several
whose names start alike; a tower takes the rows that it has tensors for. Field tables: what a config calls the facts of
a tower, and what it means where it leaves one out.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from math import isfinite, isqrt
from pathlib import Path
from typing import Any

import numpy as np

from lookalike.core.errors import EncoderError
from lookalike.encoders.config import Tensors, misfit
from lookalike.published.stored import Published
from lookalike.towers import Tower
from lookalike.towers.ops import Shapes, declare
from lookalike.towers.text import TextConfig


@dataclass(frozen=True)
class Form:
    """How one of their arrays becomes ours, and back."""

    ours: Callable[[np.ndarray], np.ndarray]
    theirs: Callable[[np.ndarray], np.ndarray]
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
NEIGHBOURS = Form(PATCH.ours, lambda a: a.reshape(2, 2, -1, a.shape[1]).transpose(3, 2, 0, 1), axes=4)
"""A kernel of 2 x 2 with stride 2, to a matrix [4 * in, out]."""
POINT = Form(lambda a: a[:, :, 0, 0].T, lambda a: a.T[:, :, None, None], axes=4)
"""A kernel of one tap, [out, in, 1, 1], to a matrix [in, out]."""
TOKEN = Form(lambda a: a.reshape(-1), lambda a: a.reshape(1, 1, -1), axes=3)
"""[1, 1, width] to [width]."""
TOKENS = Form(lambda a: a[0], lambda a: a[None], axes=3)
"""[1, tokens, width] to [tokens, width]."""
HEADS = Form(lambda a: a.reshape(-1), lambda a: a.reshape(-1, 1, 1), axes=3)
"""[heads, 1, 1] to [heads]."""

_FORMS = {"class_token": TOKEN, "registers": TOKENS, "position": TOKENS, "pool.probe": TOKEN, "patch.weight": PATCH}
_FORMS |= {"stages.0.patch.weight": PATCH, "stages.*.patch.weight": NEIGHBOURS}
_FORMS |= {"blocks.*.squeeze.reduce.weight": POINT, "blocks.*.squeeze.expand.weight": POINT}
_FORMS |= {"stages.*.blocks.attention.logit_scale": HEADS}
"""Of our tensors, where a layout says nothing else; matrices and kernels beside these are as torch has them."""
BARE = {"class_token": SAME, "position": SAME}
"""How CLIP's libraries have these."""

Names = Mapping[str, str]
"""Our tensor, or what the names of several start with -> theirs.

`*` stands for any number in ours, and in theirs for the same (`*+1`: the next); `{}` in theirs for the layer, over
which ours is stacked; `(a|b)` for several that are joined along our last axis, where one that stands twice has two of
the equal parts; `_` at the end takes the place of the next dot."""


@dataclass(frozen=True)
class Key:
    """One of our tensors, and where it is."""

    ours: str
    theirs: tuple[str, ...]
    form: Form
    shares: tuple[int, ...]
    """How many equal parts of our last axis each of theirs has."""

    @property
    def stacked(self) -> bool:
        """Whether ours is of all layers."""
        return "{}" in self.theirs[0]


def below(ours: str, theirs: str, names: Names) -> dict[str, str]:
    """The rows `names` with what stands before either side."""
    return {f"{ours}.{name}": f"{theirs}.{row}" for name, row in names.items()}


def block(
    theirs: str, norms: str, qkv: str, out: str, up: str, down: str, scale: str = "", ours: str = "blocks"
) -> dict[str, str]:
    """The rows of a transformer's blocks; `norms` are the names of both, `#` in a scale stands for 1 and 2."""
    rows = {"attention.qkv": qkv, "attention.out": out, "mlp.up": up, "mlp.down": down}
    rows |= {f"norm{i}": norm for i, norm in enumerate(norms.split("|"), 1)}
    rows |= {f"scale{i}": scale.replace("#", str(i)) for i in (1, 2) if scale}
    return below(ours, theirs, rows)


def pool(theirs: str, probe: str, qkv: str, out: str, norm: str) -> dict[str, str]:
    """The rows of an attention pooling."""
    rows = {"probe": probe, "attention.qkv": qkv, "attention.out": out, "norm": norm}
    return below("pool", theirs, rows | {"mlp.up": "mlp.fc1", "mlp.down": "mlp.fc2"})


def keys_of(tower: Tower | TextConfig, names: Names, forms: Mapping[str, Form]) -> tuple[Key, ...]:
    """Where each tensor of a tower is; LookupError if the table has no row for one."""
    tensors, keys, known = declare(tower), [], {**_FORMS, **forms}
    for name, tensor in tensors.items():
        start, rest = name, ""
        while (row := names.get(start, names.get(_starred(start)))) is None:
            start, _, last = start.rpartition(".")
            rest = f".{last}{rest}"
            if not start:
                raise LookupError(name)
        before, words, after = re.split(r"[()]", row) if "(" in row else (row, "", "")
        parts = words.split("|")
        if rest == ".bias" and len(parts) == 3 and tensor.shape[-1] < tensors[f"{start}.weight"].shape[-1]:
            parts = parts[::2]  # of queries, keys and values, the keys have none
        rest = {".mean": ".running_mean", ".variance": ".running_var"}.get(rest, rest)
        theirs = [_filled(f"{before}{part}{after}", start) + rest for part in dict.fromkeys(parts)]
        usual = {"matrix": MATRIX, "kernel": KERNEL}.get(tensor.kind, SAME)
        form = known.get(name) or known.get(_starred(name)) or usual
        shares = tuple(parts.count(part) for part in dict.fromkeys(parts))
        keys.append(Key(name, tuple(their.replace("_.", "_") for their in theirs), form, shares))
    return tuple(keys)


def _starred(name: str) -> str:
    return re.sub(r"\b\d+\b", "*", name)


def _filled(theirs: str, ours: str) -> str:
    numbers = iter(re.findall(r"\b\d+\b", ours))
    return re.sub(r"\*([+-]1)?", lambda star: str(int(next(numbers)) + int(star[1] or 0)), theirs)


def gather(published: Published, keys: Sequence[Key], shapes: Shapes, prefix: str, ignored: Sequence[str]) -> Tensors:
    """Our tensors from an open file; their final `shapes` are for the caller to check.

    EncoderError names those that are missing, left over and not of the patterns `ignored`, or not as the table says.
    """
    names, path = published.shapes, published.path
    layers = {key.ours: shapes[key.ours][0] if key.stacked else 1 for key in keys}
    if (most := max(layers.values())) > len(names):
        raise EncoderError(f"The config of `{path}` has {most:,} layers; its file has {len(names)} tensors.")
    where = {key: [[_full(prefix, name, i) for name in key.theirs] for i in range(layers[key.ours])] for key in keys}
    wanted = {name for rows in where.values() for row in rows for name in row}
    spare = ("*.num_batches_tracked", *ignored)
    faults = [f"`{name}` is missing" for name in sorted(wanted - names.keys())]
    faults += [
        f"`{name}` is unknown"
        for name in sorted(names.keys() - wanted)
        if 0 not in names[name] and not any(fnmatchcase(name, pattern) for pattern in spare)
    ]
    if faults:
        raise misfit(path, faults)
    return {key.ours: _gather(key, rows, published) for key, rows in where.items()}


def _gather(key: Key, rows: Sequence[Sequence[str]], published: Published) -> np.ndarray:
    """Our tensor from those that a file has for each layer; a form gets no array of another number of axes."""
    layers: list[np.ndarray] = []
    for names in rows:
        for name in names:
            shape, first = list(published.shapes[name]), list(published.shapes[rows[0][-1]])
            if (axes := key.form.axes) not in (None, len(shape)):
                raise EncoderError(f"Tensor `{name}` of `{published.path}` has shape {shape}, not {axes} axes.")
        layers.append(np.concatenate([key.form.ours(published.get(name)) for name in names], axis=-1))
        if layers[-1].shape != layers[0].shape:
            raise EncoderError(f"`{name}` of `{published.path}` has shape {shape}, where layer 0 has {first}.")
    return np.stack(layers) if key.stacked else np.ascontiguousarray(layers[0])


def scatter(keys: Sequence[Key], tensors: Mapping[str, np.ndarray], prefix: str) -> Tensors:
    """The way back of `gather`: their tensors, from ours."""
    exported = {}
    for key in keys:
        ours, ends = tensors[key.ours], np.cumsum(key.shares)
        for layer, array in enumerate(ours if key.stacked else [ours]):
            parts = np.split(array, ends[:-1] * array.shape[-1] // ends[-1], axis=-1)
            for name, part in zip(key.theirs, parts, strict=True):
                exported[_full(prefix, name, layer)] = np.ascontiguousarray(key.form.theirs(part))
    return exported


def _full(prefix: str, name: str, layer: int) -> str:
    """A name of the table as it stands in the file; `/` marks a name outside the prefix."""
    return name[1:].format(layer) if name.startswith("/") else prefix + name.format(layer)


@dataclass(frozen=True)
class Field:
    """One row of a table. With nothing but a name and a value it is a fact that all towers of the layout share."""

    ours: str | None
    """Field of the tower's config; None: the value is fixed, or other rows read it."""
    theirs: str
    """Key of their config."""
    default: Any
    """What a config that leaves it out means; its type is the type of the value (None: any)."""
    form: Mapping[Any, Any] | Callable[[Any, Path], Any] | None = None
    """Their words and ours; or a function of their value and of the path for its errors."""
    back: Callable[[dict[str, Any]], Any] | None = None
    """Our value from all of theirs, where it takes more than this one."""
    there: Callable[[Any], Any] | None = None
    """Their value from our tower, where it takes more than our field."""

    @property
    def fixed(self) -> bool:
        """Whether only the default is known."""
        return self.ours is None and self.form is None and self.there is None and self.default is not None

    def read(self, data: Mapping[str, Any], path: Path) -> Any:
        """Their value, in our words."""
        value, expected = data.get(self.theirs, self.default), f"something like {self.default!r}"
        if callable(self.form):
            return self.form(value, path)
        if self.form is not None:
            good, expected = isinstance(value, str | bool) and value in self.form, " or ".join(map(str, self.form))
        elif self.fixed:
            good, expected = value == self.default and _alike(value, self.default), self.default
        else:
            good = _alike(value, self.default)
        if not good:
            raise EncoderError(f"{self.theirs}={_short(value)}; expected {expected}.")
        if self.form is not None:
            return self.form[value]
        return float(value) if isinstance(self.default, float) else tuple(value) if isinstance(value, list) else value

    def write(self, tower: Any) -> dict[str, Any]:
        """Their key and value; nothing if others write it. LookupError if they have no word for ours."""
        if self.there is not None:
            return {self.theirs: self.there(tower)}
        if self.ours is None:
            return {self.theirs: self.default} if self.fixed else {}
        value = getattr(tower, self.ours)
        if isinstance(self.form, Mapping):
            value = {ours: theirs for theirs, ours in reversed(list(self.form.items()))}[value]
        return {self.theirs: list(value) if isinstance(value, tuple) else value}


def read_fields(fields: Sequence[Field], data: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Our fields from their config `data`, which lies in `path`; EncoderError names what no tower of ours has."""
    try:
        theirs = {field.theirs: field.read(data, path) for field in fields}
        return {f.ours: f.back(theirs) if f.back else theirs[f.theirs] for f in fields if f.ours is not None}
    except EncoderError as error:
        raise EncoderError(f"The tower of `{path}` is not one that is known: {error.message}") from error


def write_fields(fields: Sequence[Field], tower: Any) -> dict[str, Any] | None:
    """Their config of our tower; None if they have no word for something."""
    try:
        return {key: value for field in fields for key, value in field.write(tower).items()}
    except LookupError:
        return None


def refuse(found: Mapping[str, Any]) -> None:
    """EncoderError that names all of `found`, if there is any."""
    if found:
        raise EncoderError(f"{', '.join(f'{name}={_short(value)}' for name, value in found.items())}.")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."


def _alike(value: Any, default: Any) -> bool:
    if isinstance(default, list | tuple):
        return isinstance(value, list | tuple) and all(_alike(item, (*default, 0)[0]) for item in value)
    if isinstance(default, bool) or isinstance(value, bool):
        return default is None or type(value) is type(default)
    if isinstance(default, float):
        return isinstance(value, int | float) and isfinite(value)
    return default is None or isinstance(value, type(default))

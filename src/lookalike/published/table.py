"""Key tables: how a published layout names and lays out the tensors that we have, read in both directions.

A row says which of our tensors it makes and from which of theirs. Import and export follow the same rows, so that a
table can't be right in one direction only.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from math import isqrt
from pathlib import Path
from typing import Any

import numpy as np

from lookalike.core.errors import EncoderError
from lookalike.core.files import read_json
from lookalike.encoders.config import EncoderConfig, Shapes, Tensors, check_tensors, tensor_shapes
from lookalike.imaging.preprocess import Preprocess
from lookalike.published.fit import adapt, resized
from lookalike.towers.programs.declare import shapes_of

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


@dataclass(frozen=True)
class Layout:
    """A published form of a model directory."""

    files: tuple[str, str]
    """Names of the config and of the tensors."""
    matches: Callable[[dict[str, Any]], bool]
    """Whether a config of that name is of this layout."""
    prefixes: tuple[str, ...]
    """What may stand before the names of the table; export writes the first."""
    anchor: str
    """A name of the table that every file has, by which the prefix is found."""
    ignored: tuple[str, ...]
    """Patterns of tensors that are known and not needed (whole names, prefix included)."""
    keys: Callable[[Any], tuple[Key, ...]]
    """The table for the config of a tower."""
    read: Callable[[Path, dict[str, Any], Mapping[str, tuple[int, ...]]], EncoderConfig]
    """Our config from the directory, its config and the shapes of its tensors (prefix removed)."""
    renamed: tuple[tuple[str, str], ...] = ()
    """Pieces of names as other writers of the same layout have them, and as the table has them."""
    unused: Callable[[Any], Shapes] = lambda _: {}
    """Tensors (shapes, by the config of a tower) that the layout has and no features depend on: `ignored` on the way
    in, zeros on the way out."""
    prepared: Callable[[Path], Preprocess] | None = None
    """The preprocessing, where `read` gives it for the size of the stored positions, and the reference interpolates."""


def import_model(
    layout: Layout, path: Path, size: int | None = None, stride: int | None = None
) -> tuple[EncoderConfig, Tensors]:
    """Our config and tensors from a directory in `layout`; the projection is the identity.

    Args:
        layout: The layout.
        path: The directory.
        size: Side of the input, in pixels; None: as published. Here, and not later, so that positions are interpolated
            once, from those that are stored.
        stride: Distance between a ViT's patches, in pixels; None: as published.

    Raises:
        EncoderError: A tensor is missing, left over, of a wrong shape, or of a dtype that isn't a float of 16 or 32
            bits; the message names them.
    """
    described = described_by(path / layout.files[0])
    with Published(path, layout.files[1], layout.renamed) as published:
        prefix = _prefix(layout, published.shapes, path)
        theirs = {name.removeprefix(prefix): shape for name, shape in published.shapes.items()}
        with understood(path, layout.files[0]):
            config = layout.read(path, described, theirs)
            keys, shapes = layout.keys(config.tower), shapes_of(config.tower)
        gathered = gather(published, keys, shapes, prefix, layout.ignored)
        tensors = {f"tower.{name}": tensor for name, tensor in gathered.items()}
    check_tensors(tensor_shapes(config), tensors, str(path))
    wanted = config.preprocess if layout.prepared is None else layout.prepared(path)
    wanted = wanted if size is None else resized(wanted, size)
    if wanted == config.preprocess and stride is None:
        return config, tensors
    config, tensors = adapt(config, tensors, size=wanted.size, stride=stride)
    return replace(config, preprocess=wanted), tensors


@contextmanager
def understood(path: Path, name: str) -> Iterator[None]:
    """EncoderError for what goes wrong inside the block with the values of the file `name` in `path`: they may be of
    any kind.
    """
    try:
        yield
    except (TypeError, ValueError, AttributeError, LookupError, ArithmeticError) as error:
        raise EncoderError(
            f"`{path / name}`, or what describes the preprocessing or the tokens beside it, can't be understood: "
            f"{type(error).__name__}, {error}.",
            hint="get them again from where the model comes from",
        ) from error


def described_by(path: Path) -> dict[str, Any]:
    """The object in a file of JSON; empty if it holds something else. StorageError if it is no JSON."""
    data = read_json(path)
    return data if isinstance(data, dict) else {}


def part(described: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The object that a config has under `name`; empty if there is none."""
    value = described.get(name)
    return value if isinstance(value, dict) else {}


def export_tensors(layout: Layout, config: EncoderConfig, tensors: Mapping[str, np.ndarray]) -> Tensors:
    """The tower's tensors under the names of `layout`: what `import_model` would turn back into ours."""
    tower = {name.removeprefix("tower."): tensor for name, tensor in tensors.items() if name.startswith("tower.")}
    unused = {layout.prefixes[0] + n: np.zeros(s, np.float32) for n, s in layout.unused(config.tower).items()}
    return scatter(layout.keys(config.tower), tower, layout.prefixes[0]) | unused


def gather(published: "Published", keys: Sequence[Key], shapes: Shapes, prefix: str, ignored: Sequence[str]) -> Tensors:
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


class Published:
    """The safetensors of a directory, one file or several with an index, read tensor by tensor."""

    def __init__(self, path: Path, name: str, renamed: Sequence[tuple[str, str]] = ()) -> None:
        self.path, self.name, self.renamed = path, name, renamed
        self.shapes: dict[str, tuple[int, ...]] = {}
        self._stack = ExitStack()
        self._where: dict[str, Any] = {}
        self._dtypes: dict[str, str] = {}

    def __enter__(self) -> "Published":
        from safetensors import SafetensorError, safe_open

        for name in self._files():
            try:
                file = self._stack.enter_context(safe_open(self.path / name, "np"))
            except (SafetensorError, FileNotFoundError) as error:
                self._stack.close()
                raise EncoderError(f"`{self.path / name}` can't be read: {error}.", hint="get it again") from error
            for stored in file.keys():  # noqa: SIM118  not a dict
                piece, key = file.get_slice(stored), stored
                for theirs, ours in self.renamed:
                    key = key.replace(theirs, ours)
                self.shapes[key], self._where[key] = tuple(piece.get_shape()), (file, stored)
                self._dtypes[key] = piece.get_dtype()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def get(self, name: str) -> np.ndarray:
        """One tensor as float32."""
        if self._dtypes[name] not in ("F32", "F16", "BF16"):
            raise EncoderError(f"Tensor `{name}` of `{self.path}` is {self._dtypes[name]}; expected F32, F16 or BF16.")
        if self._dtypes[name] == "BF16":
            import ml_dtypes  # noqa: F401  NumPy does not know the dtype before
        file, stored = self._where[name]
        array: np.ndarray = file.get_tensor(stored).astype(np.float32)
        return array

    def _files(self) -> list[str]:
        index = self.path / f"{self.name}.index.json"
        if (self.path / self.name).exists() or not index.exists():
            return [self.name]
        described = read_json(index)
        named = described.get("weight_map") if isinstance(described, dict) else None
        if not isinstance(named, dict) or not all(isinstance(n, str) and "/" not in n for n in named.values()):
            raise EncoderError(f"`{index}` does not say which files beside it hold the tensors.", hint="get it again")
        return sorted(set(named.values()))


def _full(prefix: str, name: str, layer: int) -> str:
    """A name of the table as it stands in the file; `/` marks a name outside the prefix."""
    return name[1:].format(layer) if name.startswith("/") else prefix + name.format(layer)


def _prefix(layout: Layout, names: Shapes, path: Path) -> str:
    for prefix in layout.prefixes:
        if prefix + layout.anchor in names:
            return prefix
    raise EncoderError(
        f"`{path / layout.files[1]}` has no tensor `{layout.prefixes[0]}{layout.anchor}`: it is no image tower of the "
        f"kind that `{layout.files[0]}` describes."
    )


def _layers(shapes: Shapes, key: Key) -> int:
    return shapes[key.ours][0] if "{}" in key.theirs[0] else 1


def _check_names(
    keys: Sequence[Key], shapes: Shapes, prefix: str, ignored: Sequence[str], published: "Published"
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

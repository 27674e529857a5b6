"""Images to vectors, wherever that is fastest: the same encoder by ONNX Runtime on a CPU, by JAX on accelerators."""

import importlib.util
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast, overload

import numpy as np
from jaxtyping import Float32, UInt8

from lookalike.core.errors import LookalikeError, UsageError
from lookalike.core.journal import Progress
from lookalike.core.machine import cores, multiplies_bytes
from lookalike.core.shapes import l2_normalize
from lookalike.encoders.config import EncoderConfig
from lookalike.encoders.directory import read_config, read_model, read_safetensors
from lookalike.imaging.decode import decode
from lookalike.imaging.given import Given, is_one, pixels_of
from lookalike.vectors.engines import Engine, JaxEngine, Known, fill, opened

if TYPE_CHECKING:
    from lookalike.encoders.encoder import Encoder

Runtime = Literal["auto", "jax", "onnx"]
Precision = Literal["float32", "bfloat16", "int8"]  # of the tower; vectors of two precisions are not mixed
Kind = Literal["features", "mirrored", "embedding"]  # the tower's, those of the mirror image, what a search compares
Images = UInt8[np.ndarray, "B S S 3"]
Features = Float32[np.ndarray, "N F"]
T = TypeVar("T")
Made = TypeVar("Made")
BATCH = 64


def load(
    path: str | Path, runtime: Runtime = "auto", batch: int = BATCH, *, precision: Precision | None = None
) -> "Embedder":
    """The encoder in the model directory `path`, ready to embed; EncoderError if there is none, or it is incomplete.

    `runtime` onnx is ONNX Runtime on the CPU in float32, without importing JAX; jax is JAX's devices in float32. auto
    is jax where an accelerator and JAX's plug-in for it are there, its tower in bfloat16; else onnx, in matrix products
    of eight bits where the processor is made for them and the tower's features keep a cosine of 0.999, as measured.
    `batch` images go through at once. `precision` overrides that of `runtime`: it is that of vectors to compare with.
    """
    jax = precision == "bfloat16" or (precision != "int8" and _chosen(runtime) == "jax")
    if precision is None and runtime == "auto":
        precision = "bfloat16" if jax else "int8" if multiplies_bytes() else None
    if jax:
        from lookalike.encoders.encoder import Encoder

        encoder = Encoder(*read_model(path), "bfloat16" if precision == "bfloat16" else "float32")
        return Embedder.of(encoder, "jax", batch)
    config, int8 = read_config(path), precision == "int8"
    known, engine = opened(
        path,
        config.tower.features,
        lambda folder: fill(folder, *read_model(path), int8),
        batch=batch,
        int8=int8,
        zooms=config.zooms,
    )
    projection = read_safetensors(Path(path) / "model.safetensors", "projection.")  # of a file that was checked before
    embedder = Embedder(config, known, projection, engine)
    embedder.exact = lambda: load(path, runtime, batch, precision="float32")
    return embedder


class Embedder:
    """An encoder that is ready: images to features, features to embeddings of unit length.

    >>> encoder = la.load("model")
    >>> vectors, failed = encoder.embed(["kettle.jpg", b"no image"], on_error="skip")
    >>> vectors.shape, [*failed]
    ((1, 6), [1])
    """

    def __init__(self, config: EncoderConfig, known: Known, tensors: Mapping[str, np.ndarray], engine: Engine) -> None:
        self.config = config
        self.fingerprint = known.fingerprint
        self.features_fingerprint = known.features_fingerprint
        self.cosine = known.cosine
        self.engine = engine
        self.precision: Precision = engine.dtype if known.cosine is None else "int8"
        self.dimension = config.projection.dimension
        self._weight, self._bias = (tensors.get(f"projection.{part}") for part in ("weight", "bias"))
        self.exact: Callable[[], Embedder] = lambda: self  # the same encoder in float32, where `load` made this one
        # The shorter side in pixels above which more detail can't be seen; without antialiasing single pixels are.
        self._enough = 2 * config.preprocess.resize if config.preprocess.antialias else None

    def __repr__(self) -> str:
        side = self.config.preprocess.size
        return f"Encoder({self.fingerprint[:8]}: {self.dimension:,} numbers of an image, seen at {side} px)"

    @classmethod
    def of(
        cls, encoder: "Encoder", runtime: Runtime = "auto", batch: int = BATCH, *, path: str | Path | None = None
    ) -> "Embedder":
        """From an encoder in memory, and the model directory that it was read from, if any; see `load`."""
        config, tensors = encoder.config, encoder.on_host()
        width, side = config.tower.features, config.preprocess.size
        if _chosen(runtime) == "onnx":
            make = partial(fill, config=config, tensors=tensors, int8=False)
            known, graph = opened(path, width, make, batch=batch, zooms=config.zooms)
            return cls(config, known, tensors, graph)
        known = Known(encoder.fingerprint, encoder.features_fingerprint)
        blank, run = np.zeros((side, side, 3), np.uint8), type(encoder).features
        engine = JaxEngine(run, encoder, blank, width, batch, encoder.dtype)
        return cls(config, known, tensors, engine)

    def column(self, kind: Kind, precision: Precision | None) -> str:
        """Name of the column that holds such vectors of this encoder; None: from before precision was noted."""
        made_by = self.fingerprint if kind == "embedding" else self.features_fingerprint
        return "_".join([kind, made_by[:8], *([] if precision is None else [precision])])

    @property
    def is_untouched(self) -> bool:
        """Whether its embeddings are its features, brought to length 1."""
        return self.config.projection.kind == "identity" and not self.config.mirror

    @property
    def embedding_column(self) -> str:
        """Name of the column that holds the embeddings."""
        return self.column("embedding", self.precision)

    @overload
    def embed(
        self,
        images: Given | Iterable[Given],
        *,
        batch_size: int | None = None,
        progress: bool = False,
        on_error: Literal["raise"] = "raise",
    ) -> Float32[np.ndarray, "*N D"]: ...
    @overload
    def embed(
        self,
        images: Given | Iterable[Given],
        *,
        batch_size: int | None = None,
        progress: bool = False,
        on_error: Literal["skip", "nan"],
    ) -> tuple[Float32[np.ndarray, "N D"], dict[int, LookalikeError]]: ...
    def embed(
        self,
        images: Given | Iterable[Given],
        *,
        batch_size: int | None = None,
        progress: bool = False,
        on_error: Literal["raise", "skip", "nan"] = "raise",
    ) -> Any:
        """Embeddings of unit length, float32: [N D] of an iterable of images, [D] of a single one.

        An image is a path, the bytes of a file, an image of Pillow, or an array [H W], [H W 1], [H W 3] or [H W 4],
        uint8 or floats from 0 to 1. It is turned upright, brought to sRGB, and laid on white where it is transparent.

            vectors = encoder.embed(["a.jpg", PIL.Image.open("b.heic")])
            vectors, failed = encoder.embed(paths, on_error="skip")

        Args:
            images: One, or an iterable, which is taken a batch at a time: a generator may be long.
            batch_size: How many are decoded and go through at once; None: what the encoder was loaded with.
            progress: Whether stderr is told how far it is.
            on_error: What is done with images that can't be read. "skip": they have no row; "nan": their row is NaN;
                both return (vectors, position -> error).

        Raises:
            SourceError: A file can't be read.
            ImageError: An item is no image, or a damaged one; of another kind or form.
            UsageError: `images` is nothing that can be iterated.
        """
        if on_error not in ("raise", "skip", "nan"):
            raise UsageError(f'`on_error` is {on_error!r}; expected "raise", "skip" or "nan".')
        if is_one(images):
            found = self.embed([cast("Given", images)], batch_size=batch_size, progress=progress, on_error=on_error)
            return found[0] if on_error == "raise" else found
        if not isinstance(images, Iterable):
            raise UsageError(f"`embed` takes images, and was given a {type(images).__qualname__}.", hint="embed(path)")
        attempt = partial(self._attempt, on_error != "raise")
        several, size = iter(images), batch_size or self.engine.batch
        vectors, failed, count = [np.empty((0, self.dimension), np.float32)], dict[int, LookalikeError](), 0
        total = len(images) if isinstance(images, Sized) else None
        with Progress("embed", "images", total) if progress else nullcontext() as bar:
            for results in prepared(iter(lambda: list(islice(several, size)), []), attempt):
                failed |= {count + i: each for i, each in enumerate(results) if isinstance(each, LookalikeError)}
                good = np.array([not isinstance(each, LookalikeError) for each in results])
                made = np.full((len(good), self.dimension), np.nan, np.float32)
                if good.any():
                    made[good] = self.vectors(
                        np.stack([each for each in results if isinstance(each, np.ndarray)]), "embedding"
                    )
                vectors.append(made[good] if on_error == "skip" else made)
                count += len(results)
                if bar is not None:
                    bar.advance(len(results))
        return np.concatenate(vectors) if on_error == "raise" else (np.concatenate(vectors), failed)

    def as_input(self, item: object) -> UInt8[np.ndarray, "S S 3"]:
        """One image, as `embed` takes it, as the tower does."""
        return self.config.preprocess(pixels_of(item, self._enough))

    def _attempt(self, keep: bool, item: object) -> UInt8[np.ndarray, "S S 3"] | LookalikeError:
        """An image as the tower takes it, or with `keep` why it can't be."""
        try:
            return self.as_input(item)
        except LookalikeError as error:
            if keep:
                return error
            raise

    def vectors(self, images: Images, kind: Kind) -> Features:
        """What `kind` says of images that `config.preprocess` made, any number."""
        if kind != "embedding":
            return self.features(images[:, :, ::-1] if kind == "mirrored" else images)
        return self.project(self.features(images), self.vectors(images, "mirrored") if self.config.mirror else None)

    def decode(self, data: bytes) -> UInt8[np.ndarray, "S S 3"]:
        """One image file as the tower takes it."""
        return self.config.preprocess(decode(data, self._enough))

    def features(self, images: Images) -> Float32[np.ndarray, "B F"]:
        """Pooled features of images that `config.preprocess` made, any number; the images alone, not mirrored."""
        return self.engine.features(images)

    def project(self, features: Features, mirrored: Features | None = None) -> Float32[np.ndarray, "N D"]:
        """Embeddings of unit length from features, and from those of the mirror images if `config.mirror` says so."""
        if (mirrored is not None) != self.config.mirror:
            raise ValueError(f"this encoder was made with mirror = {self.config.mirror}")
        x = combine(features, mirrored)
        if self.config.projection.l2_normalize_input:
            x = l2_normalize(x)
        if self._weight is not None and self._bias is not None:
            x = x @ self._weight + self._bias
        return l2_normalize(x)


def combine(features: Features, mirrored: Features | None = None) -> Features:
    """The features of images that count together with their mirror images: the mean of both; None: alone."""
    mean: Features = features if mirrored is None else (features + mirrored) / np.float32(2)
    return mean


def prepared(batches: Iterable[Sequence[T]], prepare: Callable[[T], Made]) -> Iterator[list[Made]]:
    """Each batch prepared image by image on all cores, two batches ahead of who takes them."""
    waiting: list[list[Future[Made]]] = []
    pool = ThreadPoolExecutor(cores())
    try:
        for batch in chain(batches, ((), ())):
            waiting.append([pool.submit(prepare, item) for item in batch])
            if len(waiting) > 2:
                yield [future.result() for future in waiting.pop(0)]
    finally:
        pool.shutdown(cancel_futures=True)


# What a plug-in's name holds, and the paths of which one is there where it finds a device.
_DEVICES = {"cuda": ("/dev/nvidiactl", "/dev/dxg"), "rocm": ("/dev/kfd",), "libtpu": ("/dev/accel0", "/dev/vfio/0")}


def accelerated(platforms: str, plugins: Iterable[str], exists: Callable[[str], bool]) -> bool:
    """Whether JAX would find an accelerator, told without starting it: by JAX_PLATFORMS, its plug-ins, and paths."""
    if platforms:
        return platforms.split(",")[0] != "cpu"
    return any(kind in plugin and any(map(exists, paths)) for plugin in plugins for kind, paths in _DEVICES.items())


def _chosen(runtime: Runtime) -> Literal["jax", "onnx"]:
    if runtime != "auto":
        return runtime
    plugins = ["libtpu"] if importlib.util.find_spec("libtpu") else []
    space = importlib.util.find_spec("jax_plugins")  # the namespace in which JAX looks for them
    for place in (space.submodule_search_locations or ()) if space else ():
        plugins += os.listdir(place)
    return "jax" if accelerated(os.environ.get("JAX_PLATFORMS", ""), plugins, os.path.exists) else "onnx"

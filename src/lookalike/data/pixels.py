"""From stored images to the pixels of their views, in this thread or in a process of its own.

Decoding, resizing and changes of colour leave Python's lock, but what holds them together does not: a tenth to a
quarter of the time. So threads are enough for a few cores, and more of them are fed by processes.

Imports neither Lance nor JAX, so that a process starts quickly and takes no accelerator. None outlives its `close`.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection

import numpy as np
import PIL.Image
import pyarrow as pa
import simplejpeg
from jaxtyping import UInt8

from lookalike.core.errors import ImageError
from lookalike.core.processes import start_process
from lookalike.data.sampling import generator
from lookalike.imaging.augment import Background, View
from lookalike.imaging.decode import decode

COARSE = 8  # pixels that suffice of an image of which only the colours are wanted

Pixels = tuple[UInt8[np.ndarray, "B S S 3"], ...]  # of each view, which has a size of its own


@dataclass(frozen=True)
class Images:
    """Some images of a step, as they are stored, and what their random numbers come from."""

    files: list[bytes]
    others: list[bytes]  # whose colours `Background` takes, one for each; none where no view has it
    seed: int
    step: int
    items: list[int]  # the place of each in the step


def render(images: Images, views: Sequence[View]) -> Pixels:
    """Each view of each image, which is decoded once; ImageError if one can't be."""
    at_least = max(view.at_least for view in views)
    pixels = empty(len(images.files), views)
    for place, file in enumerate(images.files):
        image = opened(file, at_least)
        other = opened(images.others[place], COARSE) if images.others else image
        for number, view in enumerate(views):
            rng = generator(images.seed, images.step, images.items[place], number)
            pixels[number][place] = np.asarray(view(rng, image, other))
    return pixels


def empty(count: int, views: Sequence[View]) -> Pixels:
    """Room for `count` images."""
    return tuple(np.empty((count, view.size, view.size, 3), np.uint8) for view in views)


def veiled(views: Sequence[View]) -> bool:
    """Whether other images are needed."""
    return any(isinstance(augment, Background) for view in views for augment in view.augments)


def opened(jpeg: bytes, at_least: int) -> PIL.Image.Image:
    """An image of a collection in mode RGB, at 1, 1/2, 1/4 or 1/8 if its shorter side still has `at_least` pixels.

    Decoded to four bytes a pixel, as Pillow keeps them, which it then takes as they lie; ImageError as `decode`.
    """
    try:
        height, width, *_ = simplejpeg.decode_jpeg_header(jpeg, strict=True)
        scale = max(s for s in (1, 2, 4, 8) if s == 1 or min(height, width) // s >= at_least)
        least = {"min_height": -(-height // scale), "min_width": -(-width // scale), "min_factor": 1}
        pixels = simplejpeg.decode_jpeg(jpeg, "RGBX", strict=True, **least)
    except ValueError:  # damaged, or of a kind that another decoder reads
        return PIL.Image.fromarray(decode(jpeg, at_least))
    flat = pa.Array.from_buffers(pa.uint8(), pixels.size, [None, pa.py_buffer(pixels)])
    return PIL.Image.fromarrow(pa.FixedSizeListArray.from_arrays(flat, 4), "RGB", (pixels.shape[1], pixels.shape[0]))


class Worker:
    """A process that renders, with a pipe to itself; for one thread at a time.

    Pixels are read from it right into the array where they stay: as one of Python's messages they would be copied
    thrice, in part with its lock held, and shared memory is scarce in containers.
    """

    def __init__(self, views: Sequence[View]) -> None:
        self._views = views
        self._process, self._pipe = start_process(_serve, tuple(views))

    def render(self, images: Images) -> Pixels:
        """As `render`; pixels are written where they stay. ImageError if the process dies, too."""
        pixels = empty(len(images.files), self._views)
        try:
            self._pipe.send(images)
            if (error := self._pipe.recv()) is not None:
                raise error
            for each in pixels:
                _transfer(lambda room: os.readv(self._pipe.fileno(), [room]), each)
        except (EOFError, ConnectionError) as end:
            raise ImageError(
                f"A process that decodes the images of step {images.step} has ended: the decoder crashed, or there is "
                "too little memory.",
                hint="a smaller `--batch` takes less memory",
            ) from end
        return pixels

    def close(self) -> None:
        """End the process; it reads the end of its pipe."""
        self._pipe.close()
        self._process.join()


def _transfer(some: Callable[[memoryview], int], pixels: UInt8[np.ndarray, "B S S 3"]) -> None:
    """All of `pixels` by `some`, which reads or writes the first bytes of what it gets and says how many."""
    rest = pixels.reshape(-1).data
    while rest:
        if (count := some(rest)) == 0:
            raise EOFError
        rest = rest[count:]


def _serve(pipe: Connection, views: tuple[View, ...]) -> None:
    """In a process: views of the images that come, until the pipe ends."""
    while True:
        try:
            images = pipe.recv()
            try:
                pixels = render(images, views)
            except ImageError as error:
                pipe.send(error)
                continue
            pipe.send(None)
            for each in pixels:
                _transfer(lambda rest: os.write(pipe.fileno(), rest), each)
        except (EOFError, OSError):
            return

"""Whether a tower may run in eight bits on this machine: its graph is measured against float32 before it is used."""

from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from lookalike.vectors.engines import OnnxEngine

LEAST_COSINE = 0.999
"""Features of the eight-bit graph must be at least this close to those in float32, on every drawn image."""

COUNT = 8
"""Images that are compared: enough to meet a tower that eight bits can't hold, few enough for a large one."""


def lowest_cosine(one: Path, other: Path, size: int, width: int) -> float:
    """How far apart the features of two graphs are, at worst, on images drawn for it.

    Args:
        one: A graph's file.
        other: Another's.
        size: Side of their input, in pixels.
        width: Numbers in their features.
    """
    images = drawn(size)
    a, b = (OnnxEngine(path, width, batch=COUNT).features(images).astype(np.float64) for path in (one, other))
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float((np.sum(a * b, axis=1) / np.maximum(lengths, np.finfo(np.float64).tiny)).min())


def drawn(size: int) -> UInt8[np.ndarray, "B S S 3"]:
    """Images that hold what photographs hold: detail that falls with frequency, edges, flat parts, and few colors."""
    rng = np.random.default_rng(0)
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(size), np.fft.rfftfreq(size), indexing="ij"))
    falling = 1 / np.maximum(frequency, 1 / size)
    images = np.empty((COUNT, size, size, 3), np.uint8)
    for image in images:
        noise = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((3, size, size))) * falling, (size, size))
        noise /= noise.std()
        field = noise[:1] + 0.3 * noise[1:].mean(axis=0)  # the three colors of a photograph go together
        pixels = 128 + rng.uniform(10, 60) * (field + 0.3 * noise) + rng.uniform(-60, 60, (3, 1, 1))
        for _ in range(4):
            top, left = rng.integers(0, size, 2)
            side = rng.integers(size // 8 + 1, size // 2 + 2)
            pixels[:, top : top + side, left : left + side] = rng.uniform(0, 255, (3, 1, 1))
        image[:] = pixels.clip(0, 255).astype(np.uint8).transpose(1, 2, 0)
    return images

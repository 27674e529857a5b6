"""A small convolutional tower from scratch, on images: a minute of two cores for a few hundred images."""

from lookalike.imaging.augment import Color
from lookalike.losses.margins import ArcFace
from lookalike.towers import ConvNetConfig
from lookalike.training.config import AdamW, Augments, PixelsConfig

TINY = PixelsConfig(
    tower=ConvNetConfig(),
    size=64,
    augment=Augments(area=(0.4, 1.0), color=Color(0.3, 0.3, 0.3, cast=0.3)),
    loss=ArcFace(margin=0.2, scale=16.0),
    optimizer=AdamW(
        learning_rate=2e-3, centers_learning_rate=1e-2, tower_learning_rate=2e-3, weight_decay=0.05, warmup=0.1
    ),
    batch=64,
    epochs=120.0,
)
"""The honest lower end: what images alone teach, without a tower that has seen the world."""

"""Complete training configs by name. Flags override their leaves for a trial; a run worth a name becomes one.

Each is a function whose docstring has a line of help, then command, hardware, and what to expect.
"""

from collections.abc import Callable
from dataclasses import replace
from inspect import cleandoc

from lookalike.recipes import laptop, published
from lookalike.training.config import TrainConfig

_MADE: tuple[Callable[[], TrainConfig], ...] = (
    *(laptop.best, laptop.head, laptop.tune, laptop.tiny, laptop.pca, laptop.lda, laptop.arcface),
    *(published.seed, published.first_place, published.first_place_paper, published.second_place),
    *(published.third_place, published.fifth_place, published.unifex, published.uned),
)

RECIPES: dict[str, TrainConfig] = {make.__name__: replace(make(), recipe=make.__name__) for make in _MADE}
_DOCS = {make.__name__: cleandoc(make.__doc__ or "").partition("\n") for make in _MADE}
ABOUT: dict[str, str] = {name: parts[0].rstrip(".") for name, parts in _DOCS.items()}
"""What each is, in one line of help."""
DETAILS: dict[str, str] = {name: parts[2].strip() for name, parts in _DOCS.items()}
"""The rest of its help."""

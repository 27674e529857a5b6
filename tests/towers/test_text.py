"""The text tower: where a text is read from, and what may stand behind its end. Parity: weights/test_text.py."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest

from lookalike.towers.modules.text import TextTower
from lookalike.towers.text import TextConfig

SIZES = {"vocabulary": 20, "context": 6, "width": 8, "layers": 2, "heads": 2, "hidden": 12, "activation": "gelu"}


def tower(**options) -> TextTower:
    config = TextConfig(**SIZES, **options)
    rng = np.random.default_rng(0)
    tensors = {name: jnp.asarray(rng.normal(size=s), jnp.float32) for name, s in config.shapes().items()}
    return TextTower.of(config, tensors)


@pytest.mark.parametrize(
    ("options", "ids", "place"),
    [
        ({"causal": True, "read": "highest"}, [3, 19, 5, 19], 1),  # the first of several
        ({"causal": True, "read": "end", "end": 5}, [3, 19, 5, 5], 2),
        ({"causal": True, "read": "end", "end": 7}, [3, 19, 5, 5], 0),  # none: the first of all, as in transformers
        ({"causal": False, "read": "last"}, [3, 19, 5, 0, 0, 0], 5),
    ],
)
def test_the_place_of_reading(options, ids, place):
    assert int(tower(**options).place(jnp.array(ids, jnp.int32))) == place


def test_what_stands_behind_the_end_changes_nothing_where_attention_is_causal():
    run = eqx.filter_jit(lambda tower, ids: tower(ids))
    short, long = jnp.array([1, 4, 19], jnp.int32), jnp.array([1, 4, 19, 7, 2], jnp.int32)
    for causal in (True, False):
        asked = tower(causal=causal, read="highest")
        assert np.allclose(run(asked, short), run(asked, long), atol=1e-5) == causal


def test_the_head_is_optional():
    plain = tower(causal=True, read="highest")
    headed = tower(causal=True, read="highest", head=5, head_bias=True)
    ids = jnp.array([1, 19], jnp.int32)
    shapes = [eqx.filter_eval_shape(made, ids).shape for made in (plain, headed)]
    assert shapes == [(8,), (5,)] == [(made.config.features,) for made in (plain, headed)]

"""The text tower: where a text is read from, and what may stand behind its end. Parity: weights/test_text.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lookalike.towers.ops import Value, shapes_of
from lookalike.towers.programs.jax import Jax
from lookalike.towers.programs.jax import features as features_of
from lookalike.towers.text import TextConfig

SIZES = {"vocabulary": 20, "context": 6, "width": 8, "layers": 2, "heads": 2, "hidden": 12, "activation": "gelu"}


def features(ids: list[int], **options) -> jax.Array:
    config = TextConfig(**SIZES, **options)
    rng = np.random.default_rng(0)
    tensors = {name: jnp.asarray(rng.normal(size=s), jnp.float32) for name, s in shapes_of(config).items()}
    return jax.jit(lambda t, ids: features_of(config, "class", t, ids))(tensors, jnp.array([ids], jnp.int32))[0]


@pytest.mark.parametrize(
    ("options", "ids", "expected"),
    [
        ({"causal": True, "read": "highest"}, [3, 19, 5, 19], 1),  # the first of several
        ({"causal": True, "read": "end", "end": 5}, [3, 19, 5, 5], 2),
        ({"causal": True, "read": "end", "end": 7}, [3, 19, 5, 5], 0),  # none: the first of all, as in transformers
        ({"causal": False, "read": "last"}, [3, 19, 5, 0, 0, 0], 5),
    ],
)
def test_the_place_of_reading(options, ids, expected):
    tokens, given = jnp.arange(len(ids))[:, None], jnp.array(ids, jnp.int32)
    found = Jax({}, "float32").read(
        Value(tokens, len(ids), 1), Value(given, len(ids), 1), options["read"], options.get("end")
    )
    assert found.data.item() == expected


def test_what_stands_behind_the_end_changes_nothing_where_attention_is_causal():
    for causal in (True, False):
        short, long = (features(ids, causal=causal, read="highest") for ids in ([1, 4, 19], [1, 4, 19, 7, 2]))
        assert np.allclose(short, long, atol=1e-5) == causal


def test_the_head_is_optional():
    plain = features([1, 19], causal=True, read="highest")
    headed = features([1, 19], causal=True, read="highest", head=5, head_bias=True)
    assert (plain.shape, headed.shape) == ((8,), (5,))

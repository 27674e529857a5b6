import jax
import jax.numpy as jnp
import numpy as np

from lookalike.encoders.config import EncoderConfig, ProjectionConfig
from lookalike.encoders.encoder import Encoder
from lookalike.imaging.preprocess import Preprocess
from lookalike.towers import ConvNetConfig

PREPARE = Preprocess(32, "crop", 32, "bicubic", (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


def small(seed: int = 0) -> Encoder:
    tower = ConvNetConfig(widths=(8, 16), depths=(0, 1), groups=4)
    config = EncoderConfig(tower, "mean", PREPARE, ProjectionConfig("linear", 16, 8))
    return Encoder.init(config, jax.random.key(seed))


def test_a_new_tower_is_a_pure_function_of_its_key():
    one, same, other = (small(seed).tensors for seed in (0, 0, 1))
    assert all(np.array_equal(one[name], same[name]) for name in one)
    assert not np.array_equal(one["tower.stages.0.down.conv.weight"], other["tower.stages.0.down.conv.weight"])
    kernel = one["tower.stages.1.blocks.0.conv.weight"]
    assert abs(kernel.std() / (2 / (9 * 16)) ** 0.5 - 1) < 0.1
    assert (one["tower.stages.0.down.norm.weight"] == 1).all()
    assert not one["projection.bias"].any()


def test_it_learns_to_tell_stripes_apart():
    rng = np.random.default_rng(0)
    stripes = np.repeat(np.arange(32)[None] // 4 % 2 * 255, 32, 0).astype(np.uint8)
    flat = [stripes if i % 2 else stripes.T for i in range(16)]
    images = np.stack([np.roll(s, rng.integers(8), axis=(0, 1)) for s in flat])[..., None].repeat(3, 3)
    labels = jnp.arange(16) % 2

    def loss(encoder: Encoder) -> jax.Array:
        logits = 10 * encoder(jnp.asarray(images))[:, :2]
        return -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1).mean()

    @jax.jit
    def step(encoder: Encoder) -> tuple[Encoder, jax.Array]:
        value, slope = jax.value_and_grad(loss)(encoder)
        return jax.tree.map(lambda x, g: x - 0.02 * g, encoder, slope), value

    encoder, losses = small(), []
    for _ in range(30):
        encoder, value = step(encoder)
        losses.append(float(value))
    assert losses[0] > 0.3
    assert losses[-1] < 0.05

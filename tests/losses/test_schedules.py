import jax.numpy as jnp
import numpy as np
import pytest

from lookalike.core.errors import UsageError
from lookalike.losses import BySize, Constant, Growing

SIZES = jnp.asarray([1, 16, 81, 4, 1000, 0], jnp.int32)


def test_constant():
    assert float(Constant().margins(0.3, jnp.int32(7), SIZES)) == pytest.approx(0.3)


def test_growing_by_epochs():
    found = [float(Growing().margins(0.3, jnp.float32(epoch), SIZES)) for epoch in (0, 0.9, 1, 2.5, 7, 30)]
    assert found == pytest.approx([0.1, 0.1, 0.2, 0.3, 0.8, 0.8])
    assert float(Growing(0.2, 0.05, 0.5).margins(0.3, jnp.int32(3), SIZES)) == pytest.approx(0.35)


def test_by_size_as_a_loop():
    """The released code's formula: n^(-1/4), its least and greatest stretched to the range; no image counts as one."""
    raised = [max(int(n), 1) ** -0.25 for n in SIZES]
    expected = [(x - min(raised)) / (max(raised) - min(raised)) * 0.45 + 0.05 for x in raised]
    found = BySize().margins(0.3, jnp.int32(0), SIZES)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert found[0] == pytest.approx(0.5)
    assert found[4] == pytest.approx(0.05)


@pytest.mark.parametrize("power", [-0.25, 0.25])
def test_classes_that_are_elsewhere_change_no_margin(power):
    """A stage that learns from some rows knows the sizes of all classes, and of the others there is no image."""
    there, schedule = jnp.asarray([10, 20, 40], jnp.int32), BySize(power)
    found = schedule.margins(0.3, jnp.int32(0), jnp.concatenate([there, jnp.zeros(4, jnp.int32)]))
    np.testing.assert_allclose(found[:3], schedule.margins(0.3, jnp.int32(0), there), rtol=1e-6)
    assert sorted(np.round(found[:3], 6))[::2] == pytest.approx([0.05, 0.5])
    assert np.isfinite(found).all()


def test_classes_of_one_size_have_the_losss_own_margin():
    np.testing.assert_allclose(BySize().margins(0.3, jnp.int32(0), jnp.full(5, 7)), np.full(5, 0.3), rtol=1e-6)


def test_out_of_range():
    with pytest.raises(UsageError, match="`top` of Growing is 2"):
        Growing(top=2.0)
    with pytest.raises(UsageError, match="`low` of BySize is -1"):
        BySize(low=-1.0)

"""ConvNeXt in timm's layout: `convnext_tiny` and its like, DINOv3's among them."""

from lookalike.published.layouts.convnext import blocks, patches
from lookalike.published.layouts.timm import by_name
from lookalike.published.table import MATRIX, POINT, Key, norm
from lookalike.towers import ConvNeXtConfig


def _tower(width: int, depths: tuple[int, ...], eps: float = 1e-6) -> ConvNeXtConfig:
    return ConvNeXtConfig(tuple(width * 2**i for i in range(len(depths))), depths, eps=eps, last_eps=eps)


CONVNEXTS: dict[str, ConvNeXtConfig] = {
    "convnext_tiny": _tower(96, (3, 3, 9, 3)),
    "convnext_small": _tower(96, (3, 3, 27, 3)),
    "convnext_base": _tower(128, (3, 3, 27, 3)),
    "convnext_large": _tower(192, (3, 3, 27, 3)),
    "convnext_xlarge": _tower(256, (3, 3, 27, 3)),
    "convnext_xxlarge": _tower(384, (3, 4, 30, 3), eps=1e-5),
    "convnext_atto": _tower(40, (2, 2, 6, 2)),
    "convnext_femto": _tower(48, (2, 2, 6, 2)),
    "convnext_pico": _tower(64, (2, 2, 6, 2)),
    "convnext_nano": _tower(80, (2, 2, 8, 2)),
}
"""What timm calls a tower -> the tower."""

_POINTS = ("convnext_atto", "convnext_femto", "convnext_pico", "convnext_nano")
"""Those whose matrices are kernels of one tap."""


def _keys(config: ConvNeXtConfig) -> tuple[Key, ...]:
    names = ("conv_dw", "norm", "mlp.fc1", "mlp.fc2", "gamma")
    form = POINT if config in [CONVNEXTS[name] for name in _POINTS] else MATRIX
    keys = [*patches(0, "stem.0", "stem.1")]
    for i in range(len(config.widths)):
        if i:
            keys += patches(i, f"stages.{i}.downsample.1", f"stages.{i}.downsample.0")
        keys += blocks(config, i, f"stages.{i}.blocks.{{}}", *names, form=form)
    return *keys, *norm("norm_post", "head.norm")


LAYOUT = by_name("convnext", CONVNEXTS, "head.fc", keys=_keys, anchor="stem.0.weight")

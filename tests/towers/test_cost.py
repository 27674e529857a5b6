"""Parameters and operations of towers: against published figures, and against what torch counts while it computes."""

from dataclasses import replace
from typing import Any

import pytest

from lookalike.towers import ConvNetConfig, MobileNetV2Config, SwinConfig, Tower, ViTConfig
from lookalike.towers.convnext import ConvNeXtConfig
from lookalike.towers.inverted import EFFICIENTNETS, MOBILENETS_V4
from lookalike.towers.ops import operations, parameters
from lookalike.towers.plans import RESNETS


def swin_1(width: int, depths: tuple[int, ...], heads: tuple[int, ...]) -> SwinConfig:
    return SwinConfig(1, width, depths, heads, (7,) * 4, (3,) * 4)


@pytest.mark.parametrize(
    ("tower", "size", "millions", "billions"),
    [
        # OpenCLIP's model_profile.csv: image parameters; image GFLOPs, which count both
        (ViTConfig(224, 16, 768, 12, 12, 3072, "quick_gelu", head=512), 224, 86.19, 35.13),
        (ViTConfig(224, 14, 1280, 32, 16, 5120, "gelu", head=1024), 224, 632.08, 334.59),
        # Papers, which count a multiplication with its addition once, and parameters with a classifier of 1,000
        (EFFICIENTNETS["b0"], 224, 5.3 - 1.281, 2 * 0.39),
        (EFFICIENTNETS["b4"], 380, 19 - 1.793, 2 * 4.2),
        (EFFICIENTNETS["b7"], 600, 66 - 2.561, 2 * 37.0),
        (swin_1(96, (2, 2, 6, 2), (3, 6, 12, 24)), 224, 29 - 0.769, 2 * 4.5),
        (swin_1(128, (2, 2, 18, 2), (4, 8, 16, 32)), 224, 88 - 1.025, 2 * 15.4),
        (EFFICIENTNETS["v2_s"], 300, 21.46 - 1.281, 2 * 5.4),  # its card in timm
        (ConvNeXtConfig((96, 192, 384, 768), (3, 3, 9, 3)), 224, 29 - 0.769, 2 * 4.5),
        (RESNETS["50"], 224, 25.6 - 2.049, 2 * 4.1),
        (MOBILENETS_V4["medium"], 224, 9.7 - 1.281, 2 * 0.83),
        (MobileNetV2Config(), 224, 3.4 - 1.281, 2 * 0.3),
    ],
)
def test_published_figures(tower: Tower, size: int, millions: float, billions: float):
    assert parameters(tower) / 1e6 == pytest.approx(millions, rel=0.055)  # papers round to two digits
    assert operations(tower, size) / 1e9 == pytest.approx(billions, rel=0.055)


def counted(model: Any, size: int) -> int:
    """Operations that torch counts."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.eval()(torch.zeros(1, 3, size, size))
    return int(counter.get_total_flops())


@pytest.mark.reference("torch", "transformers")
def test_torch_counts_the_same():
    import transformers as t

    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    sizes |= {"image_size": 64, "patch_size": 16, "attn_implementation": "eager"}
    theirs = t.CLIPVisionModelWithProjection(t.CLIPVisionConfig(**sizes, projection_dim=24))
    assert counted(theirs, 64) == operations(ViTConfig(64, 16, 32, 2, 4, 64, "quick_gelu", head=24), 64)

    ours = ViTConfig(64, 16, 32, 2, 4, 64, "gelu_tanh", class_token=False, positions="patches", pool_heads=4)
    count = counted(t.SiglipVisionModel(t.SiglipVisionConfig(**sizes)), 64)
    assert abs(operations(ours, 64) / count - 1) < 0.02  # nn.MultiheadAttention is counted in other pieces

    eager = {"attn_implementation": "eager"}  # the counter does not see inside the fused one
    swin = t.SwinConfig(image_size=56, embed_dim=16, depths=[2, 2], num_heads=[2, 4], window_size=7, **eager)
    count = operations(SwinConfig(1, 16, (2, 2), (2, 4), (7, 7), (3, 3)), 56)
    assert counted(t.SwinModel(swin), 56) == count

    mobile = t.MobileNetV2Config(depth_multiplier=0.35, tf_padding=True)
    assert counted(t.MobileNetV2Model(mobile), 97) == operations(MobileNetV2Config(0.35, same_padding=True), 97)

    efficient = t.EfficientNetConfig(width_coefficient=1.0, depth_coefficient=1.0, hidden_dim=1280)
    assert counted(t.EfficientNetModel(efficient), 97) == operations(replace(EFFICIENTNETS["b0"], padding="late"), 97)

    convnext = t.ConvNextModel(t.ConvNextConfig(hidden_sizes=[16, 32], depths=[1, 2], num_stages=2))
    assert counted(convnext, 97) == operations(ConvNeXtConfig((16, 32), (1, 2)), 97)


def test_a_small_convnet_by_hand():
    tower = ConvNetConfig((8, 16), (0, 1), stem_kernel=7, stem_stride=4, groups=8)
    by_hand = 8**2 * 49 * 3 * 8 + 4**2 * 9 * 8 * 16 + 4**2 * 9 * 16 * 16
    assert operations(tower, 32) == 2 * by_hand
    assert parameters(tower) == (49 * 3 * 8 + 16) + (9 * 8 * 16 + 32) + (9 * 16 * 16 + 32)

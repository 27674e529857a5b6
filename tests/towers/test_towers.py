"""Shapes of the towers against their papers and the published parameter counts."""

import math
from typing import Any

import pytest

from lookalike.core.errors import EncoderError
from lookalike.published.layouts.timm import CONVNEXTS
from lookalike.towers import ConvNetConfig, MobileNetV2Config, Tower, ViTConfig
from lookalike.towers.inverted import EFFICIENTNETS, MOBILENETS_V4
from lookalike.towers.ops import pads, shapes_of
from lookalike.towers.plans import RESNETS

# (expansion, channels, repeats, stride): table 2 of Sandler et al., 2018.
PAPER = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]

SIGLIP: dict[str, Any] = {"class_token": False, "positions": "patches", "norm_pre": False, "patch_bias": True}
DINO: dict[str, Any] = {"norm_pre": False, "layer_scale": True, "patch_bias": True}
EVA: dict[str, Any] = {"patch_bias": True, "norm_pre": False, "qkv_bias": "query_value"}
EVA |= {"rope": "scaled", "rope_grid": 16}
DINO3: dict[str, Any] = {"positions": "none", "rope": "centred", "qkv_bias": "query_value"}


def test_mobilenet_v2_is_the_papers_table():
    stem, *blocks, last = MobileNetV2Config().plan()
    assert [(c.kernel, c.stride, c.outputs) for c in stem.convs] == [(3, 2, 32)]
    assert [(c.kernel, c.stride, c.inputs, c.outputs) for c in last.convs] == [(1, 1, 320, 1280)]
    inputs, at = 32, iter(blocks)
    for expansion, channels, repeats, first_stride in PAPER:
        for repeat in range(repeats):
            block, stride = next(at), first_stride if repeat == 0 else 1
            *expand, depthwise, project = block.convs
            assert len(expand) == (expansion > 1)
            assert all((c.kernel, c.inputs, c.outputs, c.active) == (1, inputs, 6 * inputs, True) for c in expand)
            inside = expansion * inputs
            assert depthwise.depthwise
            assert (depthwise.kernel, depthwise.stride, depthwise.outputs) == (3, stride, inside)
            assert (project.kernel, project.inputs, project.outputs, project.active) == (1, inside, channels, False)
            assert block.residual == (stride == 1 and inputs == channels)
            inputs = channels
    assert next(at, None) is None


def count(config: Tower) -> int:
    return sum(math.prod(s) for name, s in shapes_of(config).items() if not name.endswith((".mean", ".variance")))


@pytest.mark.parametrize(
    ("config", "parameters"),
    [
        (MobileNetV2Config(), 2_223_872),  # torchvision's 3,504,872 less its classifier
        (ViTConfig(224, 32, 768, 12, 12, 3072, "quick_gelu", head=512), 87_849_216),  # OpenAI's visual towers
        (ViTConfig(224, 16, 768, 12, 12, 3072, "quick_gelu", head=512), 86_192_640),
        (ViTConfig(224, 14, 1024, 24, 16, 4096, "quick_gelu", head=768), 303_966_208),
        (ViTConfig(224, 14, 1280, 32, 16, 5120, "gelu", head=1024), 632_076_800),  # OpenCLIP's ViT-H/14
        # The next are counted by transformers' own classes, mask tokens left out.
        (ViTConfig(224, 16, 768, 12, 12, 3072, "gelu_tanh", **SIGLIP, pool_heads=12), 92_884_224),
        (ViTConfig(384, 14, 1152, 27, 16, 4304, "gelu_tanh", **SIGLIP, pool_heads=16), 428_225_600),  # SO400M/14
        (ViTConfig(518, 14, 768, 12, 12, 3072, "gelu", **DINO), 86_579_712),
        (ViTConfig(518, 14, 1024, 24, 16, 4096, "gelu", **DINO, registers=4), 304_371_712),
        (ViTConfig(518, 14, 1536, 40, 24, 4096, "swiglu", **DINO), 1_136_479_232),
        (ViTConfig(224, 16, 1024, 24, 16, 4096, "gelu", **DINO, **DINO3, registers=4), 303_128_576),
    ],
)
def test_parameter_counts_are_the_published_ones(config: ViTConfig | MobileNetV2Config, parameters: int):
    assert count(config) == parameters


# As timm lists them, with a classifier of 1,000 classes.
EFFICIENT = {"b0": 5_288_548, "b1": 7_794_184, "b2": 9_109_994, "b3": 12_233_232, "b4": 19_341_616, "b5": 30_389_784}
EFFICIENT |= {"b6": 43_040_704, "b7": 66_347_960, "v2_s": 21_458_488, "v2_m": 54_139_356, "v2_l": 118_515_272}
CONVNEXT = {"tiny": 28_589_128, "small": 50_223_688, "base": 88_591_464, "large": 197_767_336, "xlarge": 350_196_968}


@pytest.mark.parametrize("name", sorted(EFFICIENT))
def test_efficientnets_have_the_published_sizes(name: str):
    config = EFFICIENTNETS[name]
    assert count(config) + 1000 * (config.features + 1) == EFFICIENT[name]


# As timm lists them, with a classifier of 1,000 classes.
RESNET = {"18": 11_689_512, "34": 21_797_672, "50": 25_557_032, "101": 44_549_160, "152": 60_192_808}
MOBILENET_V4 = {"small": 3_774_024, "medium": 9_715_512, "large": 32_590_864}


@pytest.mark.parametrize(
    ("config", "parameters"),
    [
        *((RESNETS[name], count) for name, count in RESNET.items()),
        *((MOBILENETS_V4[name], count) for name, count in MOBILENET_V4.items()),
        # eva02_base_patch14_448
        (ViTConfig(448, 14, 768, 12, 12, 2048, "swiglu", **EVA, norm_mlp=True, norm_pooled=True), 87_117_544),
    ],
)
def test_towers_have_the_sizes_that_timm_lists(config: Tower, parameters: int):
    assert count(config) + 1000 * (config.features + 1) == parameters


@pytest.mark.parametrize("name", sorted(CONVNEXT))
def test_convnexts_have_the_published_sizes(name: str):
    config = CONVNEXTS[f"convnext_{name}"]
    assert count(config) + 1000 * (config.features + 1) == CONVNEXT[name]


@pytest.mark.parametrize(
    ("name", "size", "blocks"),  # `depthwise_padding` of google's configs for transformers
    [
        ("b0", 224, []),
        ("b1", 240, [16]),
        ("b2", 260, [5, 8, 16]),
        ("b3", 300, [5, 18]),
        ("b4", 380, [6]),
        ("b5", 456, [13, 27]),
        ("b6", 528, [31]),
        ("b7", 600, [18]),
    ],
)
def test_at_its_own_size_tensorflows_padding_is_late_but_for_the_published_blocks(
    name: str, size: int, blocks: list[int]
):
    """So that the fixed padding of transformers and TensorFlow's, which looks at the map, agree there."""
    found = []
    for number, block in enumerate(EFFICIENTNETS[name].plan(), start=-1):
        for conv in block.convs:
            around = pads(size, conv.kernel, conv.stride, 1, conv.padding)
            if conv.stride == 2 and around == pads(size, conv.kernel, 2, 1, "symmetric"):
                found.append(number)
            elif conv.stride == 2:
                assert around == pads(size, conv.kernel, 2, 1, "late")
            size = (size + sum(around) - conv.kernel) // conv.stride + 1
    assert found == blocks


@pytest.mark.parametrize(
    ("multiplier", "fine", "channels"), [(1.4, True, 1792), (0.35, True, 1280), (0.35, False, 448), (1.0, False, 1280)]
)
def test_mobilenet_output_channels(multiplier: float, fine: bool, channels: int):
    assert MobileNetV2Config(multiplier=multiplier, fine_output=fine).features == channels


@pytest.mark.parametrize(("stride", "expected"), [(8, 8), (16, 16), (32, 32)])
def test_output_stride_is_the_product_of_strides(stride: int, expected: int):
    convs = [c for block in MobileNetV2Config(output_stride=stride).plan() for c in block.convs]
    assert math.prod(c.stride for c in convs) == expected
    assert max(c.dilation for c in convs) == 32 // expected


def test_the_convnet_stays_small():
    assert 300_000 < count(ConvNetConfig()) < 1_000_000


@pytest.mark.parametrize(
    ("size", "patch", "stride", "side"), [(384, 14, None, 27), (224, 16, 16, 14), (290, 14, 12, 24), (224, 16, 8, 27)]
)
def test_patches_that_fit(size: int, patch: int, stride: int | None, side: int):
    config = ViTConfig(size, patch, 32, 1, 2, 8, "gelu", stride=stride, registers=3)
    assert (config.grid, config.tokens, shapes_of(config)["position"]) == (side, side**2 + 4, (side**2 + 1, 32))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"patch": 40}, "patches of 40 px"),
        ({"stride": 9}, "9 px apart"),
        ({"stride": 0}, "0 px apart"),
        ({"heads": 5}, "among 5 heads"),
        ({"pool_heads": 5}, "among 5 heads"),
        ({"rope": "centred", "heads": 16}, "heads of a multiple of 4, not 2"),
        ({"class_token": False}, "not `all`"),
        ({"rope": "scaled"}, "the side of the grid"),
        ({"activation": "swiglu", "pool_heads": 2}, "no MLP with SwiGLU"),
    ],
)
def test_a_vit_that_can_not_be(change: dict[str, Any], says: str):
    with pytest.raises(EncoderError, match=says):
        ViTConfig(
            **(
                {"size": 32, "patch": 8, "width": 32, "layers": 1, "heads": 2, "hidden": 8}
                | change
                | ({} if "activation" in change else {"activation": "gelu"})
            )
        )

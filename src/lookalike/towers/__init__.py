"""Towers as frozen values, one file a family, each with its forward in the verbs of `ops`. No JAX here."""

from lookalike.towers.convnet import ConvNetConfig as ConvNetConfig
from lookalike.towers.convnext import ConvNeXtConfig as ConvNeXtConfig
from lookalike.towers.efficientnet import EfficientNetConfig as EfficientNetConfig
from lookalike.towers.mobilenet import MobileNetV2Config as MobileNetV2Config
from lookalike.towers.mobilenet_v4 import MobileNetV4Config as MobileNetV4Config
from lookalike.towers.ops import Conv as Conv
from lookalike.towers.ops import Padding as Padding
from lookalike.towers.ops import Pooling as Pooling
from lookalike.towers.ops import pads as pads
from lookalike.towers.parts import NORM_PARTS as NORM_PARTS
from lookalike.towers.parts import Bottleneck as Bottleneck
from lookalike.towers.resnet import ResNetConfig as ResNetConfig
from lookalike.towers.swin import SwinConfig as SwinConfig
from lookalike.towers.vit import ViTConfig as ViTConfig

Tower = (
    ViTConfig
    | MobileNetV2Config
    | ConvNetConfig
    | ConvNeXtConfig
    | EfficientNetConfig
    | SwinConfig
    | ResNetConfig
    | MobileNetV4Config
)
"""The kinds of tower: this union is the table."""

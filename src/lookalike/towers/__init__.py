"""Towers as frozen values, each with its forward in the verbs of `ops`. No JAX here."""

from lookalike.towers.convnext import ConvNeXtConfig as ConvNeXtConfig
from lookalike.towers.inverted import EfficientNetConfig as EfficientNetConfig
from lookalike.towers.inverted import MobileNetV2Config as MobileNetV2Config
from lookalike.towers.inverted import MobileNetV4Config as MobileNetV4Config
from lookalike.towers.ops import Pooling as Pooling
from lookalike.towers.plans import ConvNetConfig as ConvNetConfig
from lookalike.towers.plans import ResNetConfig as ResNetConfig
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

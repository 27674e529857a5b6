"""The shape of each tower, as frozen values that know every tensor's name and shape, one file a family. No JAX here.

A tower turns a normalised square image into tokens: patches of a ViT, positions of the last map of a convolutional
one. Weights are [in, out] (`x @ W`), convolution kernels [height, width, in, out].
"""

from lookalike.towers.convnet import ConvNetConfig as ConvNetConfig
from lookalike.towers.convnext import ConvNeXtConfig as ConvNeXtConfig
from lookalike.towers.efficientnet import EfficientNetConfig as EfficientNetConfig
from lookalike.towers.mobilenet import MobileNetV2Config as MobileNetV2Config
from lookalike.towers.parts import NORM_PARTS as NORM_PARTS
from lookalike.towers.parts import Bottleneck as Bottleneck
from lookalike.towers.parts import Conv as Conv
from lookalike.towers.parts import Padding as Padding
from lookalike.towers.parts import Shapes as Shapes
from lookalike.towers.parts import pads as pads
from lookalike.towers.swin import SwinConfig as SwinConfig
from lookalike.towers.vit import ViTConfig as ViTConfig

Tower = ViTConfig | MobileNetV2Config | ConvNetConfig | ConvNeXtConfig | EfficientNetConfig | SwinConfig
"""The kinds of tower: this union is the table."""

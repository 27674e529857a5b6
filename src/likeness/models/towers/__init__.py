"""The shape of each tower, as frozen values that know every tensor's name and shape, one file a family. No JAX here.

A tower turns a normalised square picture into tokens: patches of a ViT, positions of the last map of a convolutional
one. Weights are [in, out] (`x @ W`), convolution kernels [height, width, in, out].
"""

from likeness.models.towers.convnet import ConvNetConfig as ConvNetConfig
from likeness.models.towers.convnext import ConvNeXtConfig as ConvNeXtConfig
from likeness.models.towers.efficientnet import EfficientNetConfig as EfficientNetConfig
from likeness.models.towers.mobilenet import MobileNetV2Config as MobileNetV2Config
from likeness.models.towers.parts import NORM_PARTS as NORM_PARTS
from likeness.models.towers.parts import Bottleneck as Bottleneck
from likeness.models.towers.parts import Conv as Conv
from likeness.models.towers.parts import Padding as Padding
from likeness.models.towers.parts import Shapes as Shapes
from likeness.models.towers.parts import pads as pads
from likeness.models.towers.swin import SwinConfig as SwinConfig
from likeness.models.towers.vit import ViTConfig as ViTConfig

Tower = ViTConfig | MobileNetV2Config | ConvNetConfig | ConvNeXtConfig | EfficientNetConfig | SwinConfig
"""The kinds of tower: this union is the table."""

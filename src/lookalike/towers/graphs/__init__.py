"""A tower and its pooling as an ONNX graph, written by hand, for CPUs, one file a family. No JAX here.

Standard operators alone, each the largest that fits (Attention, LayerNormalization, Gelu, Gemm), so that a runtime
has little left to fuse. What is constant is folded on the way: normalising into the first layer, batch norms into
their convolutions, the attention's last block into the class token where no other token is looked at.
"""

from collections.abc import Mapping

import numpy as np
import onnx

from lookalike.encoders.config import EncoderConfig
from lookalike.towers import ConvNetConfig, ConvNeXtConfig, EfficientNetConfig, MobileNetV2Config, SwinConfig, ViTConfig
from lookalike.towers.graphs.convnext import convnext
from lookalike.towers.graphs.convs import convnet, mobilenet, pooled
from lookalike.towers.graphs.efficientnet import efficientnet
from lookalike.towers.graphs.graph import Graph
from lookalike.towers.graphs.swin import swin
from lookalike.towers.graphs.vit import vit


def build(config: EncoderConfig, tensors: Mapping[str, np.ndarray], int8: bool = False) -> onnx.ModelProto:
    """The graph `images` uint8 [B S S 3] -> `features` float32 [B F], as `Encoder.features` computes them.

    Args:
        config: The encoder's config; mirror and projection take no part.
        tensors: Those of `tensor_shapes(config)`, by name.
        int8: Whether large matrix products go by whole numbers of eight bits: a third of the time on processors that
            have instructions for it, for a cosine of about .9996 (ViT-B/16).
    """
    graph = Graph(int8)
    tower = {name.removeprefix("tower."): t for name, t in tensors.items() if name.startswith("tower.")}
    match config.tower:
        case ViTConfig():
            features = vit(graph, config.tower, tower, config.preprocess, config.pooling)
        case MobileNetV2Config():
            features = pooled(graph, mobilenet(graph, config.tower, tower, config.preprocess), config.pooling)
        case ConvNetConfig():
            features = pooled(graph, convnet(graph, config.tower, tower, config.preprocess), config.pooling)
        case ConvNeXtConfig():
            features = convnext(graph, config.tower, tower, config.preprocess)
        case EfficientNetConfig():
            features = pooled(graph, efficientnet(graph, config.tower, tower, config.preprocess), config.pooling)
        case SwinConfig():
            features = swin(graph, config.tower, tower, config.preprocess)
    side = config.preprocess.size
    return graph.model(features, ["B", side, side, 3], ["B", config.tower.features])

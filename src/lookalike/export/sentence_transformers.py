"""A directory that sentence-transformers loads: the tower as transformers has it, then its own Normalize and Dense."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from lookalike.core.errors import EncoderError
from lookalike.core.files import write_json
from lookalike.encoders.config import EncoderConfig, ProjectionConfig, Tensors
from lookalike.encoders.directory import read_safetensors
from lookalike.export.parts import Export, Target, Written
from lookalike.export.transformers import held
from lookalike.published.layout import write_layout, write_tensors
from lookalike.published.processors import write_processor
from lookalike.towers import ViTConfig
from lookalike.towers.programs.declare import shapes_of

_MODULES = "sentence_transformers.base.modules"
_KEYS = {"module_input_name": "sentence_embedding", "module_output_name": "sentence_embedding"}

_CODE = """from sentence_transformers import SentenceTransformer

model = SentenceTransformer('.', processor_kwargs={'backend': 'pil'})

def embed(path):
    return model.encode(path)
"""


def write(export: Export, directory: Path) -> Written:
    """The model's own files, `modules.json`, and a folder for each further step."""
    _refuse(export.config)
    write_processor(export.config.preprocess, directory)
    own = _without_head(export.config)
    tower = {f"tower.{name}": export.tensors[f"tower.{name}"] for name in shapes_of(own.tower)}
    layout, described, bare, named = held(own, tower)
    config = export.config if bare.tower == own.tower else replace(export.config, tower=bare.tower)
    if layout.features(bare) != "pooler_output":
        raise EncoderError(
            f"sentence-transformers takes one output of {described['architectures'][0]}, and none is pooled by "
            f"{config.pooling!r}.",
            hint="`--to onnx` takes every encoder",
        )
    _, found = write_layout(layout, described, bare, named, directory)
    modules = [{"idx": 0, "name": "0", "path": "", "type": f"{_MODULES}.transformer.Transformer"}]
    for i, owner in enumerate(_steps(config), start=1):
        kind = "Dense" if owner else "Normalize"
        modules.append({"idx": i, "name": str(i), "path": f"{i}_{kind}", "type": f"{_MODULES}.{kind.lower()}.{kind}"})
        found |= _write_step(owner, export.tensors, directory / f"{i}_{kind}")
    write_json(directory / "modules.json", modules)
    taken = {"method": "forward", "method_output_name": "pooler_output"}
    words = {"transformer_task": "feature-extraction", "modality_config": {"image": taken}}
    write_json(directory / "sentence_bert_config.json", {**words, "module_output_name": "sentence_embedding"})
    write_json(
        directory / "config_sentence_transformers.json",
        {"model_type": "SentenceTransformer", "prompts": {}, "similarity_fn_name": "cosine"},
    )
    keeps = (
        "Tower, image processor, projection and unit length are modules of sentence-transformers, which opens the file "
        "itself: of an image with transparency it takes the colors beneath, so lay that on white before."
    )
    return Written(_CODE, keeps, read_back=(config, found))


def _steps(config: EncoderConfig) -> list[str]:
    """What follows the tower: the owner of a matrix, or "" for unit length."""
    head = isinstance(config.tower, ViTConfig) and config.tower.head is not None
    linear = config.projection.kind == "linear"
    return [
        *(["tower.head"] if head else []),
        *([""] if linear and config.projection.l2_normalize_input else []),
        *(["projection"] if linear else []),
        "",
    ]


def _write_step(owner: str, tensors: Mapping[str, np.ndarray], directory: Path) -> Tensors:
    """One module; returns the tensors that were written, under our names, as they are read back."""
    directory.mkdir()
    if not owner:
        write_json(directory / "config.json", _KEYS)
        return {}
    weight, bias = tensors[f"{owner}.weight"], tensors.get(f"{owner}.bias")
    size: dict[str, Any] = {"in_features": weight.shape[0], "out_features": weight.shape[1], "bias": bias is not None}
    write_json(directory / "config.json", {**size, "activation_function": "torch.nn.modules.linear.Identity", **_KEYS})
    arrays = {"linear.weight": np.ascontiguousarray(weight.T)} | ({} if bias is None else {"linear.bias": bias})
    write_tensors(directory / "model.safetensors", arrays)
    back = read_safetensors(directory / "model.safetensors")
    read = {f"{owner}.weight": np.ascontiguousarray(back["linear.weight"].T)}
    return read if bias is None else read | {f"{owner}.bias": back["linear.bias"]}


def _without_head(config: EncoderConfig) -> EncoderConfig:
    """The tower up to its pooling, which is what the library takes from the model's class."""
    tower = config.tower
    if not isinstance(tower, ViTConfig) or tower.head is None:
        return config
    bare = replace(tower, head=None, head_bias=False)
    return replace(config, tower=bare, projection=ProjectionConfig("identity", bare.features, bare.features))


def _refuse(config: EncoderConfig) -> None:
    """EncoderError for what none of the library's modules does."""
    preprocess = config.preprocess
    if config.mirror:
        raise EncoderError(
            "This encoder takes the mean with the mirror image, for which sentence-transformers has no module.",
            hint="`--to onnx` takes every encoder",
        )
    if preprocess.mode == "pad" or not preprocess.antialias:
        how = "pads images to a square" if preprocess.mode == "pad" else "resizes without antialiasing"
        raise EncoderError(
            f"This encoder {how}, for which no image processor of transformers has a setting.",
            hint="`--to onnx` takes every encoder",
        )


TARGET = Target(write, "sentence-transformers", reads=("sentence_transformers", "torch", "transformers"))

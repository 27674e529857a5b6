"""A directory that sentence-transformers loads: the tower as transformers has it, then its own Normalize and Dense."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from lookalike.core.files import write_json
from lookalike.encoders.config import ProjectionConfig, Tensors
from lookalike.encoders.directory import read_safetensors
from lookalike.published.layout import write_layout, write_tensors
from lookalike.published.processors import write_processor
from lookalike.targets.parts import Export, Target, Written, refused
from lookalike.targets.published import in_transformers
from lookalike.towers import ViTConfig
from lookalike.towers.ops import shapes_of

_MODULES = "sentence_transformers.base.modules"
_KEYS = {"module_input_name": "sentence_embedding", "module_output_name": "sentence_embedding"}
_CODE = """from sentence_transformers import SentenceTransformer

model = SentenceTransformer('.', processor_kwargs={'backend': 'pil'})

def embed(path):
    return model.encode(path)
"""
_KEEPS = (
    "Tower, image processor, projection and unit length are modules of sentence-transformers, which opens the file "
    "itself: of an image with transparency it takes the colors beneath, so lay that on white before."
)


def write(export: Export, directory: Path) -> Written:
    """The model's own files, `modules.json`, and a folder for each further step."""
    config, preprocess = export.config, export.config.preprocess
    for what, so in {
        "takes the mean with the mirror image": config.mirror,
        "takes the mean with the enlarged center": bool(config.zooms),
        "pads images to a square": preprocess.mode == "pad",
        "resizes without antialiasing": not preprocess.antialias,
    }.items():
        if so:
            raise refused(f"This encoder {what}, for which sentence-transformers has no module.")
    write_processor(preprocess, directory)
    steps = ["projection", ""] if config.projection.kind == "linear" else [""]  # the owner of a matrix; "": unit length
    if steps[1:] and config.projection.l2_normalize_input:
        steps.insert(0, "")
    bare = config
    if isinstance(config.tower, ViTConfig) and config.tower.head is not None:
        steps.insert(0, "tower.head")  # the library takes the tower up to its pooling from the model's class
        tower = replace(config.tower, head=None, head_bias=False)
        bare = replace(config, tower=tower, projection=ProjectionConfig("identity", tower.features, tower.features))
    given = {f"tower.{name}": export.tensors[f"tower.{name}"] for name in shapes_of(bare.tower)}
    (layout, described, theirs, tensors), name, features = in_transformers(bare, given)
    if features != "pooler_output":
        raise refused(f"sentence-transformers takes one output of {name}, and none is pooled by {config.pooling!r}.")
    _, found = write_layout(layout, described, theirs, tensors, directory)
    modules = [{"idx": 0, "name": "0", "path": "", "type": f"{_MODULES}.transformer.Transformer"}]
    for i, owner in enumerate(steps, start=1):
        kind = "Dense" if owner else "Normalize"
        modules.append({"idx": i, "name": str(i), "path": f"{i}_{kind}", "type": f"{_MODULES}.{kind.lower()}.{kind}"})
        found |= _write_step(owner, export.tensors, directory / f"{i}_{kind}")
    write_json(directory / "modules.json", modules)
    taken = {"method": "forward", "method_output_name": "pooler_output"}
    words = {"transformer_task": "feature-extraction", "modality_config": {"image": taken}}
    write_json(directory / "sentence_bert_config.json", {**words, "module_output_name": "sentence_embedding"})
    usual = {"model_type": "SentenceTransformer", "prompts": {}, "similarity_fn_name": "cosine"}
    write_json(directory / "config_sentence_transformers.json", usual)
    whole = config if theirs.tower == bare.tower else replace(config, tower=theirs.tower)
    return Written(_CODE, _KEEPS, (whole, found))


def _write_step(owner: str, tensors: Mapping[str, np.ndarray], directory: Path) -> Tensors:
    """One module; its tensors under our names, as they are read back."""
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
    return {f"{owner}.{name.removeprefix('linear.')}": np.ascontiguousarray(array.T) for name, array in back.items()}


TARGET = Target(write, "sentence-transformers", reads=("sentence_transformers", "torch", "transformers"))

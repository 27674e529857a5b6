"""DINOv3's ViTs as transformers saves them: every block, gradients, and what the comparison would notice."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from lookalike.core.errors import EncoderError
from lookalike.imaging.preprocess import Preprocess
from lookalike.published.layout import export_tensors
from lookalike.published.layouts import WEIGHTS, read_published

pytestmark = pytest.mark.reference("torch", "transformers")

SMALL = {"hidden_size": 32, "intermediate_size": 44, "num_hidden_layers": 2, "num_attention_heads": 4}
SMALL |= {"image_size": 40, "patch_size": 8, "num_register_tokens": 3}
PROCESSOR = {"image_processor_type": "DINOv3ViTImageProcessorFast", "resample": 2, "rescale_factor": 1 / 255}
PROCESSOR |= {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}


def saved(parity: Any, path: Path, size: int = 40, **options: Any) -> Any:
    from transformers.models.dinov3_vit.configuration_dinov3_vit import DINOv3ViTConfig
    from transformers.models.dinov3_vit.modeling_dinov3_vit import DINOv3ViTModel

    model = DINOv3ViTModel(DINOv3ViTConfig(**(SMALL | options)))
    return parity.save(model, path, PROCESSOR | {"size": {"height": size, "width": size}})


@pytest.mark.parametrize(
    ("size", "options"),
    [
        (40, {}),
        (61, {"use_gated_mlp": True, "hidden_act": "silu", "query_bias": False, "value_bias": False}),
        (48, {"num_register_tokens": 0}),
    ],
)
def test_every_block_equals_transformers(parity: Any, tmp_path: Path, size: int, options: dict[str, Any]):
    model = saved(parity, tmp_path, size, **options)
    layout, config, tensors = read_published(tmp_path)
    assert (layout, config.pooling) == ("dinov3_vit", "class")
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    assert config.preprocess == Preprocess(size, "squash", size, "bilinear", mean, std)
    parity.check(config, tensors, parity.blocks(model), half=not options)
    theirs = load_file(tmp_path / "model.safetensors")
    ours = export_tensors(WEIGHTS["dinov3_vit"], config, tensors)
    assert ours.keys() == theirs.keys()
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours if "mask_token" not in name)
    assert ours["embeddings.mask_token"].shape == theirs["embeddings.mask_token"].shape


def test_gradients_and_what_the_check_would_notice(parity: Any, tmp_path: Path):
    model = saved(parity, tmp_path)
    _, config, tensors = read_published(tmp_path)

    def layers(part: str) -> np.ndarray:
        return np.stack([getattr(layer.attention, part).weight.grad.numpy().T for layer in model.model.layer])

    first = model.model.layer[0]
    named = {
        "registers": (model.embeddings.register_tokens, lambda g: g[0]),
        "blocks.attention.out.weight": (first.attention.o_proj.weight, lambda _: layers("o_proj")),
        "blocks.attention.qkv.weight": (
            first.attention.q_proj.weight,
            lambda _: np.concatenate([layers(f"{part}_proj") for part in "qkv"], axis=2),
        ),
    }
    parity.check_slopes(config, tensors, parity.blocks(model), named)
    changes = {
        "GELU": {"activation": "gelu_tanh"},
        "eps": {"eps": 1e-3},
        "heads": {"heads": 2},
        "no layer scale": {"layer_scale": False},
        "no registers": {"registers": 0},
        "no rotation": {"rope": "none"},
        "rotated by the number of the patch": {"rope": "counted"},
        "rotated at another speed": {"rope_theta": 10.0},
    }
    half = 4
    turned = np.concatenate([np.roll(np.arange(8 * h, 8 * h + 8), half // 2) for h in range(8)])
    name = "tower.blocks.attention.qkv.weight"
    columns = np.concatenate([turned, np.arange(64, 96)])
    mutated = {"row and column exchanged": {name: tensors[name][:, :, columns]}}
    parity.check_mutations(config, tensors, parity.blocks(model), changes, mutated)


def test_names_of_another_writer(parity: Any, tmp_path: Path):
    saved(parity, tmp_path)
    _, config, tensors = read_published(tmp_path)
    file = tmp_path / "model.safetensors"
    save_file({f"model.{n}" if n.startswith("layer.") else n: t for n, t in load_file(file).items()}, file)
    _, again, same = read_published(tmp_path)
    assert again == config
    assert all(np.array_equal(same[name], tensors[name]) for name in tensors)


def test_what_is_not_known_is_refused(parity: Any, tmp_path: Path):
    saved(parity, tmp_path)
    described = json.loads((tmp_path / "config.json").read_text())
    for change in ({"hidden_act": "relu"}, {"query_bias": False}, {"mlp_bias": False}):
        (tmp_path / "config.json").write_text(json.dumps(described | change))
        with pytest.raises(EncoderError, match="not one that is known"):
            read_published(tmp_path)

"""ConvNeXt and DINOv3's as transformers saves them: every stage, gradients, and what the comparison would notice."""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from lookalike.core.errors import EncoderError
from lookalike.published.layout import export_tensors
from lookalike.published.layouts import WEIGHTS, read_published
from lookalike.towers.programs import jax as program

pytestmark = pytest.mark.reference("torch", "transformers")

SMALL: dict[str, Any] = {"hidden_sizes": [16, 24], "depths": [1, 2], "num_stages": 2}
STATISTICS = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}


def saved(path: Path, size: int, dinov3: bool = False, classifier: bool = False, **options: Any) -> Any:
    """A model with random weights, and its preprocessing, as transformers writes them."""
    import torch
    from transformers.models.convnext.configuration_convnext import ConvNextConfig
    from transformers.models.convnext.modeling_convnext import ConvNextForImageClassification, ConvNextModel
    from transformers.models.dinov3_convnext.configuration_dinov3_convnext import DINOv3ConvNextConfig
    from transformers.models.dinov3_convnext.modeling_dinov3_convnext import DINOv3ConvNextModel

    processor: dict[str, Any]
    if dinov3:
        options = {k: v for k, v in SMALL.items() if k != "num_stages"} | options
        model: Any = DINOv3ConvNextModel(DINOv3ConvNextConfig(**options))
        processor = {"image_processor_type": "DINOv3ViTImageProcessor", "resample": 2}
        processor["size"] = {"height": size, "width": size}
    else:
        config = ConvNextConfig(**SMALL | options)
        model = (ConvNextForImageClassification if classifier else ConvNextModel)(config)
        processor = {"image_processor_type": "ConvNextImageProcessor", "resample": 3, "crop_pct": 0.875}
        processor["size"] = {"shortest_edge": size}
    generator = torch.Generator().manual_seed(5)
    for name, tensor in model.eval().named_parameters():
        noise = torch.randn(tensor.shape, generator=generator)
        if tensor.ndim > 1:
            tensor.data = 1.5 * noise * tensor[0].numel() ** -0.5
        else:  # norms, scales, biases
            tensor.data = 0.2 * noise + 0.7 * name.endswith(("weight", "gamma", "layer_scale_parameter"))
        if "patch_embeddings" in name or "stages.0.downsample_layers.0" in name:
            tensor.data *= 0.01  # so that eps counts in the norm behind it
    model.save_pretrained(path)
    (path / "preprocessor_config.json").write_text(json.dumps(processor | STATISTICS))
    return model.convnext if classifier else model


def blocks(model: Any) -> Any:
    def run(pixels: Any) -> tuple[list[Any], Any]:
        out = model(pixels, output_hidden_states=True)
        return [m.permute(0, 2, 3, 1) for m in out.hidden_states[-2:]], out.pooler_output

    return run


@pytest.mark.parametrize(
    ("layout", "size", "options"),
    [
        ("convnext", 48, {}),
        ("convnext", 61, {"layer_scale_init_value": 0.0, "patch_size": 3, "layer_norm_eps": 1e-3}),
        ("dinov3_convnext", 55, {"layer_norm_eps": 1e-4}),
    ],
)
def test_every_stage_equals_transformers(
    map_parity: Any, tmp_path: Path, layout: str, size: int, options: dict[str, Any]
):
    """61 and 55 px: what is beyond whole patches is left out, in the image and between stages."""
    model = saved(tmp_path, size, layout == "dinov3_convnext", **options)
    found, config, tensors = read_published(tmp_path)
    assert (found, config.pooling) == (layout, "mean")
    assert config.preprocess.resize == (int(size / 0.875) if layout == "convnext" else size)
    map_parity.check(config, tensors, blocks(model), half=layout == "dinov3_convnext")
    theirs = load_file(tmp_path / "model.safetensors")
    ours = export_tensors(WEIGHTS[layout], config, tensors)
    ours = {name.removeprefix("convnext."): tensor for name, tensor in ours.items()}
    assert ours.keys() == theirs.keys()
    assert all(np.array_equal(ours[name], theirs[name]) for name in theirs)


def test_the_comparison_would_notice_another_tower(map_parity: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    model = saved(tmp_path, 48)
    _, config, tensors = read_published(tmp_path)
    changes = {"a wrong eps": {"eps": 1e-5}, "a wrong last eps": {"last_eps": 1e-3}}
    mutated = {"no layer scale": {n: np.ones_like(t) for n, t in tensors.items() if n.endswith(".scale")}}
    map_parity.check_mutations(config, tensors, blocks(model), changes, mutated)
    theirs = map_parity.theirs(config, blocks(model))
    monkeypatch.setitem(program._KINDS, "gelu", program._KINDS["gelu_tanh"])
    jax.clear_caches()  # what is compiled already would not see the change, and what is compiled now must not stay
    assert map_parity.worst(map_parity.ours(config, tensors), theirs) > 1e-4
    jax.clear_caches()


def test_slopes_equal_transformers(map_parity: Any, tmp_path: Path):
    model = saved(tmp_path, 32)
    _, config, tensors = read_published(tmp_path)

    def stacked(name: str, turn: Any) -> tuple[Any, Any]:
        theirs = [layer.get_parameter(name) for layer in model.encoder.stages[1].layers]
        return theirs[0], lambda _: np.stack([turn(parameter.grad.numpy()) for parameter in theirs])

    named = {
        "stages.1.blocks.depthwise.conv.weight": stacked("dwconv.weight", lambda a: a.transpose(2, 3, 1, 0)),
        "stages.1.blocks.scale": stacked("layer_scale_parameter", lambda a: a),
        "norm_post.weight": (model.layernorm.weight, lambda a: a),
    }
    map_parity.check_slopes(config, tensors, blocks(model), named)


def test_a_classifier_is_left_out(tmp_path: Path):
    saved(tmp_path, 48, classifier=True)
    _, config, tensors = read_published(tmp_path)
    theirs = load_file(tmp_path / "model.safetensors")
    ours = export_tensors(WEIGHTS["convnext"], config, tensors)
    assert ours.keys() == {name for name in theirs if "classifier" not in name}


def test_names_that_transformers_has_in_memory_are_read_too(tmp_path: Path):
    saved(tmp_path, 48, dinov3=True)
    _, _, tensors = read_published(tmp_path)
    theirs = load_file(tmp_path / "model.safetensors")
    save_file(
        {name.replace("stages.", "model.stages."): t for name, t in theirs.items()}, tmp_path / "model.safetensors"
    )
    _, _, again = read_published(tmp_path)
    assert all(np.array_equal(again[name], t) for name, t in tensors.items())


def test_faults_are_named(tmp_path: Path):
    saved(tmp_path, 48)
    file, name = tmp_path / "model.safetensors", "encoder.stages.1.layers.0.pwconv1.weight"
    good = load_file(file)
    save_file({n: t for n, t in good.items() if n != name}, file)
    with pytest.raises(EncoderError, match=f"`{name}` is missing"):
        read_published(tmp_path)
    save_file(good, file)
    config = json.loads((tmp_path / "config.json").read_text())
    for change, words in (({"hidden_act": "relu"}, "hidden_act='relu'"), ({"num_stages": 3}, "num_stages=3")):
        (tmp_path / "config.json").write_text(json.dumps(config | change))
        with pytest.raises(EncoderError, match=words):
            read_published(tmp_path)

"""MobileNetV2 as transformers saves it: every block against theirs, random and trained weights."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from lookalike.core.errors import EncoderError
from lookalike.encoders.config import EncoderConfig, Tensors, below
from lookalike.encoders.encoder import Encoder
from lookalike.published.layout import export_tensors
from lookalike.published.layouts import WEIGHTS, read_published
from lookalike.towers import MobileNetV2Config
from lookalike.towers.ops import Value
from lookalike.towers.plans import Bottleneck
from lookalike.towers.programs.jax import Jax

PROCESSOR = {"size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 224}, "resample": 2}
PROCESSOR |= {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.5, 0.4, 0.3]}


def saved(path: Path, classifier: bool = False, **options: Any) -> Any:
    """A transformers model with random weights and statistics, in `path` as transformers writes it."""
    import torch
    from transformers.models.mobilenet_v2.configuration_mobilenet_v2 import MobileNetV2Config
    from transformers.models.mobilenet_v2.modeling_mobilenet_v2 import (
        MobileNetV2ForImageClassification,
        MobileNetV2Model,
    )

    config = MobileNetV2Config(**options)
    model = (MobileNetV2ForImageClassification if classifier else MobileNetV2Model)(config).eval()
    generator = torch.Generator().manual_seed(5)
    for name, tensor in model.state_dict().items():
        if name.endswith("convolution.weight"):
            tensor.copy_(torch.randn(tensor.shape, generator=generator) * (2 / tensor[0].numel()) ** 0.5)
        elif name.endswith(("running_var", "normalization.weight")):
            tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
        elif name.endswith(("running_mean", "normalization.bias")):
            tensor.copy_(0.3 * torch.randn(tensor.shape, generator=generator))
    model.save_pretrained(path)
    (path / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    return model.mobilenet_v2 if classifier else model


def reference_maps(model: Any, images: np.ndarray, config: EncoderConfig) -> list[np.ndarray]:
    """The pixels, the map behind the stem and behind each block, then the features."""
    import torch

    mean, std = np.array(config.preprocess.mean), np.array(config.preprocess.std)
    pixels = ((images / 255 - mean) / std).astype(np.float32)
    given = torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy())
    with torch.no_grad():
        stem = model.conv_stem(given)
        out = model(given, output_hidden_states=True)
    return [pixels, *(h.permute(0, 2, 3, 1).numpy() for h in (stem, *out.hidden_states)), out.pooler_output.numpy()]


def worst(config: EncoderConfig, tensors: Tensors, theirs: list[np.ndarray]) -> float:
    """Largest difference behind any block that is given their map, as a share of that map's largest value."""

    tower = config.tower
    assert isinstance(tower, MobileNetV2Config)
    stem, first, *blocks, last = tower.plan()

    def through(ops: Jax, plan: list[Bottleneck], maps: jax.Array) -> jax.Array:
        def one(x: jax.Array) -> jax.Array:
            y = Value(x.reshape(-1, x.shape[2]), x.shape[0] ** 2, x.shape[2])
            for block in plan:
                y = tower.step(ops, block, y)
            return y.data.reshape(y.side, y.side, -1)

        return jax.vmap(one)(maps)

    def all_blocks(tensors: dict[str, jax.Array], maps: list[jax.Array]) -> list[jax.Array]:
        ops = Jax(tensors, jnp.float32)
        rest = [through(ops, [block], x) for block, x in zip(blocks, maps[1:-2], strict=True)]
        return [through(ops, [stem, first], maps[0]), *rest, through(ops, [last], maps[-2]).mean(axis=(1, 2))]

    own = {name: jnp.asarray(t) for name, t in below("tower", tensors).items()}
    ours = [np.asarray(m) for m in jax.jit(all_blocks)(own, [jnp.asarray(m) for m in theirs])]
    assert [a.shape for a in ours] == [b.shape for b in theirs[1:]]
    return max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in zip(ours, theirs[1:], strict=True))


def pictures(size: int, count: int = 2) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


@pytest.mark.reference("torch", "transformers")
@pytest.mark.parametrize(
    ("size", "options"),
    [
        (65, {"tf_padding": True, "depth_multiplier": 0.35, "output_stride": 8, "expand_ratio": 3.5}),
        (50, {"tf_padding": False, "depth_multiplier": 0.5, "finegrained_output": False, "layer_norm_eps": 1e-5}),
        (64, {"tf_padding": False, "depth_multiplier": 0.6, "output_stride": 16, "first_layer_is_expansion": False}),
        (57, {"tf_padding": True, "depth_multiplier": 0.75, "min_depth": 16, "depth_divisible_by": 4}),
    ],
)
def test_every_block_equals_transformers(tmp_path: Path, size: int, options: dict[str, Any]):
    model = saved(tmp_path, **options)
    _, config, tensors = read_published(tmp_path)
    assert worst(config, tensors, reference_maps(model, pictures(size), config)) <= 1e-5


@pytest.mark.reference("torch", "transformers")
def test_the_check_would_notice_a_wrong_tower(tmp_path: Path):
    model = saved(tmp_path, depth_multiplier=0.35)
    _, config, tensors = read_published(tmp_path)
    theirs = reference_maps(model, pictures(64), config)
    for change in ({"eps": 1e-5}, {"same_padding": False}):
        other = dataclasses.replace(config, tower=dataclasses.replace(config.tower, **change))
        assert worst(other, tensors, theirs) > 1e-4, change


@pytest.mark.reference("torch", "transformers")
@pytest.mark.parametrize("classifier", [False, True])
def test_export_gives_back_every_tensor_to_the_bit(tmp_path: Path, classifier: bool):
    saved(tmp_path, classifier, depth_multiplier=0.35)
    _, config, tensors = read_published(tmp_path)
    theirs = load_file(tmp_path / "model.safetensors")
    theirs = {n: t for n, t in theirs.items() if "classifier" not in n and "num_batches" not in n}
    ours = export_tensors(WEIGHTS["mobilenet_v2"], config, tensors)
    if not classifier:
        ours = {name.removeprefix("mobilenet_v2."): tensor for name, tensor in ours.items()}
    assert ours.keys() == theirs.keys()
    assert all(np.array_equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.reference("torch", "transformers")
def test_faults_are_named(tmp_path: Path):
    saved(tmp_path, depth_multiplier=0.35)
    file, name = tmp_path / "model.safetensors", "layer.3.conv_3x3.convolution.weight"
    good = load_file(file)
    save_file({n: t for n, t in good.items() if n != name}, file)
    with pytest.raises(EncoderError, match=f"`{name}` is missing"):
        read_published(tmp_path)
    save_file({**good, name: good[name][:, 0]}, file)
    with pytest.raises(EncoderError, match="not 4 axes"):
        read_published(tmp_path)
    save_file({**good, name: good[name][:7]}, file)
    with pytest.raises(EncoderError, match=r"`tower\.blocks\.4\.depthwise\.conv\.weight` has shape"):
        read_published(tmp_path)
    save_file(good, file)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"hidden_act": "swish"}))
    with pytest.raises(EncoderError, match="hidden_act='swish'"):
        read_published(tmp_path)


@pytest.fixture(scope="module")
def photographs(data_path: Path) -> list[bytes]:
    """Sixteen real images of different sets, as stored."""
    import tarfile

    found = []
    for archive in sorted(data_path.rglob("*.tar"))[:8]:
        with tarfile.open(archive) as tar:
            members = [m for m in tar if m.isfile() and m.name.endswith(".jpg")]
            found += [f.read() for m in members[:: len(members) // 2][:2] if (f := tar.extractfile(m))]
    return found


@pytest.mark.reference("torch", "transformers")
@pytest.mark.data
def test_the_trained_tower_equals_transformers_from_the_picture_to_the_features(
    data_path: Path, photographs: list[bytes]
):
    """Their image processor and model against our preprocessing and tower, end to end."""
    import io

    import torch
    from PIL import Image
    from transformers.models.mobilenet_v2.image_processing_pil_mobilenet_v2 import MobileNetV2ImageProcessorPil
    from transformers.models.mobilenet_v2.modeling_mobilenet_v2 import MobileNetV2Model

    path = next(data_path.rglob("mobilenet_v2_1.0_224"))
    images = [Image.open(io.BytesIO(data)).convert("RGB") for data in photographs]
    processor = MobileNetV2ImageProcessorPil.from_pretrained(path)
    with torch.no_grad():
        pixels = torch.from_numpy(np.stack([processor(i, return_tensors="np")["pixel_values"][0] for i in images]))
        theirs = MobileNetV2Model.from_pretrained(path).eval()(pixels).pooler_output.numpy()
    _, config, tensors = read_published(path)
    encoder = Encoder.from_parts(config, tensors)
    squares = jnp.asarray(np.stack([config.preprocess(np.asarray(image)) for image in images]))
    ours = np.asarray(jax.jit(Encoder.features)(encoder, squares))
    assert np.abs(ours - theirs).max() / np.abs(theirs).max() <= 1e-5
    half = np.asarray(jax.jit(Encoder.features)(Encoder.from_parts(config, tensors, "bfloat16"), squares))
    for found, least in ((ours, 0.9999), (half, 0.999)):  # transformers' own model in bfloat16: 0.97 on some images
        cosine = (found * theirs).sum(axis=1) / np.linalg.norm(found, axis=1) / np.linalg.norm(theirs, axis=1)
        assert cosine.min() >= least

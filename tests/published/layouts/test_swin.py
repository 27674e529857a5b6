"""Swin transformers as transformers saves them: every block of ours against theirs, on random weights."""

import dataclasses
import json
from collections.abc import Callable
from functools import reduce
from math import isqrt
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
from lookalike.towers import swin
from lookalike.towers.programs import jax as program
from lookalike.towers.programs.jax import features as features_of
from lookalike.towers.programs.jax import seen

MEAN, STD = [0.5, 0.4, 0.3], [0.2, 0.3, 0.4]
SMALL: dict[str, Any] = {"embed_dim": 16, "depths": [3, 2], "num_heads": [2, 4]}
SMALL |= {"image_size": 32, "window_size": 4, "layer_norm_eps": 1e-3}


def saved(path: Path, version: int, kind: str = "Model", size: int = 32, **options: Any) -> Any:
    """A small transformers model with random weights, for images of `size` px, as transformers writes it."""
    import torch
    from transformers.models.swin import configuration_swin, modeling_swin
    from transformers.models.swinv2 import configuration_swinv2, modeling_swinv2

    models: Any = (modeling_swin, modeling_swinv2)[version - 1]
    config = (configuration_swin.SwinConfig, configuration_swinv2.Swinv2Config)[version - 1](**(SMALL | options))
    model = getattr(models, ("Swin", "Swinv2")[version - 1] + kind)(config).eval()
    generator = torch.Generator().manual_seed(7)
    for name, tensor in model.named_parameters():
        tensor.data = drawn(name, tensor.shape, lambda shape: torch.randn(shape, generator=generator))
    model.save_pretrained(path)
    processor = {"image_processor_type": "ViTImageProcessor", "size": {"height": size, "width": size}, "resample": 3}
    (path / "preprocessor_config.json").write_text(json.dumps(processor | {"image_mean": MEAN, "image_std": STD}))
    return getattr(model, ("swin", "swinv2")[version - 1], model)


def drawn(name: str, shape: Any, normal: Callable[[Any], Any]) -> Any:
    """Random values under which all parts count: uneven biases of positions, small patches."""
    if "relative_position_bias_table" in name:
        return normal(shape)
    if "logit_scale" in name:
        return 2.3 + 0.7 * normal(shape)
    if "mlp.2.weight" in name:
        return normal(shape) * 0.1
    if "patch" in name and "norm" not in name:
        return normal(shape) * 0.02  # so that the eps behind it counts
    return (1 if "norm" in name and name.endswith("weight") else 0) + normal(shape) * (
        shape[-1] ** -0.5 if len(shape) > 1 else 0.2
    )


def pictures(size: int) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (2, size, size, 3), dtype=np.uint8)


def pixels(images: np.ndarray) -> Any:
    import torch

    return torch.from_numpy(((images / 255 - MEAN) / STD).astype(np.float32).transpose(0, 3, 1, 2).copy())


def reference_maps(model: Any, images: np.ndarray) -> list[np.ndarray]:
    """The tokens before the first block, behind each block and each merging, then the features; in double precision,
    since torch's own float32 is twice as far from it as ours.
    """
    import torch

    model = model.double()
    found: list[np.ndarray] = []

    def note(_: Any, __: Any, output: Any) -> None:
        tokens = (output[0] if isinstance(output, tuple) else output).numpy()
        side = round(tokens.shape[1] ** 0.5)
        found.append(tokens.reshape(len(tokens), side, side, -1))

    parts = [model.embeddings]
    for layer in model.encoder.layers:
        parts += [*layer.blocks, *([layer.downsample] if layer.downsample is not None else [])]
    hooks = [part.register_forward_hook(note) for part in parts]
    with torch.no_grad():
        features = model(pixels(images).double()).pooler_output.numpy()
    for hook in hooks:
        hook.remove()
    return [*found, features]


def our_maps(config: EncoderConfig, tensors: Tensors, images: np.ndarray) -> list[np.ndarray]:
    """The same, one block after the other."""

    def run(encoder: Encoder, images: jax.Array) -> list[jax.Array]:
        shown = jax.vmap(lambda image: seen(config.tower, "mean", below("tower", encoder.tensors), image))
        maps = (x.reshape(len(x), isqrt(x.shape[1]), -1, x.shape[2]) for x in shown(encoder.normalise(images)))
        return [*maps, encoder.features(images)]

    return [np.asarray(x) for x in jax.jit(run)(Encoder.from_parts(config, tensors), jnp.asarray(images))]


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def worst(ours: list[np.ndarray], theirs: list[np.ndarray]) -> float:
    """Largest difference of any map, as a share of that map's largest value."""
    assert [a.shape for a in ours] == [b.shape for b in theirs]
    return max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.reference("torch", "transformers")
@pytest.mark.parametrize(
    ("version", "size", "kind", "options"),
    [
        (1, 32, "Model", {}),  # maps of 8 and 4: whole windows, and one window that is the map
        (1, 50, "ForImageClassification", {"mlp_ratio": 2.5}),  # 13 and 7: all is padded
        (2, 32, "Model", {}),
        (2, 50, "ForImageClassification", {}),
        # Built for maps of 4 and 2, so that these are its windows on larger maps too.
        (2, 50, "Model", {"image_size": 16, "window_size": 5, "pretrained_window_sizes": [12, 0]}),
    ],
)
def test_every_block_equals_transformers(tmp_path: Path, version: int, size: int, kind: str, options: dict[str, Any]):
    model = saved(tmp_path, version, kind, size, **{"image_size": size} | options)
    layout, config, tensors = read_published(tmp_path)
    assert layout == ("swin", "swinv2")[version - 1]
    images = pictures(size)
    ours, theirs = our_maps(config, tensors, images), reference_maps(model, images)
    assert worst(ours, theirs) <= 1e-5
    assert cosines(ours[-1], theirs[-1]).min() >= 0.99999


def with_eps(config: EncoderConfig, eps: float) -> EncoderConfig:
    return dataclasses.replace(config, tower=dataclasses.replace(config.tower, eps=eps))


def interchanged(tensors: Tensors, name: str) -> Tensors:
    """The second and third neighbour of a merging change places."""
    first, second, third, fourth = np.split(tensors[name], 4)
    return tensors | {name: np.concatenate([first, third, second, fourth])}


Mutation = Callable[[pytest.MonkeyPatch, EncoderConfig, Tensors], tuple[EncoderConfig, Tensors]]
roll, regions, apply = jnp.roll, program.regions, program.Jax.apply

MUTATIONS: dict[str, Mutation] = {
    "no mask": lambda patch, c, t: patch.setattr(program, "regions", lambda *sizes: 0 * regions(*sizes)) or (c, t),
    "other way": lambda patch, c, t: (
        patch.setattr(program.jnp, "roll", lambda x, by, axis: roll(x, (-by[0], -by[1]), axis)) or (c, t)
    ),
    "order of merging": lambda _, c, t: (c, interchanged(t, "tower.stages.0.merge.reduction.weight")),
    "eps": lambda _, c, t: (with_eps(c, 1e-5), t),
    "eps of the patches": lambda patch, c, t: patch.setattr(swin, "EPS_BETWEEN", 1e-3) or (c, t),
    "GELU": lambda patch, c, t: (
        patch.setattr(
            program.Jax, "apply", lambda ops, kind, *x: apply(ops, "quick_gelu" if kind == "gelu" else kind, *x)
        )
        or (c, t)
    ),
}
OF_VERSION_2: dict[str, Mutation] = {
    "no cosine": lambda patch, c, t: patch.setattr(program, "l2_normalize", lambda x: x) or (c, t),
    "no scale": lambda _, c, t: (c, t | {n: 0 * a for n, a in t.items() if n.endswith("logit_scale")}),
    "position MLP": lambda _, c, t: (
        dataclasses.replace(c, tower=dataclasses.replace(c.tower, trained_windows=(6, 6))),
        t,
    ),
}


@pytest.mark.reference("torch", "transformers")
@pytest.mark.parametrize("version", [1, 2])
def test_the_check_would_notice_a_wrong_tower(tmp_path: Path, version: int):
    model = saved(tmp_path, version, depths=[2, 1])
    _, config, tensors = read_published(tmp_path)
    images = pictures(32)
    theirs = reference_maps(model, images)
    assert worst(our_maps(config, tensors, images), theirs) <= 1e-5
    for name, mutation in (MUTATIONS | (OF_VERSION_2 if version == 2 else {})).items():
        with pytest.MonkeyPatch.context() as patch:
            other, mutated = mutation(patch, config, tensors)
            assert worst(our_maps(other, mutated, images), theirs) > 1e-4, name


@pytest.mark.reference("torch", "transformers")
@pytest.mark.parametrize("version", [1, 2])
def test_features_and_gradients_equal_transformers(tmp_path: Path, version: int):
    """Compiled as a whole, with blocks in pairs; gradients with respect to the pixels and to every parameter."""
    import torch

    model = saved(tmp_path, version, depths=[3, 1])
    layout, config, tensors = read_published(tmp_path)
    images = pictures(32)
    weights = np.random.default_rng(5).normal(size=32).astype(np.float32)
    entered = pixels(images).requires_grad_()
    theirs = model(entered).pooler_output
    (theirs * torch.from_numpy(weights)).sum().backward()

    def value(tensors: dict[str, jax.Array], x: jax.Array) -> tuple[jax.Array, jax.Array]:
        features = features_of(config.tower, "mean", {name.removeprefix("tower."): t for name, t in tensors.items()}, x)
        return (features * weights[None]).sum(), features

    prepared = jnp.asarray(entered.detach().permute(0, 2, 3, 1).numpy())
    arrays = {name: jnp.asarray(tensor) for name, tensor in tensors.items()}
    (slopes, by_pixel), features = jax.jit(jax.grad(value, argnums=(0, 1), has_aux=True))(arrays, prepared)
    assert worst([np.asarray(features)], [theirs.detach().numpy()]) <= 1e-5
    ours = export_tensors(WEIGHTS[layout], config, {name: np.asarray(slope) for name, slope in slopes.items()})
    prefix = WEIGHTS[layout].prefixes[0]
    published = published_names(model)
    noise = 1e-6 * max(float(parameter.grad.abs().max()) for parameter in published.values())  # keys' biases have none
    for name, parameter in published.items():
        wanted = parameter.grad.numpy()
        limit = 1e-3 * np.abs(wanted).max() + noise
        np.testing.assert_allclose(ours[prefix + name], wanted, rtol=0, atol=limit, err_msg=name)
    wanted = entered.grad.permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(by_pixel, wanted, rtol=0, atol=1e-3 * np.abs(wanted).max())


def published_names(model: Any) -> dict[str, Any]:
    """Parameters under the names that their files have; the library's own differ since its fifth version."""
    pairs = {"attention.q_proj": "attention.self.query", "attention.k_proj": "attention.self.key"}
    pairs |= {"attention.v_proj": "attention.self.value", "attention.o_proj": "attention.output.dense"}
    pairs |= {"mlp.fc1": "intermediate.dense", "mlp.fc2": "output.dense"}
    pairs |= {"attention.relative_position_bias.": "attention.self."}
    found = {}
    for name, parameter in model.named_parameters():
        found[reduce(lambda name, pair: name.replace(*pair), pairs.items(), name)] = parameter
    return found


@pytest.mark.reference("torch", "transformers")
@pytest.mark.parametrize("version", [1, 2])
def test_bfloat16_stays_near(tmp_path: Path, version: int):
    import torch

    model = saved(tmp_path, version, depths=[3, 1])
    _, config, tensors = read_published(tmp_path)
    with torch.no_grad():
        theirs = model(pixels(pictures(32))).pooler_output.numpy()
    encoder = Encoder.from_parts(config, tensors, "bfloat16")
    ours = np.asarray(jax.jit(lambda e, x: e.features(x))(encoder, jnp.asarray(pictures(32))))
    assert cosines(ours, theirs).min() >= 0.999


@pytest.mark.reference("torch", "transformers")
@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("kind", ["Model", "ForImageClassification", "ForMaskedImageModeling"])
def test_export_gives_back_every_tensor_to_the_bit(tmp_path: Path, version: int, kind: str):
    saved(tmp_path, version, kind)
    layout, config, tensors = read_published(tmp_path)
    theirs = load_file(tmp_path / "model.safetensors")
    ours = export_tensors(WEIGHTS[layout], config, tensors)
    if kind == "Model":  # it writes its names bare; export writes the longer form, which it reads as well
        ours = {name.removeprefix(WEIGHTS[layout].prefixes[0]): tensor for name, tensor in ours.items()}
    kept = {n: t for n, t in theirs.items() if not n.startswith(("classifier", "decoder")) and "mask_token" not in n}
    assert ours.keys() == kept.keys()
    assert all(np.array_equal(ours[name], kept[name]) for name in kept)


@pytest.mark.reference("torch", "transformers")
def test_the_buffers_of_old_files_are_left_out(tmp_path: Path):
    for version in (1, 2):
        saved(tmp_path / str(version), version)
        file = tmp_path / str(version) / "model.safetensors"
        _, config, tensors = read_published(file.parent)
        name = "encoder.layers.0.blocks.0.attention.self.relative_"
        more = {f"{name}position_index": np.zeros((16, 16), np.int64)}
        more |= {f"{name}coords_table": np.zeros((1, 7, 7, 2), np.float32)} if version == 2 else {}
        save_file(load_file(file) | more, file)
        _, again, same = read_published(file.parent)
        assert again == config
        assert all(np.array_equal(same[name], tensors[name]) for name in tensors)


@pytest.mark.reference("torch", "transformers")
def test_what_is_not_supported_is_refused(tmp_path: Path):
    saved(tmp_path, 1)
    described = json.loads((tmp_path / "config.json").read_text())
    for change, words in (
        ({"hidden_act": "relu"}, "hidden_act='relu'; expected gelu"),
        ({"use_absolute_embeddings": True}, "use_absolute_embeddings=True; expected False"),
        ({"qkv_bias": False}, "qkv_bias=False"),
        ({"window_size": 5}, r"attention\.table` has shape \[3, 49, 2\], expected \[3, 81, 2\]"),
        ({"num_heads": [2, 3]}, r"can't be split among \(2, 3\) heads"),
        ({"num_heads": [2]}, "for every stage"),
    ):
        (tmp_path / "config.json").write_text(json.dumps(described | change))
        with pytest.raises(EncoderError, match=words):
            read_published(tmp_path)

"""timm's vision transformers, alone and as trunks of OpenCLIP: files in their key names, and a slow forward in torch.

The slow forward is written from the papers: one image, one head, one token's rotation matrix at a time, in float64.
"""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import onnxruntime
import pytest
from safetensors.numpy import load_file, save_file

from lookalike.core.errors import EncoderError
from lookalike.encoders.config import EncoderConfig, Tensors, below
from lookalike.encoders.encoder import Encoder
from lookalike.encoders.fit import adapt
from lookalike.imaging.preprocess import Preprocess
from lookalike.published.layout import export_tensors
from lookalike.published.layouts import WEIGHTS, read_published
from lookalike.published.layouts.timm_vit import family_of
from lookalike.towers.programs.jax import features as features_of
from lookalike.towers.programs.jax import seen
from lookalike.towers.programs.onnx import build

MEAN, STD = [0.5, 0.4, 0.45], [0.25, 0.3, 0.2]
WIDTH, HEADS, LAYERS, PATCH, GRID, HIDDEN = 48, 4, 2, 6, 4, 80
SIDE = PATCH * GRID


@dataclasses.dataclass(frozen=True)
class Case:
    """One architecture, made small."""

    architecture: str
    pooling: str = "token"
    eps: float = 1e-6
    gelu: str = "gelu"
    token: bool = True
    registers: int = 0
    positions: str = "all"  # patches: the class token has none; none
    norm_pre: bool = False
    bias: str = "qkv"  # qv: queries and values; none
    scale: str = ""  # ls1.gamma or gamma_1
    gate: str = ""  # fc1 holds both, or fc1_g and fc1_x
    rope: str = ""  # halves: DINOv3; neighbours: Perception Encoder; scaled: EVA-02
    norms: tuple[str, ...] = ()  # inside attn and mlp; with them queries, keys and values are apart
    pool_heads: int = 0
    classes: int = 0
    late: bool = False  # the last norm is behind the mean

    @property
    def arguments(self) -> dict[str, Any]:
        """What timm is told beyond the name."""
        pool = {"attn_pool_num_heads": self.pool_heads} if "pe_core" in self.architecture else {}
        rope = {"ref_feat_shape": [GRID, GRID]} if "pe_core" in self.architecture else {}
        return {
            "img_size": SIDE,
            "patch_size": PATCH,
            "embed_dim": WIDTH,
            "depth": LAYERS,
            "num_heads": HEADS,
            "mlp_ratio": 4 / 3 * 1.25 * (2 if self.gate == "fc1" and not self.rope else 1),
            **pool,
            **rope,
        }


CLIP = Case("vit_base_patch16_clip_224", eps=1e-5, norm_pre=True, classes=20)
PE = Case("vit_pe_core_base_patch16_224", "map", 1e-5, norm_pre=True, rope="neighbours", pool_heads=3, classes=20)
DINOV3: dict[str, Any] = {"eps": 1e-5, "registers": 4, "positions": "none", "scale": "gamma_{}", "rope": "halves"}
SIGLIP: dict[str, Any] = {"pooling": "map", "token": False, "positions": "patches", "pool_heads": HEADS}
EVA: dict[str, Any] = {"bias": "qv", "rope": "scaled"}
CASES = {
    "eva02": Case("eva02_tiny_patch14_224", "avg", late=True, gate="fc1", **EVA),
    "eva02_base": Case("eva02_base_patch14_448", "avg", late=True, gate="fc1_g", norms=("mlp",), **EVA),
    "eva02_clip": Case("eva02_large_patch14_clip_336", gate="fc1_g", norms=("attn", "mlp"), classes=20, **EVA),
    "clip": CLIP,
    "clip_quick": dataclasses.replace(CLIP, architecture="vit_huge_patch14_clip_quickgelu_224", gelu="quick"),
    "plain": Case("vit_base_patch16_224", classes=1000),
    "plain_mean": Case("vit_small_patch16_224", "avg", late=True),
    "gap": Case("vit_medium_patch16_gap_256", "avg", token=False, positions="patches", bias="none", scale="ls{}.gamma"),
    "gap_registers": Case(
        *("vit_wee_patch16_reg1_gap_256", "avg"),
        token=False,
        registers=1,
        positions="patches",
        scale="ls{}.gamma",
        late=True,
    ),
    "siglip": Case("vit_base_patch16_siglip_224", **SIGLIP),
    "siglip2": Case("vit_so400m_patch16_siglip_384", gelu="tanh", **SIGLIP),
    "dinov2": Case("vit_giant_patch14_dinov2", scale="ls{}.gamma", gate="fc1"),
    "dinov2_registers": Case("vit_small_patch14_reg4_dinov2", registers=4, positions="patches", scale="ls{}.gamma"),
    "tips": Case("vit_base_patch14_reg1_tipsv2", registers=1, positions="patches", scale="ls{}.gamma"),
    "dinov3": Case("vit_base_patch16_dinov3_qkvb", bias="qv", **DINOV3),
    "dinov3_plus": Case("vit_small_plus_patch16_dinov3", "avg", bias="none", gate="fc1_g", **DINOV3),
    "pe": PE,
    "pe_gigantic": dataclasses.replace(
        PE, architecture="vit_pe_core_gigantic_patch14_448", token=False, positions="patches"
    ),
}


def made(case: Case) -> dict[str, np.ndarray]:
    """Random tensors under timm's names."""
    rng = np.random.default_rng(11)
    tensors: dict[str, np.ndarray] = {}

    def put(name: str, *shape: int, scale: float, centre: float = 0.0) -> None:
        tensors[name] = (centre + scale * rng.normal(size=shape)).astype(np.float32)

    def linear(name: str, out: int, into: int, bias: bool = True) -> None:
        put(f"{name}.weight", out, into, scale=into**-0.5)
        if bias:
            put(f"{name}.bias", out, scale=0.2)

    def norm(name: str, width: int = WIDTH) -> None:
        put(f"{name}.weight", width, scale=0.2, centre=1.0)
        put(f"{name}.bias", width, scale=0.2)

    # Tokens enter with a small variance, so that eps counts; blocks are wide awake, so that the GELU counts.
    put("patch_embed.proj.weight", WIDTH, 3, PATCH, PATCH, scale=0.003)
    if not case.norm_pre:
        put("patch_embed.proj.bias", WIDTH, scale=0.02)
    else:
        norm("norm_pre")
    if case.token:
        put("cls_token", 1, 1, WIDTH, scale=0.02)
    if case.registers:
        put("reg_token", 1, case.registers, WIDTH, scale=0.02)
    if case.positions != "none":
        put("pos_embed", 1, GRID**2 + (case.positions == "all"), WIDTH, scale=0.02)
    for i in range(LAYERS):
        block = f"blocks.{i}"
        norm(f"{block}.norm1"), norm(f"{block}.norm2")
        if case.norms:
            for part in "qkv":
                linear(f"{block}.attn.{part}_proj", WIDTH, WIDTH, bias=part != "k")
        else:
            linear(f"{block}.attn.qkv", 3 * WIDTH, WIDTH, bias=case.bias == "qkv")
        for part in ("q", "v") if case.bias == "qv" and not case.norms else ():
            put(f"{block}.attn.{part}_bias", WIDTH, scale=0.2)
        for part in case.norms:
            norm(f"{block}.{part}.norm", HIDDEN if part == "mlp" else WIDTH)
        linear(f"{block}.attn.proj", WIDTH, WIDTH)
        for name in ("fc1_g", "fc1_x") if case.gate == "fc1_g" else ("fc1",):
            linear(f"{block}.mlp.{name}", HIDDEN * (2 if case.gate == "fc1" else 1), WIDTH)
        linear(f"{block}.mlp.fc2", WIDTH, HIDDEN)
        for j in (1, 2) if case.scale else ():
            put(f"{block}.{case.scale.format(j)}", WIDTH, scale=0.2, centre=0.7)
    norm("fc_norm" if case.late else "norm")
    if case.pooling == "map":
        put("attn_pool.latent", 1, 1, WIDTH, scale=0.5)
        for name, out in (("q", 1), ("kv", 2), ("proj", 1)):
            linear(f"attn_pool.{name}", out * WIDTH, WIDTH)
        norm("attn_pool.norm")
        linear("attn_pool.mlp.fc1", HIDDEN, WIDTH), linear("attn_pool.mlp.fc2", WIDTH, HIDDEN)
    if case.classes:
        linear("head", case.classes, WIDTH)
    return tensors


def saved(path: Path, case: Case, tensors: dict[str, np.ndarray] | None = None, **change: Any) -> dict[str, np.ndarray]:
    """A small timm directory; its tensors."""
    tensors = made(case) if tensors is None else tensors
    prepare = {"input_size": [3, SIDE, SIDE], "interpolation": "bicubic", "crop_pct": 1.0, "crop_mode": "squash"}
    prepare |= {"mean": MEAN, "std": STD, "num_classes": case.classes, "tag": "webli"}
    described = {"architecture": case.architecture, "num_classes": case.classes, "global_pool": case.pooling}
    always = {"in_chans": 3, "num_classes": 0}  # which timm 1.0.31 writes of every model
    described |= {"model_args": always | case.arguments, "pretrained_cfg": prepare, **change}
    path.mkdir(exist_ok=True)
    save_file(tensors, path / "model.safetensors")
    (path / "config.json").write_text(json.dumps(described))
    return tensors


def saved_in_open_clip(path: Path, case: Case, proj: str | None, pool: str | None = None) -> dict[str, np.ndarray]:
    """The same as the trunk of a small OpenCLIP directory, beside a text tower; the tensors of the trunk."""
    tensors, rng = made(dataclasses.replace(case, classes=20 if proj is None else 0)), np.random.default_rng(2)
    stored = {f"visual.trunk.{name}": tensor for name, tensor in tensors.items()}
    if proj == "linear":
        tensors["head.weight"] = stored["visual.head.proj.weight"] = rng.normal(size=(20, WIDTH)).astype(np.float32)
    stored |= {"text.ln_final.weight": np.ones(8, np.float32), "logit_scale": np.array(4.6, np.float32)}
    stored["logit_bias"] = np.array(-10, np.float32)
    vision = {"image_size": SIDE, "timm_model_name": case.architecture, "timm_model_pretrained": False}
    vision |= {"timm_pool": case.pooling if pool is None else pool, "timm_proj": proj}
    vision["timm_model_kwargs"] = {name: v for name, v in case.arguments.items() if name != "img_size"}
    described = {"model_cfg": {"embed_dim": 20, "vision_cfg": vision, "text_cfg": {}, "custom_text": True}}
    described["preprocess_cfg"] = {"mean": MEAN, "std": STD, "interpolation": "bicubic", "resize_mode": "squash"}
    path.mkdir(exist_ok=True)
    save_file(stored, path / "open_clip_model.safetensors")
    (path / "open_clip_config.json").write_text(json.dumps(described))
    return tensors


def rotation(case: Case, token: int, grid: int) -> Any:
    """The matrix that turns a head's query or key of one token."""
    import torch

    size = WIDTH // HEADS
    matrix = torch.eye(size, dtype=torch.float64)
    place = token - int(case.token) - case.registers
    if place < 0 or not case.rope:
        return matrix
    row, column = divmod(place, grid)
    for pair in range(size // 2):
        slot = pair % (size // 4)
        first = pair < size // 4
        if case.rope == "halves":  # rows first; centres of patches from -1 to 1
            at = 2 * ((row if first else column) + 0.5) / grid - 1
            angle, one, two = 2 * math.pi * at / 100 ** (slot / (size // 4)), pair, pair + size // 2
        elif case.rope == "scaled":  # rows first; as in a grid of 16
            at = (row if first else column) * 16 / grid
            angle, one, two = at / 10_000 ** (slot / (size // 4)), 2 * pair, 2 * pair + 1
        else:  # columns first; counted, from 1 where a class token has 0
            at = (column if first else row) + int(case.token)
            angle, one, two = at / 10_000 ** (slot / (size // 4)), 2 * pair, 2 * pair + 1
        matrix[one, one] = matrix[two, two] = math.cos(angle)
        matrix[two, one], matrix[one, two] = math.sin(angle), -math.sin(angle)
    return matrix


def slow(case: Case, t: dict[str, Any], pixels: Any) -> tuple[list[Any], Any]:
    """Tokens before the first block and behind each, and the features, of one normalised image [3 S S]."""
    import torch
    from torch.nn.functional import conv2d, gelu, layer_norm, silu

    def norm(x: Any, name: str) -> Any:
        return layer_norm(x, x.shape[-1:], t[f"{name}.weight"], t[f"{name}.bias"], case.eps)

    def linear(x: Any, name: str) -> Any:
        return x @ t[f"{name}.weight"].T + t.get(f"{name}.bias", 0)

    def active(x: Any) -> Any:
        return (
            x * torch.sigmoid(1.702 * x)
            if case.gelu == "quick"
            else gelu(x, approximate={"gelu": "none"}.get(case.gelu, "tanh"))
        )

    def attended(q: Any, k: Any, v: Any, heads: int) -> Any:
        size = WIDTH // heads
        parts = [slice(h * size, (h + 1) * size) for h in range(heads)]
        return torch.cat([torch.softmax(q[:, p] @ k[:, p].T / size**0.5, -1) @ v[:, p] for p in parts], -1)

    def turned(x: Any) -> Any:
        size = WIDTH // HEADS
        rows = [
            torch.cat([rotation(case, n, grid) @ x[n, h : h + size] for h in range(0, WIDTH, size)])
            for n in range(len(x))
        ]
        return torch.stack(rows)

    grid = pixels.shape[1] // PATCH
    patches = conv2d(pixels[None], t["patch_embed.proj.weight"], t.get("patch_embed.proj.bias"), stride=PATCH)
    x = patches[0].flatten(1).T
    position = t.get("pos_embed", torch.zeros(1, grid**2, WIDTH, dtype=torch.float64))[0]
    x = x + position[-(grid**2) :]
    registers = t.get("reg_token", x[None, :0])[0]
    first = [t["cls_token"][0] + (position[:1] if case.positions == "all" else 0)] if case.token else []
    x = torch.cat([*first, registers, x])
    x = norm(x, "norm_pre") if case.norm_pre else x
    states = [x]
    for i in range(LAYERS):
        block = f"blocks.{i}"
        y = norm(x, f"{block}.norm1")
        if case.norms:
            q, k, v = (linear(y, f"{block}.attn.{part}_proj") for part in "qkv")
        else:
            q, k, v = linear(y, f"{block}.attn.qkv").chunk(3, -1)
        if case.bias == "qv" and not case.norms:
            q, v = q + t[f"{block}.attn.q_bias"], v + t[f"{block}.attn.v_bias"]
        y = attended(turned(q), turned(k), v, HEADS)
        y = norm(y, f"{block}.attn.norm") if "attn" in case.norms else y
        y = linear(y, f"{block}.attn.proj")
        x = x + y * (t[f"{block}.{case.scale.format(1)}"] if case.scale else 1)
        y = norm(x, f"{block}.norm2")
        if case.gate == "fc1_g":
            y = silu(linear(y, f"{block}.mlp.fc1_g")) * linear(y, f"{block}.mlp.fc1_x")
        elif case.gate:
            gate, value = linear(y, f"{block}.mlp.fc1").chunk(2, -1)
            y = silu(gate) * value
        else:
            y = active(linear(y, f"{block}.mlp.fc1"))
        y = norm(y, f"{block}.mlp.norm") if "mlp" in case.norms else y
        x = x + linear(y, f"{block}.mlp.fc2") * (t[f"{block}.{case.scale.format(2)}"] if case.scale else 1)
        states.append(x)
    x = x if case.late else norm(x, "norm")
    if case.pooling == "map":
        k, v = linear(x, "attn_pool.kv").chunk(2, -1)
        y = linear(attended(linear(t["attn_pool.latent"][0], "attn_pool.q"), k, v, case.pool_heads), "attn_pool.proj")
        pooled = (y + linear(active(linear(norm(y, "attn_pool.norm"), "attn_pool.mlp.fc1")), "attn_pool.mlp.fc2"))[0]
    else:
        pooled = x[0] if case.pooling == "token" else x[int(case.token) + case.registers :].mean(0)
        pooled = norm(pooled, "fc_norm") if case.late else pooled
    return states, linear(pooled, "head") if "head.weight" in t and case.classes != 1000 else pooled


def pictures(side: int = SIDE) -> np.ndarray:
    """What two images that are no squares become."""
    prepare = Preprocess(side, "squash", side, "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    rng = np.random.default_rng(3)
    shapes = ((31, 57, 3), (90, 45, 3))
    return np.stack([prepare(rng.integers(0, 256, shape, dtype=np.uint8)) for shape in shapes])


def normalised(images: np.ndarray) -> np.ndarray:
    return ((images / 255 - np.array(MEAN)) / np.array(STD)).astype(np.float32)


def slowly(case: Case, tensors: dict[str, np.ndarray], images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """States [B L1 P F] and features [B F] of the slow forward."""
    import torch

    t = {name: torch.from_numpy(tensor).double() for name, tensor in tensors.items()}
    found = [slow(case, t, torch.from_numpy(x).double().permute(2, 0, 1)) for x in normalised(images)]
    return np.stack([torch.stack(s).numpy() for s, _ in found]), np.stack([f.numpy() for _, f in found])


def ours(config: EncoderConfig, tensors: Tensors, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same of our tower."""

    @jax.jit
    def run(tensors: dict[str, jax.Array], pixels: jax.Array) -> tuple[jax.Array, jax.Array]:
        states = jax.vmap(lambda x: jnp.stack(seen(config.tower, config.pooling, tensors, x)))(pixels)
        return states, features_of(config.tower, config.pooling, tensors, pixels)

    named = {name.removeprefix("tower."): jnp.asarray(tensor) for name, tensor in tensors.items()}
    states, features = run(named, jnp.asarray(normalised(images)))
    return np.asarray(states), np.asarray(features)


def by_graph(config: EncoderConfig, tensors: Tensors, images: np.ndarray) -> np.ndarray:
    """Our features as ONNX Runtime computes them: nothing to compile."""
    graph = build(config.tower, config.pooling, config.preprocess, below("tower", tensors))
    session = onnxruntime.InferenceSession(graph.SerializeToString())
    (features,) = session.run(None, {"images": images})
    return np.asarray(features)


def worst(ours: tuple[np.ndarray, np.ndarray], theirs: tuple[np.ndarray, np.ndarray]) -> float:
    """Largest difference of any block or of the features, as a share of that block's largest value."""
    mine, other = ([*np.moveaxis(states, 1, 0), features] for states, features in (ours, theirs))
    if [a.shape for a in mine] != [a.shape for a in other]:
        return math.inf
    return max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in zip(mine, other, strict=True))


def cosine(ours: np.ndarray, theirs: np.ndarray) -> float:
    """The smallest of any row."""
    lengths = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    return float(((ours * theirs).sum(1) / lengths).min())


@pytest.mark.reference("torch")
@pytest.mark.parametrize("name", ["clip", "siglip2", "dinov2", "dinov2_registers", "dinov3", "pe", "eva02_clip"])
def test_every_block_equals_the_slow_forward(tmp_path: Path, name: str):
    case, images = CASES[name], pictures()
    theirs = slowly(case, saved(tmp_path, case), images)
    _, config, imported = read_published(tmp_path)
    found = ours(config, imported, images)
    assert worst(found, theirs) <= 1e-5
    assert cosine(found[1], theirs[1]) >= 0.99999
    assert np.abs(by_graph(config, imported, images) - found[1]).max() <= 1e-4


@pytest.mark.reference("torch")
@pytest.mark.parametrize("name", CASES)
def test_features_of_every_family_and_the_way_back(tmp_path: Path, name: str):
    case, images = CASES[name], pictures()
    tensors = saved(tmp_path, case)
    layout, config, imported = read_published(tmp_path)
    assert layout == "timm_vit"
    (_, theirs), found = slowly(case, tensors, images), by_graph(config, imported, images)
    assert np.abs(found - theirs).max() <= 1e-5 * np.abs(theirs).max()
    kept = {k: t for k, t in tensors.items() if case.classes != 1000 or not k.startswith("head.")}
    exported = export_tensors(WEIGHTS["timm_vit"], config, imported)
    assert exported.keys() == kept.keys()
    assert all(np.array_equal(exported[k], kept[k]) for k in kept)


@pytest.mark.reference("torch")
@pytest.mark.parametrize("side", [18, 42])
def test_a_perception_encoder_at_another_size(tmp_path: Path, side: int):
    """Its own code interpolates learned positions without antialiasing, and goes on counting rotary ones."""
    import torch

    tensors, images = saved(tmp_path, PE), pictures(side)
    _, config, imported = read_published(tmp_path)
    adapted = adapt(config, imported, size=side)
    position = torch.from_numpy(tensors["pos_embed"])
    grid = position[:, 1:].reshape(1, GRID, GRID, WIDTH).permute(0, 3, 1, 2)
    resized = torch.nn.functional.interpolate(grid, (side // PATCH,) * 2, mode="bilinear", align_corners=False)
    stretched = torch.cat([position[:, :1], resized.flatten(2).transpose(1, 2)], 1).numpy()
    _, theirs = slowly(PE, {**tensors, "pos_embed": stretched}, images)
    assert np.abs(by_graph(*adapted, images) - theirs).max() <= 1e-5 * np.abs(theirs).max()


@pytest.mark.reference("torch")
def test_the_check_would_notice_a_wrong_perception_encoder(tmp_path: Path):
    images, tensors = pictures(), saved(tmp_path, PE)
    _, config, imported = read_published(tmp_path)
    _, theirs = slowly(PE, tensors, images)

    def wrong(change: dict[str, Any], mutated: dict[str, np.ndarray | None]) -> float:
        other = dataclasses.replace(config, tower=dataclasses.replace(config.tower, **change))
        merged = {name: tensor for name, tensor in {**imported, **mutated}.items() if tensor is not None}
        return float(np.abs(by_graph(other, merged, images) - theirs).max() / np.abs(theirs).max())

    qkv = [tensors[f"blocks.{i}.attn.qkv.weight"].T for i in range(LAYERS)]
    biases = [tensors[f"blocks.{i}.attn.qkv.bias"] for i in range(LAYERS)]
    halves = {"tower.blocks.attention.qkv.weight": np.stack(qkv), "tower.blocks.attention.qkv.bias": np.stack(biases)}
    flat = {f"tower.pool.mlp.down.{part}": 0 * imported[f"tower.pool.mlp.down.{part}"] for part in ("weight", "bias")}
    no_token = {"tower.class_token": None, "tower.position": imported["tower.position"][1:]}
    assert wrong({}, {}) <= 1e-5
    assert wrong({}, halves) > 1e-3  # pairs of halves, not of neighbours
    assert wrong({}, flat) > 1e-2  # pooling without its MLP
    assert wrong({"class_token": False, "positions": "patches"}, no_token) > 1e-3
    assert wrong({"eps": 1e-6}, {}) > 1e-4
    assert wrong({"activation": "gelu_tanh"}, {}) > 3e-5
    assert wrong({"activation": "quick_gelu"}, {}) > 1e-3
    assert wrong({"pool_heads": 4}, {}) > 1e-3
    assert wrong({"heads": 2}, {}) > 1e-3
    assert wrong({"rope": "centred"}, {}) > 1e-3
    assert wrong({"rope_theta": 100.0}, {}) > 1e-3
    assert wrong({"rope": "none"}, {}) > 1e-3


@pytest.mark.reference("torch")
@pytest.mark.parametrize("name", ["pe", "dinov3"])
def test_slopes_equal_those_of_the_slow_forward(tmp_path: Path, name: str):
    import torch

    case, image = CASES[name], normalised(pictures()[:1])[0]
    tensors = saved(tmp_path / "model", case)
    _, config, imported = read_published(tmp_path / "model")
    along = np.random.default_rng(5).normal(size=config.tower.features)
    t = {k: torch.from_numpy(a).double().requires_grad_() for k, a in tensors.items()}
    pixels = torch.from_numpy(image).double().permute(2, 0, 1).requires_grad_()
    (slow(case, t, pixels)[1] * torch.from_numpy(along)).sum().backward()
    assert pixels.grad is not None
    slopes = {k: np.zeros_like(tensors[k]) if a.grad is None else a.grad.float().numpy() for k, a in t.items()}
    saved(tmp_path / "slopes", case, slopes)
    _, _, expected = read_published(tmp_path / "slopes")  # slopes are laid out as what they belong to

    def loss(tensors: dict[str, jax.Array], image: jax.Array) -> jax.Array:
        found = features_of(config.tower, config.pooling, tensors, image[None])[0]
        return jnp.vdot(found, jnp.asarray(along, jnp.float32))

    named = {n.removeprefix("tower."): jnp.asarray(a) for n, a in imported.items()}
    found, of_image = jax.jit(jax.grad(loss, argnums=(0, 1)))(named, jnp.asarray(image))
    pairs = [(np.asarray(found[n]), expected[f"tower.{n}"]) for n in named]
    pairs.append((np.asarray(of_image), pixels.grad.permute(1, 2, 0).numpy()))
    largest = max(np.abs(b).max() for _, b in pairs)
    for a, b in pairs:
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3 * max(np.abs(b).max(), 1e-3 * largest))


@pytest.mark.reference("torch")
@pytest.mark.parametrize("name", ["pe", "siglip2", "dinov3_plus"])
def test_bfloat16_is_close(tmp_path: Path, name: str):
    case, images = CASES[name], pictures()
    _, theirs = slowly(case, saved(tmp_path, case), images)
    _, config, imported = read_published(tmp_path)
    encoder = Encoder.from_parts(config, imported, dtype="bfloat16")
    half = np.asarray(jax.jit(lambda x: encoder.features(x).astype(jnp.float32))(jnp.asarray(images)))
    assert cosine(half, theirs) >= 0.999


@pytest.mark.reference("torch")
@pytest.mark.parametrize(
    ("name", "proj", "pool", "layout"),
    [
        ("pe", None, None, "open_clip_timm"),
        ("eva02_clip", None, "token", "open_clip_timm"),
        ("siglip", "none", None, "open_clip_timm"),
        ("plain", "linear", "", "open_clip_timm_outside"),
    ],
)
def test_trunks_of_open_clip(tmp_path: Path, name: str, proj: str | None, pool: str | None, layout: str):
    case, images = dataclasses.replace(CASES[name], classes=0), pictures()
    tensors = saved_in_open_clip(tmp_path, case, proj, pool)
    found, config, imported = read_published(tmp_path)
    assert found == layout
    assert config.preprocess.mode == "squash"
    _, theirs = slowly(case, tensors, images)
    assert np.abs(by_graph(config, imported, images) - theirs).max() <= 1e-5 * np.abs(theirs).max()
    exported = export_tensors(WEIGHTS[layout], config, imported)
    stored = load_file(tmp_path / "open_clip_model.safetensors")
    assert exported.keys() == {n for n in stored if n.startswith("visual.")}
    assert all(np.array_equal(exported[n], stored[n]) for n in exported)


def test_what_a_directory_says_is_read(tmp_path: Path):
    saved(tmp_path, PE)
    _, config, _ = read_published(tmp_path)
    assert config.pooling == "attention"
    mean, std = (tuple(three) for three in (MEAN, STD))
    assert config.preprocess == Preprocess(SIDE, "squash", SIDE, "bicubic", mean, std, rounding="even")  # type: ignore[arg-type]
    assert (config.tower.features, config.tower.resampling) == (20, "bilinear")
    assert config.tower.head_bias
    # Weights of OpenAI lie under an architecture with the exact GELU, and were not trained with it.
    tag = json.loads((tmp_path / "config.json").read_text())["pretrained_cfg"] | {"tag": "openai"}
    saved(tmp_path / "openai", CLIP, pretrained_cfg=tag)
    assert read_published(tmp_path / "openai")[1].tower.activation == "quick_gelu"  # type: ignore[union-attr]
    # What was fine-tuned, and whoever changed the number of classes, has a classifier for a head.
    tag = json.loads((tmp_path / "config.json").read_text())["pretrained_cfg"] | {"tag": "laion2b_ft_in12k_in1k"}
    for name, change in (("tuned", {"pretrained_cfg": tag}), ("other", {"num_classes": 3})):
        saved(tmp_path / name, CLIP, **change)
        _, config, _ = read_published(tmp_path / name)
        assert config.tower.features == WIDTH


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"global_pool": "avgmax"}, "pooling 'avgmax'; expected one of token, avg, map"),
        ({"model_args": {**PE.arguments, "qk_norm": True}}, "made with `qk_norm`, not supported"),
        ({"model_args": {**PE.arguments, "act_layer": "relu"}}, "activation 'relu'"),
        ({"model_args": {**PE.arguments, "ref_feat_shape": [14, 14]}}, "made for 14 patches a side and are stretched"),
        ({"architecture": "vit_base_patch16_rope_224"}, "no layout that is known"),
    ],
)
def test_what_would_compute_something_else_is_refused(tmp_path: Path, change: dict[str, Any], words: str):
    saved(tmp_path, PE, **change)
    with pytest.raises(EncoderError, match=words):
        read_published(tmp_path)


@pytest.mark.parametrize(
    ("name", "shape", "words"),
    [
        ("blocks.1.attn.qkv.weight", (2 * WIDTH, WIDTH), r"`blocks.1.attn.qkv.weight` of .* has shape \[96, 48\]"),
        ("blocks.0.mlp.fc2.weight", (WIDTH,), "`blocks.0.mlp.fc2.weight` of .* not 2 axes"),
        ("fc_norm.weight", (WIDTH,), "`fc_norm.weight` is unknown"),
        ("pos_embed", (1, 9, WIDTH), r"`tower.position` has shape \[9, 48\], expected \[16, 48\]"),
    ],
)
def test_faults_of_tensors_are_named(tmp_path: Path, name: str, shape: tuple[int, ...], words: str):
    saved(tmp_path, PE, {**made(PE), name: np.zeros(shape, np.float32)})
    with pytest.raises(EncoderError, match=words):
        read_published(tmp_path)


@pytest.mark.parametrize(
    ("architecture", "width", "heads", "activation", "eps"),
    [
        ("vit_base_patch32_clip_quickgelu_224", 768, 12, "quick_gelu", 1e-5),
        ("vit_base_patch16_plus_clip_240", 896, 14, "gelu", 1e-5),
        ("vit_huge_patch14_clip_378", 1280, 16, "gelu", 1e-5),
        ("vit_giant_patch14_clip_224", 1408, 16, "gelu", 1e-5),
        ("vit_gigantic_patch14_clip_224", 1664, 16, "gelu", 1e-5),
        ("vit_large_patch16_siglip_384", 1024, 16, "gelu", 1e-6),
        ("vit_large_patch16_siglip_512", 1024, 16, "gelu_tanh", 1e-6),
        ("vit_so400m_patch14_siglip_384", 1152, 16, "gelu", 1e-6),
        ("vit_so400m_patch16_siglip_gap_512", 1152, 16, "gelu_tanh", 1e-6),
        ("vit_giantopt_patch16_siglip_256", 1536, 16, "gelu_tanh", 1e-6),
        ("vit_giant_patch14_reg4_dinov2", 1536, 24, "gelu", 1e-6),
        ("vit_so400m_patch14_reg1_tipsv2", 1152, 16, "gelu", 1e-6),
        ("vit_huge_plus_patch16_dinov3", 1280, 20, "gelu", 1e-5),
        ("vit_pe_core_tiny_patch16_384", 192, 3, "gelu", 1e-5),
        ("vit_pe_core_large_patch14_336", 1024, 16, "gelu", 1e-5),
        ("vit_pe_core_gigantic_patch14_448", 1536, 16, "gelu", 1e-5),
        ("vit_huge_patch14_224", 1280, 16, "gelu", 1e-6),
    ],
)
def test_what_shapes_do_not_show(architecture: str, width: int, heads: int, activation: str, eps: float):
    form = family_of(architecture)
    assert form is not None
    assert (form.heads(width), form.activation, form.eps) == (heads, activation, eps)


@pytest.mark.parametrize(
    "architecture", ["swin_base_patch4_window7_224", "vit_7b_patch16_dinov3", "eva02_enormous_patch14_clip_224"]
)
def test_other_architectures_are_left_to_others(architecture: str):
    assert family_of(architecture) is None


@pytest.mark.reference("torch", "timm")
@pytest.mark.parametrize("name", CASES)
def test_equals_timm(tmp_path: Path, name: str):
    import timm
    import torch

    case, images = CASES[name], pictures()
    arguments = {**case.arguments, "num_classes": case.classes, "global_pool": case.pooling}
    made_for = {"input_size": (3, SIDE, SIDE), "mean": MEAN, "std": STD, "crop_pct": 1.0, "num_classes": case.classes}
    made_for["tag"] = "webli"
    model = timm.create_model(case.architecture, pretrained_cfg_overlay=made_for, **arguments).eval()
    generator = torch.Generator().manual_seed(7)
    for tensor in model.parameters():
        tensor.data = tensor.data + 0.1 * torch.randn(tensor.shape, generator=generator)
    timm.models.save_for_hf(model, tmp_path, model_args=case.arguments, safe_serialization=True)
    layout, config, imported = read_published(tmp_path)
    assert layout == "timm_vit"
    with torch.no_grad():
        pixels = torch.from_numpy(normalised(images)).permute(0, 3, 1, 2)
        tokens = model.forward_features(pixels)
        theirs = model.forward_head(tokens, pre_logits=case.classes == 1000).numpy()
    found = by_graph(config, imported, images)
    assert np.abs(found - theirs).max() / np.abs(theirs).max() <= 2e-5
    assert cosine(found, theirs) >= 0.99999


@pytest.mark.reference("torch", "timm", "open_clip")
@pytest.mark.parametrize(("name", "proj"), [("pe", None), ("siglip", "none"), ("clip", "linear")])
def test_equals_open_clip(tmp_path: Path, name: str, proj: str | None):
    import open_clip
    import torch
    from safetensors.torch import save_file as save

    if not hasattr(open_clip.model.CLIPVisionCfg(), "timm_model_kwargs"):
        pytest.skip("this release of open_clip (3.3 and before) can't make a small trunk; its main branch can")
    case, images = dataclasses.replace(CASES[name], classes=0), pictures()
    saved_in_open_clip(tmp_path, case, proj)
    described = json.loads((tmp_path / "open_clip_config.json").read_text())
    vision = described["model_cfg"]["vision_cfg"]
    vision["timm_model_kwargs"]["img_size"] = SIDE
    text = {"context_length": 8, "vocab_size": 50, "width": 16, "heads": 2, "layers": 1}
    model = open_clip.model.CustomTextCLIP(20, vision, text).eval()
    generator = torch.Generator().manual_seed(7)
    for tensor in model.parameters():
        tensor.data = tensor.data + 0.1 * torch.randn(tensor.shape, generator=generator)
    save(model.state_dict(), tmp_path / "open_clip_model.safetensors")
    _, config, imported = read_published(tmp_path)
    with torch.no_grad():
        theirs = model.encode_image(torch.from_numpy(normalised(images)).permute(0, 3, 1, 2)).numpy()
    found = by_graph(config, imported, images)
    assert np.abs(found - theirs).max() / np.abs(theirs).max() <= 2e-5


@pytest.mark.reference("torch", "timm")
def test_facts_of_every_architecture_that_is_known(tmp_path: Path):
    """Heads, eps, activation and the names of all tensors, from timm's own models without memory behind them."""
    import timm
    import torch

    names = [name for name in timm.list_models() if family_of(name)]
    assert len(names) > 100
    for name in names:
        with torch.device("meta"):
            model = timm.create_model(name)
        shapes = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
        described = {"architecture": name, "num_classes": model.num_classes, "global_pool": model.global_pool}
        described["pretrained_cfg"] = {**model.pretrained_cfg, "tag": "webli"}
        config: Any = WEIGHTS["timm_vit"].read(tmp_path, described, shapes)[0]
        known = {"head.weight", "head.bias"}
        for key in WEIGHTS["timm_vit"].keys(config):
            known |= {their.format(i) for their in key.theirs for i in range(config.layers)}
        assert known | set(shapes) == known, name
        block, pool = model.blocks[0], model.attn_pool
        assert (block.attn.num_heads, block.norm1.eps) == (config.heads, config.eps), name
        assert (pool.num_heads if pool is not None else None) == config.pool_heads, name
        act = {"SiLU": "swiglu", "QuickGELU": "quick_gelu", "GELUTanh": "gelu_tanh"}.get(type(block.mlp.act).__name__)
        assert (act or "gelu") == config.activation, name

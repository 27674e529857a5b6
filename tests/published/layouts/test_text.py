"""Text towers of CLIP and SigLIP as transformers saves them, every block against theirs; OpenCLIP's against PyTorch.

OpenCLIP itself needs torchvision; `written` lays a random tower out under its names, and `slow_open_clip` computes it
with torch's own attention, apart from our code.
"""

import dataclasses
import json
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from lookalike.core.errors import EncoderError
from lookalike.encoders.config import EncoderConfig, ProjectionConfig, tensor_shapes
from lookalike.encoders.directory import features_fingerprint_of
from lookalike.encoders.tokenizer import Tokenizer
from lookalike.imaging.preprocess import Preprocess
from lookalike.published.layouts.text import TEXTS, export_text, read_published_text, read_text_of
from lookalike.published.tokenizers import NoTextError
from lookalike.towers import ViTConfig
from lookalike.towers.programs.jax import features, seen
from lookalike.towers.programs.onnx import build_text
from lookalike.towers.text import TextConfig

SMALL = {"hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 3, "num_attention_heads": 4}
VISION = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
VISION |= {"image_size": 16, "patch_size": 8}
TEXTS_ = ["a red kettle", "", "the quick brown fox's tail", "word " * 40, "薬缶 🫖"]
CONTEXT = 16


def awake(model: Any) -> Any:
    """The model with random weights that make activation, eps and positions count."""
    import torch

    generator = torch.Generator().manual_seed(7)
    for name, tensor in model.named_parameters():
        scale = 0.02 if "embedding" in name else 1.5 * tensor.shape[-1] ** -0.5 if tensor.ndim > 1 else 0.2
        centre = 1.0 if "norm" in name and name.endswith("weight") else 0.0
        tensor.data = centre + scale * torch.randn(tensor.shape, generator=generator)
    return model


@pytest.fixture
def saved(tmp_path: Path, clip_files: Any) -> Any:
    """Saves a small model of transformers with a tokenizer: `saved(kind, **options of its text config)`."""

    def save(kind: str = "CLIPModel", **options: Any) -> Any:
        import transformers.models.clip as clip
        import transformers.models.siglip as siglip
        import transformers.models.siglip2 as siglip2

        vocabulary = clip_files(tmp_path)
        text = SMALL | {"vocab_size": vocabulary, "max_position_embeddings": CONTEXT} | options
        module, name = (siglip2, "Siglip2") if "2" in kind else (siglip, "Siglip") if kind[0] == "S" else (clip, "CLIP")
        if kind.startswith("CLIPText"):
            config = clip.CLIPTextConfig(**text, projection_dim=20)
        else:
            vision = VISION | ({"num_patches": 4, "image_size": None} if name == "Siglip2" else {})
            vision = {key: value for key, value in vision.items() if value is not None}
            more = {"projection_dim": 20} if name == "CLIP" else {}
            config = getattr(module, f"{name}Config")(text_config=text, vision_config=vision, **more)
        model = awake(getattr(module, kind)(config).eval())
        model.save_pretrained(tmp_path)
        (tmp_path / "tokenizer_config.json").write_text(json.dumps({"pad_token": "<|endoftext|>"}))
        return model

    return save


def ids_of(tokenizer: str, config: TextConfig, length: int = CONTEXT, padding: int = 0) -> np.ndarray:
    """The texts as one matrix, filled up at the right."""
    rows = [Tokenizer(tokenizer, config, "here")(text) for text in TEXTS_]
    return np.array([[*row, *[padding] * (length - len(row))] for row in rows])


def their_states(model: Any, ids: np.ndarray, mask: np.ndarray | None = None) -> list[np.ndarray]:
    """Tokens before the first block and behind each, then the features."""
    import torch

    with torch.no_grad():
        text = model.text_model
        given = {"input_ids": torch.from_numpy(ids)} | ({} if mask is None else {"attention_mask": torch.tensor(mask)})
        out = text(**given, output_hidden_states=True)
        head = getattr(model, "text_projection", lambda x: x)
        return [h.numpy() for h in out.hidden_states] + [head(out.pooler_output).numpy()]


@partial(jax.jit, static_argnums=(0, 3))
def states(config: TextConfig, tensors: dict[str, jax.Array], ids: jax.Array, dtype: Any) -> list[jax.Array]:
    shown = jax.vmap(lambda ids: seen(config, "class", tensors, ids))(ids)
    return [*shown, features(config, "class", tensors, ids, dtype)]


def our_states(config: TextConfig, tensors: Any, ids: np.ndarray, dtype: Any = "float32") -> list[np.ndarray]:
    arrays = {name: jnp.asarray(t) for name, t in tensors.items()}
    return [np.asarray(s) for s in states(config, arrays, jnp.asarray(ids, jnp.int32), dtype)]


def of_graph(config: TextConfig, tensors: Any, ids: np.ndarray) -> np.ndarray:
    """The features by the graph."""
    import onnxruntime

    graph = build_text(config, tensors).SerializeToString()
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"ids": ids})
    return found


def worst(ours: list[np.ndarray], theirs: list[np.ndarray]) -> float:
    """Largest difference of any block, as a share of that block's largest value."""
    assert [a.shape for a in ours] == [a.shape for a in theirs]
    return max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in zip(ours, theirs, strict=True))


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


CASES = [
    ("CLIPModel", {"hidden_act": "quick_gelu", "eos_token_id": 2}),
    ("CLIPTextModelWithProjection", {"hidden_act": "gelu", "layer_norm_eps": 1e-6}),
    ("SiglipModel", {"projection_size": 20}),
    ("Siglip2Model", {"num_attention_heads": 2, "hidden_act": "gelu"}),
]


@pytest.mark.reference("torch", "transformers")
@pytest.mark.parametrize(("kind", "options"), CASES)
def test_every_block_equals_transformers(tmp_path, saved, clip_pieces, kind, options):
    end = clip_pieces[0]["<|endoftext|>"]
    model = saved(kind, **({"eos_token_id": end} if kind.startswith("CLIP") else {}) | options)
    config, tensors, tokenizer = read_published_text(tmp_path)
    ids = ids_of(tokenizer, config, padding=end)
    theirs = their_states(model, ids)
    ours = our_states(config, tensors, ids)
    assert worst(ours, theirs) <= 1e-5
    assert cosines(ours[-1], theirs[-1]).min() >= 0.99999
    if kind == "CLIPModel":
        assert cosines(our_states(config, tensors, ids, "bfloat16")[-1], theirs[-1]).min() >= 0.999
    assert np.abs(of_graph(config, tensors, ids) - ours[-1]).max() <= 1e-4
    assert np.abs(theirs[-1] - theirs[-1].mean(axis=0)).max() > 0.01  # the texts do differ
    if kind.startswith("CLIP"):
        assert config.read == ("highest" if options.get("eos_token_id") == 2 else "end")
        # What stands behind the end changes nothing: neither other padding nor a mask over it, nor leaving it away.
        mask = (np.cumsum(ids == end, axis=1) - (ids == end) == 0).astype(np.int64)
        other = ids_of(tokenizer, config, padding=0)
        assert worst(our_states(config, tensors, other)[-1:], their_states(model, ids, mask)[-1:]) <= 1e-5
        for text, row in zip(TEXTS_, theirs[-1], strict=True):
            alone = of_graph(config, tensors, Tokenizer(tokenizer, config, "here")(text)[None])
            assert np.abs(alone[0] - row).max() <= 1e-4


@pytest.mark.reference("torch", "transformers")
def test_the_check_would_notice_a_wrong_tower(tmp_path, saved, clip_pieces):
    end = clip_pieces[0]["<|endoftext|>"]
    model = saved("CLIPModel", hidden_act="quick_gelu", eos_token_id=end)
    config, tensors, tokenizer = read_published_text(tmp_path)
    ids = ids_of(tokenizer, config, padding=end)
    theirs = their_states(model, ids)
    assert worst(our_states(config, tensors, ids), theirs) <= 1e-5
    turned = dict(tensors) | {"blocks.attention.qkv.weight": np.roll(tensors["blocks.attention.qkv.weight"], 48, 2)}
    wrong: dict[str, tuple[dict[str, Any], Any]] = {
        "no causal mask": ({"causal": False}, tensors),
        "read from the last": ({"read": "last", "end": None}, tensors),
        "read from another mark": ({"end": end - 1}, tensors),
        "GELU": ({"activation": "gelu"}, tensors),
        "eps": ({"eps": 1e-6}, tensors),
        "heads": ({"heads": 2}, tensors),
        "v, q, k": ({}, turned),
    }
    assert worst([of_graph(config, tensors, ids)], theirs[-1:]) <= 1e-5
    for name, (change, mutated) in wrong.items():
        assert worst([of_graph(dataclasses.replace(config, **change), mutated, ids)], theirs[-1:]) > 1e-4, name
    fewer = our_states(dataclasses.replace(config, causal=False), tensors, ids)
    assert worst(fewer, theirs) > 1e-4


@pytest.mark.reference("torch", "transformers")
@pytest.mark.parametrize("kind", ["CLIPModel", "SiglipModel"])
def test_gradients_equal_torch(tmp_path, saved, clip_pieces, kind):
    import torch

    end = clip_pieces[0]["<|endoftext|>"]
    model = saved(kind, **({"eos_token_id": end} if kind == "CLIPModel" else {}))
    config, tensors, tokenizer = read_published_text(tmp_path)
    ids = ids_of(tokenizer, config, padding=end)
    along = np.random.default_rng(2).standard_normal((len(ids), config.features)).astype(np.float32)
    out = model.text_model(input_ids=torch.from_numpy(ids)).pooler_output
    out = model.text_projection(out) if kind == "CLIPModel" else out
    (out * torch.from_numpy(along)).sum().backward()
    text = model.text_model

    @jax.jit
    @jax.grad
    def gradients(tensors: dict[str, jax.Array]) -> jax.Array:
        return (features(config, "class", tensors, jnp.asarray(ids, jnp.int32)) * along).sum()

    ours = gradients({name: jnp.asarray(t) for name, t in tensors.items()})
    pairs = [
        (ours["token"], text.embeddings.token_embedding.weight.grad.numpy()),
        (ours["position"], text.embeddings.position_embedding.weight.grad.numpy()),
        (ours["blocks.mlp.up.weight"][1], text.encoder.layers[1].mlp.fc1.weight.grad.numpy().T),
        (ours["blocks.attention.out.bias"][0], text.encoder.layers[0].self_attn.out_proj.bias.grad.numpy()),
        (ours["norm_post.weight"], text.final_layer_norm.weight.grad.numpy()),
    ]
    for mine, theirs in pairs:
        assert np.abs(np.asarray(mine) - theirs).max() <= 1e-3 * np.abs(theirs).max()


@pytest.mark.reference("torch", "transformers")
@pytest.mark.parametrize("kind", ["CLIPModel", "SiglipModel"])
def test_pictures_and_texts_meet_as_in_transformers(tmp_path, saved, clip_pieces, kind):
    """Both sides from one directory: cosines of images with texts equal the model's own logits."""
    import torch

    from lookalike.encoders.encoder import Encoder
    from lookalike.published.layouts import read_published

    end = clip_pieces[0]["<|endoftext|>"]
    model = saved(kind, **({"eos_token_id": end} if kind == "CLIPModel" else {"projection_size": 16}))
    processor = {"size": {"height": 16, "width": 16}, "do_center_crop": False, "resample": 2}
    processor |= {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor))
    _, config, tensors = read_published(tmp_path)
    side = read_text_of(tmp_path, config, config, tensors)
    assert side is not None
    ids = ids_of(side.tokenizer, side.config, padding=end)
    images = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)
    with torch.no_grad():
        pixels = torch.from_numpy((images / 127.5 - 1).astype(np.float32).transpose(0, 3, 1, 2))
        out = model(input_ids=torch.from_numpy(ids), pixel_values=pixels)
        logits = out.logits_per_image - (model.logit_bias if kind == "SiglipModel" else 0)
        expected = (logits / model.logit_scale.exp()).numpy()
    pictures = np.asarray(jax.jit(lambda e, x: e.features(x))(Encoder.from_parts(config, tensors), images))
    texts = of_graph(side.config, side.tensors, ids)
    found = pictures @ texts.T / np.linalg.norm(pictures, axis=1)[:, None] / np.linalg.norm(texts, axis=1)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.reference("torch", "transformers")
@pytest.mark.parametrize(("kind", "layout"), [("CLIPModel", "clip"), ("SiglipModel", "siglip")])
def test_export_writes_what_was_read(tmp_path, saved, kind, layout):
    saved(kind)
    config, tensors, _ = read_published_text(tmp_path)
    theirs = load_file(tmp_path / "model.safetensors")
    found = export_text(TEXTS[layout], config, tensors)
    assert set(found) == {name for name in theirs if name.startswith("text_")}
    assert all(np.array_equal(found[name], theirs[name]) for name in found)


def test_faults_are_named(tmp_path, clip_files):
    written(tmp_path, clip_files(tmp_path))
    file = tmp_path / "open_clip_model.safetensors"
    good = load_file(file)

    def refused(change: dict[str, np.ndarray | None]) -> str:
        save_file({n: t for n, t in {**good, **change}.items() if t is not None}, file)
        with pytest.raises(EncoderError) as caught:
            read_published_text(tmp_path)
        return caught.value.message

    bias = "transformer.resblocks.1.mlp.c_fc.bias"
    assert f"`{bias}` is missing" in refused({bias: None})
    assert "`transformer.extra` is unknown" in refused({"transformer.extra": np.zeros(2, np.float32)})
    assert "`position` has shape [9, 48]" in refused({"positional_embedding": np.zeros((9, 48), np.float32)})
    save_file({"visual.proj": np.zeros((2, 2), np.float32)}, file)
    assert read_published_text(tmp_path) is None  # an image tower alone


# ---------------------------------------------------------------------------------------------- OpenCLIP


def written(path: Path, vocabulary: int, prefix: str = "", biased: bool = False, **options: Any) -> dict[str, Any]:
    """A random text tower in OpenCLIP's layout beside a stub of an image tower; returns its `text_cfg`."""
    rng = np.random.default_rng(0)
    text = {"context_length": CONTEXT, "vocab_size": vocabulary, "width": 48, "heads": 4, "layers": 2} | options
    names: dict[str, tuple[int, ...]] = {
        "token_embedding.weight": (vocabulary, 48),
        "positional_embedding": (CONTEXT, 48),
        "ln_final.weight": (48,),
        "ln_final.bias": (48,),
    }
    for layer in range(2):
        block = f"transformer.resblocks.{layer}"
        for norm in ("ln_1", "ln_2"):
            names |= {f"{block}.{norm}.weight": (48,), f"{block}.{norm}.bias": (48,)}
        names |= {f"{block}.attn.in_proj_weight": (144, 48), f"{block}.attn.in_proj_bias": (144,)}
        names |= {f"{block}.attn.out_proj.weight": (48, 48), f"{block}.attn.out_proj.bias": (48,)}
        names |= {f"{block}.mlp.c_fc.weight": (192, 48), f"{block}.mlp.c_fc.bias": (192,)}
        names |= {f"{block}.mlp.c_proj.weight": (48, 192), f"{block}.mlp.c_proj.bias": (48,)}
    names |= {"text_projection.weight": (20, 48), "text_projection.bias": (20,)} if biased else {}
    names |= {} if biased else {"text_projection": (48, 20)}
    tensors = {
        prefix + name: (("ln_" in name and "weight" in name) + rng.standard_normal(shape) * 0.2).astype(np.float32)
        for name, shape in names.items()
    }
    save_file(tensors | {"logit_scale": np.ones((), np.float32)}, path / "open_clip_model.safetensors")
    model = {"embed_dim": 20, "vision_cfg": {}, "text_cfg": text}
    (path / "open_clip_config.json").write_text(json.dumps({"model_cfg": model}))
    (path / "tokenizer_config.json").write_text(json.dumps({"pad_token": "<|endoftext|>"}))
    return text


def slow_open_clip(path: Path, ids: np.ndarray, prefix: str, text: dict[str, Any]) -> np.ndarray:
    """OpenCLIP's text features with torch's own attention, from the tensors under OpenCLIP's names."""
    import torch
    from torch.nn.functional import gelu, layer_norm, multi_head_attention_forward

    stored = load_file(path / "open_clip_model.safetensors").items()
    t = {name.removeprefix(prefix): torch.from_numpy(tensor) for name, tensor in stored}
    tokens, eps = ids.shape[1], (text.get("norm_kwargs") or {}).get("eps", 1e-5)
    mask = None if text.get("no_causal_mask") else torch.full((tokens, tokens), -torch.inf).triu(1)
    x = (t["token_embedding.weight"][torch.from_numpy(ids)] + t["positional_embedding"][:tokens]).transpose(0, 1)
    for layer in range(text["layers"]):
        b = {n.split(".", 3)[3]: v for n, v in t.items() if n.startswith(f"transformer.resblocks.{layer}.")}
        y = layer_norm(x, (48,), b["ln_1.weight"], b["ln_1.bias"], eps)
        packed = [b["attn.in_proj_weight"], b["attn.in_proj_bias"]]
        out = [b["attn.out_proj.weight"], b["attn.out_proj.bias"]]
        y, _ = multi_head_attention_forward(
            y, y, y, 48, 4, *packed, None, None, False, 0.0, *out, training=False, need_weights=False, attn_mask=mask
        )
        x = x + y
        y = layer_norm(x, (48,), b["ln_2.weight"], b["ln_2.bias"], eps) @ b["mlp.c_fc.weight"].T + b["mlp.c_fc.bias"]
        y = gelu(y, approximate="tanh" if text.get("act_kwargs") else "none")
        x = x + y @ b["mlp.c_proj.weight"].T + b["mlp.c_proj.bias"]
    x = layer_norm(x, (48,), t["ln_final.weight"], t["ln_final.bias"], eps).transpose(0, 1)
    x = x[:, -1] if text.get("pool_type") == "last" else x[range(len(ids)), ids.argmax(1)]
    if "text_projection" in t:
        return (x @ t["text_projection"]).numpy()
    return (x @ t["text_projection.weight"].T + t["text_projection.bias"]).numpy()


SIGLIP = {"no_causal_mask": True, "proj_bias": True, "pool_type": "last", "norm_kwargs": {"eps": 1e-6}}
SIGLIP |= {"act_kwargs": {"approximate": "tanh"}, "tokenizer_kwargs": {"clean": "canonicalize"}}


@pytest.mark.reference("torch")
@pytest.mark.parametrize(
    ("prefix", "biased", "options"), [("", False, {}), ("text.", False, {}), ("text.", True, SIGLIP)]
)
def test_open_clip_equals_a_slow_transcription(tmp_path, clip_files, prefix, biased, options):
    text = written(tmp_path, clip_files(tmp_path), prefix, biased, **options)
    config, tensors, tokenizer = read_published_text(tmp_path)
    ids = ids_of(tokenizer, config)
    expected = slow_open_clip(tmp_path, ids, prefix, text)
    found = our_states(config, tensors, ids)[-1]
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()
    if prefix == "text.":
        exported = export_text(TEXTS["open_clip"], config, tensors)
        stored = load_file(tmp_path / "open_clip_model.safetensors")
        assert set(exported) == {name for name in stored if name.startswith("text.")}
        assert all(np.array_equal(exported[name], stored[name]) for name in exported)


@pytest.mark.reference("torch", "open_clip")
@pytest.mark.parametrize(("biased", "options"), [(False, {}), (True, SIGLIP)])
def test_open_clip_equals_the_library(tmp_path, clip_files, biased, options):
    """Where it is installed; it wants torchvision."""
    from functools import partial

    import torch
    from open_clip.transformer import LayerNorm, TextTransformer

    written(tmp_path, clip_files(tmp_path), "text.", biased, **options)
    config, tensors, tokenizer = read_published_text(tmp_path)
    own = {} if not biased else {"no_causal_mask": True, "proj_bias": True, "pool_type": "last"}
    act = partial(torch.nn.GELU, approximate="tanh") if biased else torch.nn.GELU
    model = TextTransformer(
        CONTEXT,
        config.vocabulary,
        48,
        4,
        2,
        output_dim=20,
        act_layer=act,
        norm_layer=partial(LayerNorm, eps=config.eps),
        **own,
    ).eval()
    stored = load_file(tmp_path / "open_clip_model.safetensors")
    stored = {name.removeprefix("text."): torch.from_numpy(t) for name, t in stored.items() if name != "logit_scale"}
    model.load_state_dict(stored)
    ids = ids_of(tokenizer, config)
    with torch.no_grad():
        expected = model(torch.from_numpy(ids)).numpy()
    found = our_states(config, tensors, ids)[-1]
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"hf_model_name": "roberta-base"}, "hf_model_name='roberta-base'"),
        ({"text_arch": "modern"}, "text_arch='modern'"),
        ({"pool_type": "first"}, "pool_type='first'"),
        ({"embed_cls": True}, "embed_cls=True"),
        ({"tokenizer_kwargs": {"clean": "odd"}}, "cleaned by 'odd'"),
    ],
)
def test_another_text_tower_can_not_be_taken_along(tmp_path, clip_files, options, words):
    written(tmp_path, clip_files(tmp_path), **options)
    with pytest.raises(NoTextError, match=words):
        read_published_text(tmp_path)


def test_texts_belong_to_the_projected_features_alone(tmp_path, clip_files):
    written(tmp_path, clip_files(tmp_path))

    def parts(head: int | None, size: int = 32, pooling: Any = "class") -> tuple[EncoderConfig, dict[str, np.ndarray]]:
        tower = ViTConfig(size=size, patch=16, width=20, layers=1, heads=2, hidden=32, activation="gelu", head=head)
        prepare = Preprocess(size, "squash", size, "bilinear", (0.5,) * 3, (0.25,) * 3)
        config = EncoderConfig(tower, pooling, prepare, ProjectionConfig("identity", tower.features, tower.features))
        return config, {name: np.ones(shape, np.float32) for name, shape in tensor_shapes(config).items()}

    published, tensors = parts(20)
    side = read_text_of(tmp_path, published, published, tensors)
    assert side is not None
    assert side.image == features_fingerprint_of(published, tensors)
    larger = parts(20, size=48)
    side = read_text_of(tmp_path, published, *larger)
    assert side is not None
    assert side.image == features_fingerprint_of(*larger)
    # As many numbers, and others: before the projection, or the mean of all tokens.
    for other in (parts(None), parts(20, pooling="mean")):
        with pytest.raises(NoTextError, match="20 numbers of its projected features"):
            read_text_of(tmp_path, published, *other)
    with pytest.raises(NoTextError, match="these are 12 others"):
        read_text_of(tmp_path, *(parts(12)[0],) * 2, parts(12)[1])

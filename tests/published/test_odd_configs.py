"""Configs of every layout with any one value changed for anything: a tower, or a sentence; never a traceback."""

import json
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from lookalike.core.errors import LookalikeError
from lookalike.encoders.config import EncoderConfig, ProjectionConfig
from lookalike.imaging.preprocess import Preprocess
from lookalike.published.layouts import WEIGHTS, read_published
from lookalike.published.layouts.text import read_published_text
from lookalike.published.presets import PRESETS
from lookalike.towers import Tower, ViTConfig
from lookalike.towers.inverted import MOBILENETS_V4
from lookalike.towers.plans import RESNETS

UNWRITTEN: dict[str, dict[str, Any]] = {
    "siglip2": {"model_type": "siglip2", "vision_config": {"num_patches": 256, "patch_size": 16, "hidden_size": 48}},
    "tips": {"model_type": "tipsv2", "vision_fn": "vit_base", "embed_dim": 64, "img_size": 32, "ffn_layer": "mlp"},
    "open_clip_timm": {
        "model_cfg": {"vision_cfg": {"timm_model_name": "vit_base_patch16_siglip_224", "timm_proj": "none"}}
    },
    "open_clip_timm_outside": {"model_cfg": {"vision_cfg": {"timm_model_name": "eva02_base_patch16_clip_224"}}},
}
"""Of layouts that are read alone, or written by others."""

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3000) | st.floats() | st.text(max_size=4) | st.just("gelu"),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=5,
)


def _towers() -> Iterator[Tower]:
    yield from {type(p.tower): p.tower for p in reversed(PRESETS.values())}.values()
    yield from (p.tower for p in PRESETS.values() if isinstance(p.tower, ViTConfig))
    yield from (*RESNETS.values(), *MOBILENETS_V4.values(), *(p.tower for p in PRESETS.values()))
    yield ViTConfig(32, 8, 48, 2, 4, 80, "gelu", 1e-12, patch_bias=True, norm_pre=False)


@cache
def example(name: str) -> dict[str, Any]:
    """A good config of a layout."""
    if name in UNWRITTEN:
        return UNWRITTEN[name]
    for tower in _towers():
        projection = ProjectionConfig("identity", tower.features, tower.features)
        size = tower.only_size or 224
        prepare = Preprocess(size, "squash", size, "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
        for pooling in tower.poolings:
            described = WEIGHTS[name].describe(EncoderConfig(tower, pooling, prepare, projection))
            if described is not None and WEIGHTS[name].matches(described):
                return described
    raise AssertionError(name)


def places(data: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every value of a config."""
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in items:
        yield (*at, key)
        yield from places(value, (*at, key))


def changed(data: dict[str, Any], place: tuple[Any, ...], value: Any) -> dict[str, Any]:
    data = deepcopy(data)
    inner: Any = data
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    return data


@pytest.mark.parametrize("name", WEIGHTS)
@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_value_in_a_config_is_read_or_refused(name: str, data: st.DataObject):
    layout, good = WEIGHTS[name], example(name)
    keys = [(key,) for key in ("pretrained_cfg", "model_args", "global_pool", "vision_config")]
    place = data.draw(st.sampled_from([*places(good), *keys]))
    odd = changed(good, place, data.draw(JSON))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        (path / layout.files[0]).write_text(json.dumps(odd))
        (path / "preprocessor_config.json").write_text(json.dumps({"size": data.draw(JSON)}))
        save_file({layout.prefixes[0] + layout.anchor: np.zeros((48, 3, 8, 8), np.float32)}, path / layout.files[1])
        with suppress(LookalikeError):
            read_published(path)
        with suppress(LookalikeError):
            read_published_text(path)

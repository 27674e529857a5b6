"""What timm's layouts have in common: a config that names an architecture, and whole families known by name."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lookalike.core.errors import EncoderError
from lookalike.encoders.config import EncoderConfig
from lookalike.published.layout import Found, Layout
from lookalike.published.processors import as_timm, from_timm
from lookalike.towers import Tower

FILES = ("config.json", "model.safetensors")

HARMLESS = frozenset({"num_classes", "drop_rate", "drop_path_rate"})
"""Arguments of every architecture that change no feature."""


def described_as(
    name: str, config: EncoderConfig, classifier: str, arguments: Mapping[str, Any] | None = None, head: int = 0
) -> dict[str, Any]:
    """`config.json` of an encoder under the architecture `name`, made with `arguments` beyond the name.

    Args:
        name: Of the architecture.
        config: The encoder.
        classifier: The layer that gives way if another number of classes is asked for.
        arguments: `model_args`.
        head: What that layer gives; 0: there is none.
    """
    published = {"tag": "lookalike", "classifier": classifier, "num_classes": head, **as_timm(config.preprocess)}
    return {
        "architecture": name,
        "num_classes": head,
        "num_features": config.tower.features,
        "global_pool": (arguments or {}).get("global_pool", "avg"),
        **({"model_args": dict(arguments)} if arguments else {}),
        "pretrained_cfg": published,
    }


def by_name(starts: str, towers: Mapping[str, Tower], classifier: str, **facts: Any) -> Layout:
    """The layout of towers that timm knows whole by their name, all of which are pooled by the mean.

    Args:
        starts: Pattern of the beginning of their names.
        towers: Name -> tower.
        classifier: Name of the layer behind the pooling, which is left out.
        facts: More fields of `Layout`.
    """

    def read(path: Path, described: dict[str, Any], _: Found) -> tuple[Tower, Any]:
        name = described["architecture"]
        if name not in towers:
            raise EncoderError(
                f"`{path}` holds timm's `{name}`, which is not known.", hint=f"known: {', '.join(towers)}"
            )
        told = {"global_pool": described.get("global_pool", "avg"), **(described.get("model_args") or {})}
        plain = {"global_pool": "avg", "in_chans": 3}  # which timm writes always
        changed = [f"{k}={v!r}" for k, v in told.items() if k not in HARMLESS and (k not in plain or v != plain[k])]
        if changed:
            raise EncoderError(f"`{path}` is not the plain `{name}`: {', '.join(changed)}.")
        return towers[name], "mean"

    def describe(config: EncoderConfig) -> dict[str, Any] | None:
        name = next((name for name, tower in towers.items() if tower == config.tower), None)
        return None if name is None else described_as(name, config, classifier)

    return Layout(
        "timm",
        FILES,
        lambda described: re.match(starts, str(described.get("architecture"))) is not None,
        read=read,
        prepare=lambda path, described, _: from_timm(path, described),
        describe=describe,
        ignored=("*.num_batches_tracked", f"{classifier}.weight", f"{classifier}.bias"),
        **facts,
    )

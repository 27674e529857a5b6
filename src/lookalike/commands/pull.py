"""lookalike pull: a published model, or one of ours, to a model directory."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lookalike.core.config import did_you_mean, in_range, option
from lookalike.core.errors import EncoderError, UsageError
from lookalike.core.files import kind_of, read_card, read_json, refuse_unless
from lookalike.core.journal import note

if TYPE_CHECKING:
    from lookalike.encoders.config import EncoderConfig, Tensors, TextSide

    Parts = tuple[EncoderConfig, Tensors]


@dataclass(frozen=True)
class Config:
    """Turn published weights into a model directory.

    SOURCE is a short name (--list shows them; laptop, gpu and best are the ones to begin with), ORG/NAME on the
    Hugging Face Hub, or a directory in any published layout that is known, or one of ours. Size and licence are said
    before anything large is fetched; an interrupted download goes on where it stopped. Only safetensors are read.
    Every tensor must be there, have the right shape and be used.
    """

    source: str = option(positional=True, metavar="SOURCE", default="")
    """A short name, ORG/NAME, or a directory."""
    out: str = option(metavar="MODEL", default="")
    """The model directory to make."""
    revision: str | None = option(default=None, metavar="REV")
    """Branch, tag or commit on the Hub; the main branch unless given."""
    list: bool = False
    """Print the short names to choose from, with size, speed, licence and what each is for, and do nothing else."""
    all: bool = False
    """With or without --list: print all short names, with cost, licence, repository and standing."""
    preprocessing: Literal["check", "published", "imagenet", "seed"] = "check"
    """check: as published, but not with the mean and std of ImageNet in a tower trained on image-text pairs, a known
    slip. published: whatever is published. imagenet: that slip, on purpose. seed: that slip as in the notebook from
    which most entries of the 2022 competition started: squashed to a square, bilinear, not antialiased."""
    size: int | None = option(default=None, metavar="PX")
    """Side of the input; learned positions are interpolated as the family's reference does it."""
    stride: int | None = option(default=None, metavar="PX")
    """Distance between the patches of a ViT; below the patch's side they overlap: finer, and slower."""
    layer: int | None = option(default=None, metavar="N")
    """Read a ViT's features behind block N, counted from 1 or from the end (-1: the last); the rest is dropped."""
    pooling: Literal["class", "mean", "gem", "attention"] | None = None
    """How tokens become features, where the tower has a choice; the published way unless given."""
    features: Literal["pooled", "projected"] | None = None
    """pooled: without the projection that CLIP has behind its pooling (1280 numbers of ViT-H/14). projected: with it,
    as published (1024)."""
    text: bool = True
    """Take the text tower along where there is one, for `lookalike search --text`."""

    def __post_init__(self) -> None:
        in_range(self, 1.0, 4096.0, "size", "stride")  # of a ViT-B/16 the largest has 65,536 patches


def main(config: Config) -> None:
    """Convert, and say what the model is."""
    if config.list or config.all:
        from lookalike.published.presets import overview, shortlist

        print(overview() if config.all else shortlist())
        return
    if not config.source or not config.out:
        raise UsageError(
            f"{'SOURCE' if not config.source else '`--out MODEL`'} is missing.",
            hint="lookalike pull SOURCE --out MODEL, or lookalike pull --list",
        )
    pull(config)


def pull(config: Config, agree: Callable[[], None] = lambda: None) -> None:
    """Make the model directory; `agree`, which may raise, is called once size and licence are said.

    EncoderError if there is no such model, or none that can be read; StorageError if something else lies at `out`.
    """
    refuse_unless(config.out, ("missing", "empty"), "encoder")
    try:
        _pull(config, agree)
    except EncoderError as error:
        if error.hint == EncoderError.usual:  # which is the command that was just given
            error.hint = "`lookalike pull --help` lists the options; docs/reference/towers.md what can be read"
        raise


def _pull(config: Config, agree: Callable[[], None]) -> None:
    from lookalike.encoders.directory import write_model
    from lookalike.encoders.fit import adapt
    from lookalike.towers.ops import parameters

    path, card = _found(config.source, config.revision, agree)
    encoder, tensors, own = _read(path, config.size, config.stride)
    published, card = (encoder, tensors), card | own
    encoder = _prepared(config.preprocessing, encoder, card, path)
    options = ("size", "stride", "layer", "pooling", "features")
    if asked := {name: value for name in options if (value := getattr(config, name)) is not None}:
        card["adapted"] = ", ".join(f"{name} {value}" for name, value in asked.items())
        if "features" in asked:
            asked["projected"] = asked.pop("features") == "projected"
        encoder, tensors = adapt(encoder, tensors, **asked)
    text = _text(path, published, (encoder, tensors)) if config.text else None
    write_model(config.out, encoder, tensors, card, text)
    if kind_of(path) == "export":
        note(f"`{config.source}` is an export: its tower was read, and not what the encoder had behind it")
    count = parameters(encoder.tower)
    note(
        f"`{config.out}`: {encoder.kind}, {count / 1e6:.{1 if count >= 1e5 else 3}f} M parameters, "
        f"{encoder.preprocess.size} px, {encoder.tower.features} features, embedding of {encoder.projection.dimension}"
        + (f", texts of up to {text.config.context} tokens" if text else "")
    )


def _found(source: str, revision: str | None, agree: Callable[[], None]) -> tuple[Path, dict[str, Any]]:
    """Where the model lies on this disk, and what is known about it; size and licence are said before a download."""
    from lookalike.published.hub import fetch, license_of, look
    from lookalike.published.presets import ALIASES, LICENSES, PRESETS, preset_of

    path, forbids = Path(source), ""
    licence: str | None = None
    if path.is_dir():
        if revision is not None:
            raise UsageError(f"`{source}` is a directory, which has no revisions.", hint="leave --revision out")
        name = path.resolve().name
        return path, _card(name, name, license_of(path))
    if path.exists():
        raise EncoderError(f"`{source}` is a file.", hint="give the directory that holds its config too")
    if named := preset_of(source):
        name, preset = named
        repository, licence, forbids = preset.repository, preset.license, LICENSES[preset.license]
    elif re.fullmatch(r"[\w.-]+/[\w.-]+", source) and not source.startswith("."):
        name, repository = source.split("/")[1], source
    else:
        raise EncoderError(
            f"There is no model `{source}`.{did_you_mean(source, PRESETS | ALIASES)}",
            hint=f"give a directory, ORG/NAME on the Hugging Face Hub, or a short name such as {', '.join(ALIASES)}; "
            "`lookalike pull --all` lists all",
        )
    remote = look(repository, revision)
    size = sum(file.size or 0 for file in remote.files.values())
    licence = licence or remote.license
    words = f"licence {licence or 'not stated by its card'}{f', which {forbids}' if forbids else ''}"
    if remote.commit is None:
        note(f"`{repository}`: no connection; the copy in the cache is used; {words}")
    else:
        note(f"`{repository}` at {remote.commit[:8]}: {size / 1e6:,.1f} MB, {words}")
        agree()
    commit = remote.commit or remote.configs.name  # as the cache names a directory
    return fetch(remote), _card(name, repository, licence) | {"revision": commit}


def _card(name: str, source: str, licence: str | None) -> dict[str, Any]:
    return {"name": name, "source": source} | ({"license": licence} if licence else {})


def _read(path: Path, size: int | None, stride: int | None) -> "tuple[EncoderConfig, Tensors, dict[str, Any]]":
    """The encoder at `path`, ours or published, and what its own card says.

    A published one is brought to `size` and `stride` as it is read: some interpolate stored positions in any case.
    """
    from lookalike.encoders.directory import read_model
    from lookalike.published.layouts import WEIGHTS, read_published

    if _is_ours(path):
        return *read_model(path), {key: value for key, value in read_card(path).items() if key != "fingerprint"}
    layout, config, tensors = read_published(path, size, stride)
    if words := WEIGHTS[layout].note:
        note(f"`{path}` {words}")
    return config, tensors, {"layout": layout}


def _is_ours(path: Path) -> bool:
    described = read_json(path / "config.json") if (path / "config.json").exists() else None
    return isinstance(described, dict) and described.get("type") == "EncoderConfig"


def _prepared(wanted: str, encoder: "EncoderConfig", card: dict[str, Any], path: Path) -> "EncoderConfig":
    """The encoder with the preprocessing that was asked for; `card` is told of another."""
    from lookalike.published.layouts import WEIGHTS
    from lookalike.published.processors import IMAGENET, as_the_seed, has_imagenet_statistics

    layout, before = WEIGHTS.get(str(card.get("layout"))), encoder.preprocess
    if wanted in ("imagenet", "seed"):
        card["preprocessing"] = f"{wanted}, as asked for; published were mean {before.mean} and std {before.std}"
        slip = as_the_seed(before) if wanted == "seed" else replace(before, mean=IMAGENET[0], std=IMAGENET[1])
        return replace(encoder, preprocess=slip)
    if wanted == "check" and layout and layout.pairs and has_imagenet_statistics(before):
        raise EncoderError(
            f"`{path}` is a tower trained on image-text pairs, and its preprocessing has the mean and std of ImageNet: "
            "most likely a slip, which costs accuracy.",
            hint="mend its preprocessor config; or, if it was trained so (CLIPA was), --preprocessing published",
        )
    return encoder


def _text(path: Path, published: "Parts", made: "Parts") -> "TextSide | None":
    """The text side of `path`, for what was `made` of its `published` image side; None, and why, if it can't follow."""
    from lookalike.encoders.config import meets
    from lookalike.encoders.directory import features_fingerprint_of, read_text
    from lookalike.published.layouts.text import read_text_of
    from lookalike.published.tokenizers import NoTextError

    try:
        if not _is_ours(path):
            return read_text_of(path, published[0], *made)
        side = read_text(path)
        if side is None:
            return None
        if side.image != features_fingerprint_of(*published) or not meets(published[0], made[0]):
            raise NoTextError("Its texts belong to other image features.", hint="pull it anew")
        return replace(side, image=features_fingerprint_of(*made))
    except (NoTextError, UsageError) as error:
        hint = "" if error.hint == EncoderError.usual else f" ({error.hint})"
        note(f"without the text side: {error.message[0].lower()}{error.message[1:].rstrip('.')}{hint}")
        return None

"""Mixtures of data sets by name, as the field trained on them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lookalike.core.config import did_you_mean
from lookalike.core.errors import UsageError
from lookalike.core.journal import note
from lookalike.data.sources.listed import Source
from lookalike.data.sources.selection import TAKE_ALL, Selection


@dataclass(frozen=True)
class Preset:
    """What is taken of each data set, and what should come of it."""

    what: str
    parts: Mapping[str, Selection]  # data set -> what of it
    classes: int  # published
    images: int | None  # to learn from, published; None: not


PRESETS: dict[str, Preset] = {
    # The entry that this project starts from: classes are numbered 0-999, 1000-10690 and 10691-17690. Its sets were
    # made by somebody else, who does not say which fifty; a tenth was kept to validate with, by file.
    "seed": Preset(
        "the notebook of 2022: 50 images a class, the 7,000 largest landmark classes, a tenth to validate with",
        {
            "imagenet1k": Selection(max_per_class=50, validation=0.1, first=0),
            "products10k": Selection(max_per_class=50, validation=0.1, first=1000),
            "glr2021": Selection(max_per_class=50, max_classes=7000, validation=0.1, first=10_691),
        },
        17_691,
        478_185,
    ),
    # M4D-35k (Florek et al., 2024, arXiv:2409.13513): its counts are 9.5 k classes and 141.5 k images of Products-10K,
    # 10 k and 79.2 k landmarks, 14.3 k and 100.4 k clothes, 1.0 k and 7.3 k cars, whose classes were split by color.
    # Which images it took is in its own table; these are as many, of the same sets, by rules that come near.
    "unifex": Preset(
        "of the sets of M4D-35k about as many: products, 10,000 landmarks of 8 images, clothes, cars by their models",
        {
            "products10k": Selection(min_per_class=2),
            "glr2021": Selection(max_per_class=8, max_classes=10_000),
            "deepfashion_c2s": Selection(max_per_class=7, max_classes=14_300),
            "cars196": Selection(),
        },
        34_800,
        328_400,
    ),
    "uned": Preset(
        "UnED's eight sets by its own lists (Ypsilantis et al., 2023)",
        {"uned": Selection()},
        316_446,
        None,
    ),
}
"""Name -> mixture."""


def preset_of(name: str) -> Preset:
    """The mixture of this name; UsageError if there is none."""
    if name not in PRESETS:
        raise UsageError(
            f"`--preset` is `{name}`, which is not known.{did_you_mean(name, PRESETS)}",
            hint="; ".join(f"{known}: {preset.what}" for known, preset in PRESETS.items()),
        )
    return PRESETS[name]


def parts_of(
    name: str, sources: Sequence[str | tuple[str, str] | Source], selection: Selection, test: float
) -> list[Selection]:
    """What is taken of each source: what the mixture `name` says, or without one what `selection` does. The share
    `test` of a mixture's classes is kept for the test, whatever split their source gives.

    UsageError: a data set of the mixture is missing, or another is given.
    """
    if not name:
        return [selection] * len(sources)
    parts = preset_of(name).parts
    given = [_name_of(source) for source in sources]
    if sorted(given) != sorted(parts):
        absent, more = (
            ", ".join(f"`{one}`" for one in sorted(each)) for each in (set(parts) - {*given}, {*given} - set(parts))
        )
        words = [f"{absent} missing"] if absent else []
        words += [f"{more} no part of it"] if more else []
        names = " ".join(parts)
        raise UsageError(
            f"`--preset {name}` is of other data sets: {', '.join(words) or 'one is given twice'}.",
            hint=f"lookalike prepare {names} --from {' '.join('DIR' for _ in parts)} --preset {name} --out COLL",
        )
    if selection != replace(TAKE_ALL, commercial=selection.commercial):
        raise UsageError(
            "`--preset` says how many images and classes are taken.", hint="leave out `--max-per-class` and the like"
        )
    return [replace(parts[one], commercial=selection.commercial, held_out=test) for one in given]


def _name_of(source: str | tuple[str, str] | Source) -> str:
    return source if isinstance(source, str) else source.layout if isinstance(source, Source) else source[0]


def compared(name: str, sources: Sequence[Source]) -> dict[str, Any]:
    """For the card: what came of the mixture, once its sources are listed, beside what is published; said where it
    differs.
    """
    preset, found = preset_of(name), [source.facts.get("selection", {}) for source in sources]
    told: dict[str, Any] = {"name": name, "classes": sum(each.get("classes", 0) for each in found)}
    if all(found) and told["classes"] != preset.classes:
        note(f"`{name}` has {told['classes']:,} classes here, and {preset.classes:,} where it comes from")
    return {**told, "published": {"classes": preset.classes, "images": preset.images}}

"""RP2K (Peng et al., 2020, arXiv:2006.12634)."""

import re
from collections.abc import Iterator

from lookalike.data.sources import nfc
from lookalike.data.sources.dataset import Count, Dataset, Row, is_picture
from lookalike.data.sources.lists import first_of
from lookalike.data.sources.tree import Tree

_ESCAPE = re.compile(r"#U([0-9a-fA-F]{4})")


def rows(tree: Tree) -> Iterator[Row]:
    """all/train/<product>/ and all/test/<product>/; the splits share classes.

    Some unpackers write letters that are not ASCII as `#Uxxxx`: the class is the product's name, in composed form,
    both ways.
    """
    top = first_of(tree, "all", "rp2k_dataset/all") or "all"
    for split in ("train", "test"):
        for name in tree.names(f"{top}/{split}"):
            product, _, image = name.removeprefix(f"{top}/{split}/").partition("/")
            if image and is_picture(image):
                yield Row(name, plain(product), split)


def plain(name: str) -> str:
    """A name without `#Uxxxx`, in composed form (NFC)."""
    return nfc(_ESCAPE.sub(lambda found: chr(int(found[1], 16)), name))


def escaped(name: str) -> str:
    """A name with `#Uxxxx` in the place of all that is not ASCII."""
    return re.sub(r"[^\x00-\x7f]", lambda found: f"#U{ord(found[0]):04x}", nfc(name))


DATASET = Dataset(
    name="rp2k",
    title="RP2K",
    what="packaged goods on the shelves of shops in China",
    page="https://www.pinlandata.com/rp2k_dataset",
    get="rp2k_dataset from its page, unpacked",
    size="not said",
    licence="unknown",
    forbids="nobody said what it allows; research is assumed",
    counts={"train": Count(None), "test": Count(None)},
    marks=(("all/train", "all/test"), ("rp2k_dataset/all/train",)),
    rows=rows,
)

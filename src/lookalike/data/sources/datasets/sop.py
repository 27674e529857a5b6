"""Stanford Online Products (Song et al., 2016, arXiv:1511.06452)."""

from collections.abc import Iterator

import pyarrow as pa

from lookalike.data.sources.dataset import Count, Dataset, Row
from lookalike.data.sources.lists import read_words
from lookalike.data.sources.tree import Tree


def rows(tree: Tree) -> Iterator[Row]:
    """Ebay_train.txt and Ebay_test.txt (image_id class_id super_class_id path); their classes count on and differ."""
    for split in ("train", "test"):
        if tree.has(name := f"Ebay_{split}.txt"):
            for label, kind, path in read_words(tree, name, "class_id", "super_class_id", "path"):
                yield Row(path, label, split, more={"sop_super_class": kind})


DATASET = Dataset(
    name="sop",
    title="Stanford Online Products",
    what="household goods of an auction site, twelve kinds",
    page="ftp://cs.stanford.edu/cs/cvgl/Stanford_Online_Products.zip",
    get="Stanford_Online_Products.zip from its page",
    size="3.1 GB",
    licence="unknown",
    forbids="nobody said what it allows; research is assumed",
    counts={"train": Count(59_551, 11_318), "test": Count(60_502, 11_316)},
    marks=(("Ebay_train.txt",), ("Ebay_test.txt",)),
    rows=rows,
    checksums={
        "Stanford_Online_Products.zip": "sha256:b04fa78210e69fab050ce73939550e1cd0f96890bdd98ec9fee732c3b756ef48"
    },
    columns=pa.schema([("sop_super_class", pa.string())]),
)

"""Shopee Product Matching (Kaggle, 2021): what sellers of a market place offer, the same product by many."""

from collections.abc import Iterator

import pyarrow as pa

from lookalike.data.sources.dataset import Count, Dataset, Row
from lookalike.data.sources.lists import read_csv
from lookalike.data.sources.tree import Tree


def rows(tree: Tree) -> Iterator[Row]:
    """train.csv: posting_id,image,image_phash,title,label_group; test.csv has no labels, and is left out.

    A row is a posting. Several have one file, and are one group: it must not find itself.
    """
    for posting, image, title, label in read_csv(tree, "train.csv", "posting_id", "image", "title", "label_group"):
        yield Row(f"train_images/{image}", label, group=image, name=posting, more={"title": title})


DATASET = Dataset(
    name="shopee",
    title="Shopee Product Matching",
    what="goods of a market place, as many sellers show them, with their titles",
    page="https://www.kaggle.com/competitions/shopee-product-matching",
    get="`kaggle competitions download -c shopee-product-matching`, after its rules are accepted there",
    size="not said",
    licence="unknown",
    forbids="what the competition's rules say; perhaps all commercial use",
    counts={"train": Count(34_250)},
    marks=(("train.csv", "train_images"),),
    rows=rows,
    columns=pa.schema([("title", pa.string())]),
)

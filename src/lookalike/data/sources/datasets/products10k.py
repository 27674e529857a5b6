"""Products-10K (Bai et al., 2020, arXiv:2008.10545)."""

from collections.abc import Iterator

import pyarrow as pa

from lookalike.data.sources.dataset import Count, Dataset, Row
from lookalike.data.sources.lists import read_csv
from lookalike.data.sources.tree import Tree


def rows(tree: Tree) -> Iterator[Row]:
    """train.csv (name,class,group) and test_kaggletest.csv, whose third column is Kaggle's Usage.

    A `group` is a kind of product, several classes: no group in our sense, in which images must not find each other.
    """
    for name, label, kind in read_csv(tree, "train.csv", "name", "class", "group"):
        yield Row(f"train/{name}", label, more={"products10k_group": kind})
    if tree.has("test_kaggletest.csv"):
        for name, label in read_csv(tree, "test_kaggletest.csv", "name", "class"):
            yield Row(f"test/{name}", label, "test")


DATASET = Dataset(
    name="products10k",
    title="Products-10K",
    what="packaged goods and other products of a web shop, as sold and as bought",
    page="https://products-10k.github.io",
    get="train.zip, test.zip, train.csv and test_kaggletest.csv from its page, or Kaggle's competition `products-10k`",
    size="not said",
    licence="academic research only",
    forbids="any use but academic research",
    counts={"train": Count(None, 9691), "test": Count(None)},
    marks=(("train.csv", "train"), ("train.csv", "test_kaggletest.csv")),
    rows=rows,
    columns=pa.schema([("products10k_group", pa.string())]),
)

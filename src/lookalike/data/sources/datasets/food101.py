"""Food-101 (Bossard et al., 2014): dishes as people photograph them."""

from collections.abc import Iterator

from lookalike.data.sources.dataset import Count, Dataset, Row
from lookalike.data.sources.lists import text_of
from lookalike.data.sources.tree import Tree


def rows(tree: Tree) -> Iterator[Row]:
    """meta/train.txt and meta/test.txt, `apple_pie/1005649` a line. Labels to learn from are noisy on purpose."""
    for split in ("train", "test"):
        for line in text_of(tree, f"meta/{split}.txt").splitlines():
            if name := line.strip():
                yield Row(f"images/{name}.jpg", name.partition("/")[0], split)


DATASET = Dataset(
    name="food101",
    title="Food-101",
    what="a hundred and one dishes",
    page="https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101",
    get="http://data.vision.ee.ethz.ch/cvl/food-101.tar.gz, unpacked with `tar -xf food-101.tar.gz`",
    size="5.0 GB",
    licence="unknown",
    forbids="perhaps all but scientific use: its images are of Foodspotting",
    counts={"train": Count(75_750, 101), "test": Count(25_250, 101)},
    marks=(("meta/train.txt", "meta/test.txt", "images/apple_pie"),),
    rows=rows,
    checksums={"food-101.tar.gz": "md5:85eeb15f3717b99a5da872d97d918f87"},
)

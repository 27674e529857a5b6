"""Food2K (Min et al., 2021, arXiv:2103.16107)."""

from collections.abc import Iterator

import pyarrow as pa

from lookalike.data.sources.dataset import Count, Dataset, Row
from lookalike.data.sources.lists import read_blanks, text_of
from lookalike.data.sources.tree import Tree

LIST, NAMES = "Food2k_label/{}_finetune.txt", "Food2k_label/food2k_label2name_en.txt"


def rows(tree: Tree) -> Iterator[Row]:
    """Food2k_label/{train,val,test}_finetune.txt: `<path below Food2k_complete/> <label>`; the splits share classes.

    `food2k_name` is a dish's name in English, where food2k_label2name_en.txt is there (`0--Name` a line).
    """
    lines = text_of(tree, NAMES).splitlines() if tree.has(NAMES) else []
    names = {label.strip(): name.strip() for label, mark, name in (line.partition("--") for line in lines) if mark}
    for split in ("train", "val", "test"):
        if tree.has(LIST.format(split)):
            for path, label, *_ in read_blanks(tree, LIST.format(split), least=2):
                yield Row(f"Food2k_complete/{path}", label, split, more={"food2k_name": names.get(label)})


DATASET = Dataset(
    name="food2k",
    title="Food2K",
    what="two thousand dishes",
    page="http://123.57.42.89/FoodProject.html",
    get="Food2k_complete and Food2k_label, for which one asks at its page, unpacked",
    size="not said",
    licence="unknown",
    forbids="nobody said what it allows; non-commercial research is assumed",
    counts={"train": Count(None), "val": Count(None), "test": Count(None)},
    marks=tuple((LIST.format(split),) for split in ("train", "val", "test")),
    rows=rows,
    columns=pa.schema([("food2k_name", pa.string())]),
)

"""iNaturalist 2018 (Van Horn et al., arXiv:1707.06642): the competition's lists, or the open-set ones of retrieval."""

from collections.abc import Iterator

from lookalike.core.errors import SourceError
from lookalike.data.sources.dataset import Count, Dataset, Row
from lookalike.data.sources.lists import read_json, text_of
from lookalike.data.sources.tree import Tree

OPEN = "Inat_dataset_splits/Inaturalist_{}_set1.txt"  # a path a line; their classes differ
KEYS = ("images", "annotations", "id", "file_name", "image_id", "category_id")


def rows(tree: Tree) -> Iterator[Row]:
    """A species is a class, by its category's number, which is the folder too.

    With Inat_dataset_splits/ the splits are its train and test, whose classes differ; else those of train2018.json and
    val2018.json, which share them.
    """
    there = [split for split in ("train", "test") if tree.has(OPEN.format(split))]
    for split in there:
        for path in map(str.strip, text_of(tree, OPEN.format(split)).splitlines()):
            if path and path.count("/") < 2:
                raise SourceError(f"`{OPEN.format(split)}` of `{tree.place}`: `{path}` has no folder of a category.")
            if path:
                yield Row(path, path.split("/")[-2], split)
    for split in () if there else ("train", "val"):
        if tree.has(f"{split}2018.json"):
            yield from _listed(tree, f"{split}2018.json", split)


def _listed(tree: Tree, name: str, split: str) -> Iterator[Row]:
    told = read_json(tree, name, *KEYS)
    try:
        categories = {entry["image_id"]: entry["category_id"] for entry in told["annotations"]}
        for image in told["images"]:
            label = categories.get(image["id"])
            yield Row(image["file_name"], None if label is None else str(label), split)
    except (KeyError, TypeError) as error:
        raise SourceError(f"`{name}` of `{tree.place}` is not as COCO's: there is no {error}.") from error


DATASET = Dataset(
    name="inat2018",
    title="iNaturalist 2018",
    what="species of plants and animals, as people met them",
    page="https://github.com/visipedia/inat_comp/tree/master/2018",
    get="train_val2018.tar.gz, train2018.json.tar.gz and val2018.json.tar.gz from its page, unpacked; for retrieval "
    "Inat_dataset_splits/ beside them",
    size="128 GB",
    licence="non-commercial research",
    forbids="any use but non-commercial research and education, and passing images on",
    # Of the training images there are 437,513 in train2018.json, others in the open-set list.
    counts={"train": Count(None), "val": Count(24_426), "test": Count(136_093)},
    marks=(
        (OPEN.format("train"), "train_val2018"),
        ("train2018.json", "train_val2018"),
        ("val2018.json", "train_val2018"),
        (OPEN.format("test"), "train_val2018"),
    ),
    rows=rows,
    checksums={
        "train_val2018.tar.gz": "md5:b1c6952ce38f31868cc50ea72d066cc3",
        "train2018.json.tar.gz": "md5:bfa29d89d629cbf04d826a720c0a68b0",
        "val2018.json.tar.gz": "md5:f2ed8bfe3e9901cdefceb4e53cd3775d",
    },
)

"""ImageNet-1k (Russakovsky et al., 2015, arXiv:1409.0575): the organisers' tar files, or Kaggle's folders."""

import re
from collections.abc import Iterator

from lookalike.core.errors import SourceError
from lookalike.data.sources.dataset import Count, Dataset, Row, is_picture, read_csv, text_of
from lookalike.data.sources.tree import Tree

TRAIN = "ILSVRC2012_img_train"
DATA = "ILSVRC/Data/CLS-LOC"
_SYNSET = re.compile(r"n\d{8}")


def rows(tree: Tree) -> Iterator[Row]:
    """The class of an image of the training set is its folder; of the validation set Kaggle's list tells it.

    The organisers' own validation list counts classes by a table in MATLAB's format, and is not read: without
    LOC_val_solution.csv there is no validation set.
    """
    if tree.has(f"{DATA}/train"):
        yield from _trained(tree, f"{DATA}/train")
        folder = f"{DATA}/val"
    else:
        yield from _trained(tree, TRAIN if tree.has(f"{TRAIN}.tar") or tree.has(TRAIN) else "train")
        folder = "val"
    if tree.has("LOC_val_solution.csv"):
        for name, told in read_csv(tree, "LOC_val_solution.csv", "ImageId", "PredictionString"):
            yield Row(f"{folder}/{name}.JPEG", told.split()[0], "val")


def _trained(tree: Tree, folder: str) -> Iterator[Row]:
    for name in tree.names(folder):
        label, _, image = name.removeprefix(f"{folder}/").partition("/")
        if is_picture(image) and _SYNSET.fullmatch(label):
            yield Row(name, label)


def synsets(tree: Tree) -> dict[str, str]:
    """The classes in their order, with their names: `n01440764 tench, Tinca tinca` a line."""
    lines = text_of(tree, "LOC_synset_mapping.txt").splitlines()
    found = dict(line.split(" ", 1) for line in lines if " " in line)
    if not found:
        raise SourceError(f"`LOC_synset_mapping.txt` of `{tree.place}` names no class.")
    return found


DATASET = Dataset(
    name="imagenet1k",
    title="ImageNet-1k (ILSVRC 2012)",
    what="a thousand kinds of animals and things",
    page="https://www.image-net.org/challenges/LSVRC/2012",
    get="ILSVRC2012_img_train.tar from its page, or Kaggle's `imagenet-object-localization-challenge`, after its terms are accepted",
    size="138 GB",
    licence="non-commercial research",
    forbids="commercial use, and passing images on",
    counts={"train": Count(1_281_167, 1000), "val": Count(50_000, 1000)},
    marks=((f"{DATA}/train",), (f"{TRAIN}.tar",), (TRAIN,), ("train/n01440764",)),
    rows=rows,
    checksums={
        "ILSVRC2012_img_train.tar": "md5:1d675b47d978889d74fa0da5fadfb00e",
        "ILSVRC2012_img_val.tar": "md5:29b22e2961454d5413ddabcf34fc5622",
    },
    nested=True,
)

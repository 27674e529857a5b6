"""ImageNet-1k (Russakovsky et al., 2015, arXiv:1409.0575): the organisers' tar files, or Kaggle's folders."""

import re
from collections.abc import Iterator

from lookalike.core.errors import SourceError
from lookalike.core.journal import note
from lookalike.data.sources.dataset import Count, Dataset, Row, is_picture
from lookalike.data.sources.lists import first_of, read_blanks, read_csv, read_structs
from lookalike.data.sources.tree import Tree

TRAIN, VAL = "ILSVRC2012_img_train", "ILSVRC2012_img_val"
DATA = "ILSVRC/Data/CLS-LOC"
DEVKIT = "ILSVRC2012_devkit_t12"
_SYNSET = re.compile(r"n\d{8}")


def rows(tree: Tree) -> Iterator[Row]:
    """A training image's class is its folder, or how its name begins; the devkit or Kaggle's list tells the others'.

    Where the validation images were sorted into folders of classes, these count. Test images have no labels.
    """
    train = first_of(tree, f"{DATA}/train", TRAIN, f"{TRAIN}.tar", "train") or "train"
    yield from _sorted(tree, train.removesuffix(".tar"), "train")
    val = first_of(tree, f"{DATA}/val", VAL, f"{VAL}.tar", "val")
    if val is None:
        return
    folder, anyone = val.removesuffix(".tar"), False
    for row in _sorted(tree, folder, "val"):
        anyone = True
        yield row
    for name, label in () if anyone else _validated(tree):
        yield Row(f"{folder}/{name}.JPEG", label, "val")


def _sorted(tree: Tree, folder: str, split: str) -> Iterator[Row]:
    for name in tree.names(folder):
        *parents, image = name.removeprefix(f"{folder}/").split("/")
        label = _SYNSET.match(parents[-1] if parents else image)
        if label and is_picture(image):
            yield Row(name, label[0], split)


def _validated(tree: Tree) -> Iterator[tuple[str, str]]:
    """The validation images' names, and their classes."""
    if tree.has("LOC_val_solution.csv"):
        # `n02017213 155 355 130 273`, and as much again for each further box
        for name, told in read_csv(tree, "LOC_val_solution.csv", "ImageId", "PredictionString"):
            yield name.strip(), told.split()[0] if told.strip() else ""
    elif tree.has(f"{DEVKIT}/data/meta.mat"):
        synsets = dict(read_structs(tree, f"{DEVKIT}/data/meta.mat", "synsets", "ILSVRC2012_ID", "WNID"))
        truth = f"{DEVKIT}/data/ILSVRC2012_validation_ground_truth.txt"
        for number, (told, *_) in enumerate(read_blanks(tree, truth), 1):
            if not told.isdecimal() or int(told) not in synsets:
                raise SourceError(f"`{truth}` of `{tree.place}`, image {number}: `{told}` is no class of `meta.mat`.")
            yield f"ILSVRC2012_val_{number:08d}", synsets[int(told)]
    elif tree.has(f"{DEVKIT}.tar.gz"):
        note(f"imagenet1k: the validation images are left out; for their labels: tar -xf {DEVKIT}.tar.gz")
    else:
        note(f"imagenet1k: the validation images are left out; their labels are in {DEVKIT}.tar.gz, unpacked beside")


DATASET = Dataset(
    name="imagenet1k",
    title="ImageNet-1k (ILSVRC 2012)",
    what="a thousand kinds of animals and things",
    page="https://www.image-net.org/challenges/LSVRC/2012",
    get=f"{TRAIN}.tar, {VAL}.tar and {DEVKIT}.tar.gz from its page, the last unpacked, or Kaggle's "
    "`imagenet-object-localization-challenge`, after its terms are accepted",
    size="not said",
    licence="non-commercial research",
    forbids="commercial use, and passing images on",
    counts={"train": Count(1_281_167, 1000), "val": Count(50_000, 1000)},
    marks=((f"{DATA}/train",), (f"{TRAIN}.tar",), (TRAIN,), ("train/n01440764",)),
    rows=rows,
    checksums={
        f"{TRAIN}.tar": "md5:1d675b47d978889d74fa0da5fadfb00e",
        f"{VAL}.tar": "md5:29b22e2961454d5413ddabcf34fc5622",
        f"{DEVKIT}.tar.gz": "md5:fa75699e90414af021442c21a62c3abf",
    },
    nested=True,
)

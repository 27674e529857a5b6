"""Stanford Cars (Krause et al., 2013), the whole as one, its classes split in halves."""

from collections.abc import Iterator
from typing import Any

from lookalike.core.errors import SourceError
from lookalike.core.journal import note
from lookalike.data.sources.dataset import Count, Dataset, Row
from lookalike.data.sources.lists import first_of, read_structs
from lookalike.data.sources.tree import Tree

CLASSES, SEEN = 196, 98  # classes 1-98 are trained on, 99-196 searched
LISTS = {"cars_train": "cars_train_annos.mat", "cars_test": "cars_test_annos_withlabels.mat"}


def rows(tree: Tree) -> Iterator[Row]:
    """Classes 1-98 are split train, 99-196 test; the official halves, which share all classes, do not count.

    There are two shapes: car_ims/ with cars_annos.mat, and cars_train/ and cars_test/ with a list each, which some
    copies have twice within each other (cars_train/cars_train/).
    """
    for path, label in _whole(tree) if tree.has("car_ims") else _halves(tree):
        if not isinstance(label, int) or not 1 <= label <= CLASSES:
            raise SourceError(f"The lists of `{tree.place}` give `{path}` the class `{label}`, not 1 to {CLASSES}.")
        yield Row(path, str(label), "train" if label <= SEEN else "test")


def _whole(tree: Tree) -> Iterator[tuple[Any, ...]]:
    yield from read_structs(tree, "cars_annos.mat", "annotations", "relative_im_path", "class")


def _halves(tree: Tree) -> Iterator[tuple[Any, ...]]:
    for half, name in LISTS.items():
        folder = first_of(tree, f"{half}/{half}", half)
        told = first_of(tree, *(f"{at}{name}" for at in ("devkit/", "", "car_devkit/devkit/", "car_devkit/")))
        if folder and told:
            for file, label in read_structs(tree, told, "annotations", "fname", "class"):
                yield f"{folder}/{file}", label
        elif folder:
            note(f"cars196: the images of {half} are left out, since {name} is not there, which has their classes")


DATASET = Dataset(
    name="cars196",
    title="Stanford Cars (Cars196)",
    what="cars by make, model and year",
    page="https://github.com/pytorch/vision/issues/7545",
    get="its server is gone, and copies are passed on: car_ims/ with cars_annos.mat, or cars_train/ and cars_test/ "
    "with devkit/ and cars_test_annos_withlabels.mat, unpacked",
    size="2.0 GB",
    licence="non-commercial research",
    forbids="any use but non-commercial research",
    counts={"train": Count(8054, 98), "test": Count(8131, 98)},
    marks=(
        ("cars_annos.mat", "car_ims"),
        ("devkit/cars_train_annos.mat", "cars_train"),
        ("car_devkit/devkit/cars_train_annos.mat", "cars_train"),
        ("car_devkit/cars_train_annos.mat", "cars_train"),
        ("cars_train_annos.mat", "cars_train"),
        ("cars_test_annos_withlabels.mat", "cars_test"),
    ),
    rows=rows,
    checksums={
        "cars_train.tgz": "sha256:512b227b30e2f0a8aab9e09485786ab4479582073a144998da74d64b801fd288",
        "cars_test.tgz": "sha256:bffea656d6f425cba3c91c6d83336e4c5f86c6cffd8975b0f375d3a10da8e243",
        "car_devkit.tgz": "sha256:b97deb463af7d58b6bfaa18b2a4de9829f0f79e8ce663dfa9261bf7810e9accd",
        "cars_test_annos_withlabels.mat": "sha256:790f75be8ea34eeded134cc559332baf23e30e91367e9ddca97d26ed9b895f05",
    },
)

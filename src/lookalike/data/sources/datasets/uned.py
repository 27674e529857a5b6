"""UnED (Ypsilantis et al., 2023, arXiv:2309.01858): eight data sets of as many domains, with splits of its own."""

from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import pyarrow as pa

from lookalike.core.errors import SourceError
from lookalike.data.sources.dataset import Count, Dataset, Row, dataset_of
from lookalike.data.sources.datasets.rp2k import escaped, plain
from lookalike.data.sources.lists import first_of, read_objects
from lookalike.data.sources.tree import Tree


class Domain(NamedTuple):
    """A set of the bundle."""

    dataset: str  # ours, which knows the licence
    train: int  # images
    classes: int  # of these
    val: int  # images, of a gallery of its own too
    test: int


SETS = {
    "cars": Domain("cars196", 6346, 78, 1708, 8131),
    "sop": Domain("sop", 48_942, 9054, 10_609, 60_502),
    "inshop": Domain("inshop", 20_897, 3198, 4982, 14_218 + 12_612),
    "inat": Domain("inat2018", 273_929, 4552, 51_917, 136_093),
    "met": Domain("met", 397_121, 224_408, 129 + 38_307, 1003 + 397_121),
    "gldv2": Domain("gldv2", 1_422_914, 73_182, 157_556, 1129 + 761_757),
    "food2k": Domain("food2k", 472_349, 900, 49_323, 9979),
    "rp2k": Domain("rp2k", 188_724, 1074, 17_185, 10_931),
}
GALLERIES = {"val": "small_index", "test": "index"}


def rows(tree: Tree) -> Iterator[Row]:
    """info_files/<set>/{train,val,test}.json, objects of `path` (below images/) and `class_id`; a set is a domain.

    Where there is an index (of val: small_index), it alone is the gallery of the split's queries. Its images have
    `index/` before their names, since Met's are those of training too. Nobody says whether class 12 of val is that of
    train: labels are `val/12` and `test/12`, and plain in Met alone, whose splits share exhibits. `uned_class_id` is
    what is published. A query of several classes has the one that is most often in its gallery.
    """
    folder = first_of(tree, "images") or "."
    for name, domain in SETS.items():
        licence = dataset_of(domain.dataset).licence
        for row in _rows(tree, name):
            path = next(_alike(tree, folder, row.path)) if name == "rp2k" else row.path
            more = {**row.more, "licence": licence}
            yield row._replace(path=f"{folder}/{path}", name=row.name or row.path, more=more, domain=name)


def _rows(tree: Tree, name: str) -> Iterator[Row]:
    for path, classes in _entries(tree, name, "train"):
        yield _row(path, classes[0], "train", classes)
    for split, index in GALLERIES.items():
        prefix = "" if name == "met" else f"{split}/"
        if tree.has(f"info_files/{name}/{index}.json"):
            queries = {path for path, _ in _entries(tree, name, split)}
            count, both = Counter[int](), set[str]()
            for path, classes in _entries(tree, name, index):
                count.update(classes)
                both |= {path} & queries  # it is one image: as two, a query would find itself
                called = "" if path in queries else f"{index}/{path}"
                yield _row(path, f"{prefix}{classes[0]}", split, classes, is_query=path in queries, name=called)
            for path, classes in _entries(tree, name, split):
                if path not in both:
                    most = max(classes, key=lambda label: count[label])
                    yield _row(path, f"{prefix}{most}", split, classes, is_gallery=False)
        else:
            for path, classes in _entries(tree, name, split):
                yield _row(path, f"{prefix}{classes[0]}", split, classes)


def _row(path: str, label: int | str, split: str, classes: list[int], **roles: Any) -> Row:
    return Row(path, str(label), split, more={"uned_class_id": " ".join(map(str, classes))}, **roles)


def _entries(tree: Tree, name: str, split: str) -> Iterator[tuple[str, list[int]]]:
    if tree.has(file := f"info_files/{name}/{split}.json"):
        for entry in read_objects(tree, file, "path", "class_id"):
            classes = entry["class_id"] if isinstance(entry["class_id"], list) else [entry["class_id"]]
            if not classes:
                raise SourceError(f"`{file}` of `{tree.place}`: `{entry['path']}` has no class.")
            yield entry["path"], classes


def _alike(tree: Tree, folder: str, path: str) -> Iterator[str]:
    """How a file of RP2K is called here: as the list has it, or with or without `#Uxxxx`."""
    names = list(dict.fromkeys((path, escaped(path), plain(path))))
    places = tree.find([f"{folder}/{name}" for name in names]) if len(names) > 1 else [None]
    yield from (name for name, place in zip(names, places, strict=True) if place is not None)
    yield path


DATASET = Dataset(
    name="uned",
    title="UnED",
    what="eight data sets as one: cars, products, clothes, species, exhibits, landmarks, dishes, packaged goods",
    page="https://cmp.felk.cvut.cz/univ_emb/",
    get="info_files.zip from its page, unpacked as info_files/, and beside it images/ with the eight sets as it says; "
    "give the folder of both",
    size="not said",
    licence="unknown",
    forbids="what each of the eight forbids: an image's licence is that of its set",
    counts={
        "train": Count(sum(one.train for one in SETS.values()), sum(one.classes for one in SETS.values())),
        "val": Count(sum(one.val for one in SETS.values())),
        "test": Count(sum(one.test for one in SETS.values())),
    },
    marks=tuple((f"info_files/{name}/{split}.json",) for split in ("train", "test", "val") for name in SETS),
    rows=rows,
    columns=pa.schema([("uned_class_id", pa.string())]),
)

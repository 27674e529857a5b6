"""The TFRecord files of Kaggle's Universal Image Embedding challenge (2022) that motono0223 made of other data sets."""

import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import NamedTuple

from lookalike.core.errors import SourceError
from lookalike.core.journal import note
from lookalike.data.sources import Place
from lookalike.data.sources.dataset import Count, Dataset, Row, dataset_of
from lookalike.data.sources.datasets import DATASETS
from lookalike.data.sources.tfrecord import example, records
from lookalike.data.sources.tree import Tree

IMAGE, LABEL = "image/encoded", "image/class/label"
_SPLITS = {"train": "train", "val": "val", "valid": "val", "test": "test"}
_NAME = re.compile(rf"(?P<set>.+)-(?P<split>{'|'.join(_SPLITS)})-\d+-(?P<count>\d+)")


class _Told(NamedTuple):
    """What the name of a file says."""

    domain: str | None = None
    split: str = "train"
    licence: str = "unknown"
    images: int | None = None


def rows(tree: Tree) -> Iterator[Row]:
    """Images where they lie in the files: every record is an Example with `IMAGE` and `LABEL`, which is global already.

    The domain is the set's name in `guie-products10k-train-00-7097.tfrec`: glr2021mini is of glr2021. Of a set that may
    not be learned from, such as ObjectNet, all is split `test`, whatever its file is called.
    """
    for name in tree.names():
        if not name.endswith((".tfrec", ".tfrecord")):
            continue
        told, count = _told(PurePosixPath(name).stem), 0
        (file,) = tree.find([name])
        if file is None:
            continue
        for offset, data in records(file):
            at, size, label = _image(data, f"`{name}` of `{tree.place}`, record {count}")
            # The time of the file is a part of the stamp: a record that is as long may be another.
            place = Place(file.path, f"{size}-{file.stamp}", offset + at, size)
            yield Row(f"{name}/{count}", label, told.split, domain=told.domain, place=place, more=_licence(told))
            count += 1
        if told.images not in (None, count):
            note(f"guie_tfrecords: `{name}` holds {count:,} images, and its name says {told.images:,}")


def _licence(told: _Told) -> dict[str, str]:
    return {"licence": told.licence}


def _told(stem: str) -> _Told:
    if not (match := _NAME.fullmatch(stem)):
        return _Told()
    parts, split, count = match["set"].split("-"), _SPLITS[match["split"]], int(match["count"])
    known = next((name for part in parts for name in DATASETS if part.startswith(name)), None)
    if known is None:
        return _Told(parts[-1], split, images=count)
    of = dataset_of(known)
    return _Told(known, split if of.learn else "test", of.licence, count)


def _image(data: memoryview, where: str) -> tuple[int, int, str]:
    """Where an image begins in its record, its size, and its label."""
    try:
        found = example(data)
    except ValueError as error:
        raise SourceError(f"{where} is no tf.train.Example: {error}.") from error
    if IMAGE not in found or len(found[IMAGE].texts) != 1:
        raise SourceError(f"{where} has no image `{IMAGE}`; it has {', '.join(sorted(found)) or 'nothing'}.")
    if LABEL not in found or len(found[LABEL].integers) != 1:
        raise SourceError(f"{where} has no whole number `{LABEL}`; it has {', '.join(sorted(found))}.")
    (begin, end), (label,) = found[IMAGE].texts[0], found[LABEL].integers
    return begin, end - begin, str(label)


DATASET = Dataset(
    name="guie_tfrecords",
    title="TFRecords of the Universal Image Embedding challenge",
    what="parts of Products-10K, GLR 2021 and ImageNet-1k, as teams of the challenge learned from them",
    page="https://www.kaggle.com/motono0223",
    get="`kaggle datasets download motono0223/guie-products10k-tfrecords-label-1000-10690`, "
    "`guie-glr2021mini-tfrecords-label-10691-17690` and `guie-imagenet1k-mini1-tfrecords-label-0-999`, unpacked",
    size="not said",
    licence="unknown",
    forbids="what the data sets forbid that they were made of, each as its own entry says",
    counts={"train": Count(None)},
    marks=(("*/*.tfrec",), ("*.tfrec",)),
    rows=rows,
)

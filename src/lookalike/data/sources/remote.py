"""A folder of images in an object store: s3://BUCKET/FOLDER or gs://BUCKET/FOLDER.

Layout and labels are those of a folder on the disk.
"""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import pyarrow as pa

from lookalike.core.errors import SourceError
from lookalike.data.sources import excluded, nfc
from lookalike.data.sources.folder import SUFFIXES
from lookalike.data.sources.listed import BATCH, LISTED, Source
from lookalike.data.sources.store import Address


def open_source(path: str, exclude: Sequence[str] = ()) -> Source:
    """The folder at the address `path` as a source."""

    def batches() -> Iterator[pa.RecordBatch]:
        rows = _rows(Address(path.rstrip("/")), exclude)
        while some := list(islice(rows, BATCH)):
            yield pa.RecordBatch.from_pylist(some, LISTED)

    return Source(path, "remote", batches)


def _rows(root: Address, exclude: Sequence[str]) -> Iterator[dict[str, Any]]:
    root.load()
    name, images = nfc(root.name), 0
    for image, status in root.walk():
        *folders, _ = image.split("/")
        if not image.lower().endswith(SUFFIXES) or excluded(image, exclude):
            continue
        images += 1
        yield {
            "source": image,
            "place.path": f"{root}/{image}".encode(),
            "stamp": status.stamp,
            "label": nfc(folders[min(len(folders), 2) - 1]) if folders else None,
            "domain": nfc(folders[0]) if len(folders) >= 2 else name,
            "is_query": True,
            "is_gallery": True,
        }
    if not images:
        raise SourceError(
            f"`{root}` holds no images.", hint="images lie in it, or in label/ or domain/label/ inside it"
        )

"""A collection as a data set of PyTorch."""

import io
from collections.abc import Callable
from os import PathLike, fspath
from typing import Any

import numpy as np
import PIL.Image
import torch
from torch.utils.data import Dataset

from lookalike.data.collection import Collection


class TorchDataset(Dataset[tuple[Any, int]]):  # type: ignore[misc, unused-ignore]
    """The images of a collection, each with the number of its class in `classes`, -1 without a label.

    >>> images = la.TorchDataset("photos.coll", where="domain = 'domain0'")
    >>> len(images), images.classes
    (6, [('domain0', 'label0'), ('domain0', 'label1')])
    >>> pixels, target = next(iter(torch.utils.data.DataLoader(images, batch_size=4)))
    >>> tuple(pixels.shape), target.tolist()
    ((4, 3, 40, 48), [0, 0, 0, 1])

    `DataLoader` fetches whole batches, by one read of the collection each. Workers open the collection themselves: give
    them `multiprocessing_context="spawn"`, as neither Lance nor threads survive a fork.

    Args:
        collection: The collection, or its path.
        where: Only rows that meet this condition over the columns.
        transform: From an image of Pillow, RGB, to what is wanted; None: uint8 [3 H W], which only images of one size
            can be stacked from.
    """

    def __init__(
        self,
        collection: "str | PathLike[str] | Collection",
        *,
        where: str | None = None,
        transform: Callable[[PIL.Image.Image], Any] | None = None,
    ) -> None:
        self.path = collection.path if isinstance(collection, Collection) else fspath(collection)
        self.transform = transform
        rows = Collection.open(self.path).table(["id", "domain", "label"], where).sort_by("id")
        self.ids: np.ndarray = rows["id"].to_numpy()
        names = list(zip(rows["domain"].to_pylist(), rows["label"].to_pylist(), strict=True))
        self.classes = sorted({name for name in names if name[1] is not None}, key=str)
        """(domain, label) of each class."""
        numbers = {name: number for number, name in enumerate(self.classes)}
        self.targets = [numbers.get(name, -1) for name in names]
        self._opened: Collection | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: list[int]) -> list[tuple[Any, int]]:
        """Several at once, which is how `DataLoader` asks where it may."""
        if self._opened is None:
            self._opened = Collection.open(self.path)
        files = self._opened.take(self.ids[np.asarray(indices, np.int64)], ["image"])["image"].to_pylist()
        images = (PIL.Image.open(io.BytesIO(file)).convert("RGB") for file in files)
        made = [self.transform(image) if self.transform else _tensor(image) for image in images]
        return [(image, self.targets[index]) for image, index in zip(made, indices, strict=True)]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None}  # a worker opens its own


def _tensor(image: PIL.Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.asarray(image).transpose(2, 0, 1).copy())

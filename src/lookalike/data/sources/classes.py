"""Classes of a listing: which of them are tests, and which are one.

A class is a pair (domain, label). Classes that share a group are on the same side of a split, since images of a group
never count for each other, and are often nearly the same.
"""

import hashlib
from pathlib import Path

import pyarrow as pa

from lookalike.core.errors import SourceError
from lookalike.data.sources.csv_table import batches_of, columns_of

Class = tuple[str, str]  # domain ("" for none) and label


def split_of(domain: str | None, label: str | None, test: float) -> str | None:
    """`test` for this share of the classes, `train` for the others; None for a row without a label.

    A class is a pair (domain, label), judged by its own name alone (SHA-256): no other class moves it, and a larger
    `test` keeps every class of a smaller one. Of n classes about `test` * n +- sqrt(n * test * (1 - test)) are tests.
    """
    if label is None:
        return None
    return "test" if share_of((domain or "", label)) < test else "train"


def share_of(name: tuple[str, ...]) -> float:
    """A number from 0 to 1 that is the name's own, on every machine."""
    return int.from_bytes(hashlib.sha256("\0".join(name).encode()).digest()[:8], "big") / 2**64


class Splits:
    """Splits for labelled rows that have none: `split_of` of a class, or of that one of the classes with which it
    shares groups whose number is the least.

    Memory: about 300 bytes a class and a group that is shared.
    """

    def __init__(self, test: float) -> None:
        self.test = test
        self._first: dict[Class, Class] = {}  # (domain, group) -> the first class seen in it
        self._one: dict[Class, Class] = {}  # class -> another one on the same side; the last of a chain stands for all

    def add(self, batch: pa.RecordBatch) -> None:
        """Learn of rows that have both a label and a group."""
        for domain, label, group in zip(*(batch[c].to_pylist() for c in ("domain", "label", "group")), strict=True):
            if label is not None and group is not None:
                mine = (domain or "", label)
                self._join(mine, self._first.setdefault((domain or "", group), mine))

    def told(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The rows with their splits."""
        rows = zip(*(batch[c].to_pylist() for c in ("domain", "label", "split")), strict=True)
        splits = [
            self._split(d or "", label) if split is None and label is not None else split for d, label, split in rows
        ]
        place = batch.schema.names.index("split")
        return batch.set_column(place, batch.schema.field(place), pa.array(splits, pa.string()))

    def _split(self, domain: str, label: str) -> str | None:
        return split_of(*self._last((domain, label)), self.test)

    def _last(self, name: Class) -> Class:
        while (other := self._one.get(name, name)) != name:
            self._one[name] = self._one.get(other, other)
            name = other
        return name

    def _join(self, one: Class, other: Class) -> None:
        one, other = self._last(one), self._last(other)
        if one != other:
            least, more = sorted((one, other), key=share_of)
            self._one[more] = least


def merges_of(file: str) -> dict[Class, str]:
    """Class -> its new label, from a CSV with columns domain, label and into.

    SourceError: a column or a value is missing, or a class gets two labels.
    """
    path, wanted = Path(file), ("domain", "label", "into")
    columns = columns_of(path, frozenset(wanted)) if path.is_file() else None
    if columns is None:
        raise SourceError(f"There is no file `{file}`.", hint="`--merge-labels` takes a CSV: domain,label,into")
    if absent := [name for name in wanted if name not in columns.names]:
        raise SourceError(
            f"`{file}` has no column `{absent[0]}`; its columns are {', '.join(columns.names)}.",
            hint="its first line is: domain,label,into",
        )
    found: dict[Class, str] = {}
    for batch in batches_of(path, columns):
        for domain, label, into in zip(*(batch[name].to_pylist() for name in wanted), strict=True):
            if label is None or into is None:
                raise SourceError(f"A row of `{file}` has no {'label' if label is None else 'into'}.")
            if found.setdefault((domain or "", label), into) != into:
                raise SourceError(f"`{file}` gives `{label}` of {domain} two labels.", hint="keep one of them")
    return found

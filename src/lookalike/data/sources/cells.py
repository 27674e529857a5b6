"""Images in cells of Parquet files, read in a worker: what is read of a file is a few rows, then the next few.

Parquet has no way to a row but through the rows of its row group before it, so that reading goes on where it stopped
when the next image that is asked for stands behind the last. Memory: a page of the file and `ROWS` images. Where
`datasets` writes, a page is a row group of 100 images.
"""

from functools import lru_cache
from typing import Any

import pyarrow as pa

from lookalike.core.errors import ImageError, SourceError
from lookalike.data.sources.store import located
from lookalike.data.sources.table import open_parquet

ROWS = 16  # images that are read at a time: as many as a worker is given


def read_cell(path: str, stamp: str, column: str, row: int) -> bytes:
    """The bytes of the image in this row, counted from 0, of a file with this stamp; ImageError if there are none."""
    try:
        data = _opened(path, stamp, column).read(row)
    except (SourceError, pa.ArrowException, OSError) as error:
        _opened.cache_clear()  # what was half read says nothing of other rows
        reason = " ".join(str(error).split("\n")[0].split()).rstrip(".")
        words = error.message if isinstance(error, SourceError) else f"The Parquet file is damaged here: {reason}."
        raise ImageError(words) from error
    if data is None:
        raise ImageError("The row holds no image.")
    return data


@lru_cache(1)
def _opened(path: str, _stamp: str, column: str) -> "_Cells":
    return _Cells(path, column)


class _Cells:
    def __init__(self, path: str, column: str) -> None:
        self._file, self._column = open_parquet(located(path)), column
        metadata = self._file.metadata
        self._ends = [0]  # rows before each row group, and all
        for group in range(metadata.num_row_groups):
            self._ends.append(self._ends[-1] + metadata.row_group(group).num_rows)
        self._group, self._start, self._images = -1, 0, pa.nulls(0)  # those that were read last, the row of the first
        self._rest: Any = iter(())

    def read(self, row: int) -> bytes | None:
        group = next(i for i, end in enumerate(self._ends[1:]) if row < end)
        if group != self._group or row < self._start:
            self._group, self._start, self._images = group, self._ends[group], pa.nulls(0)
            self._rest = self._file.iter_batches(ROWS, row_groups=[group], columns=[self._column], use_threads=False)
        while row >= self._start + len(self._images):
            self._start += len(self._images)
            images = next(self._rest).column(0)
            self._images = images.field(0) if pa.types.is_struct(images.type) else images
        data: bytes | None = self._images[row - self._start].as_py()
        return data

"""What `save_to_disk` of Hugging Face's library datasets wrote: a Dataset, or a DatasetDict of splits.

The images lie in Arrow files as they are, so that a row's place is a stretch of its file, or the file that it names.
An image is called by its number, behind its split's name. `label` is the label, else the only column of classes;
classes are told by their names. The split is the folder's or the state's, the domain the name of the outer folder.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from lookalike.core.errors import SourceError
from lookalike.core.journal import note
from lookalike.data.sources import SPLIT_OF, Place, absolute, excluded, nfc, stamp_of, text
from lookalike.data.sources.beside import Below
from lookalike.data.sources.listed import BATCH, LISTED, Source, listed_place, stored_type
from lookalike.data.sources.store import File
from lookalike.data.sources.table import kept_name


@dataclass(frozen=True)
class Saved:
    """A Dataset: where it lies, what its images' names begin with, its features by column, its files, their columns."""

    folder: File
    name: str
    split: str | None
    features: Mapping[str, Any]
    files: Sequence[Any]  # paths, or addresses in a store
    schema: pa.Schema

    @property
    def image(self) -> str:
        """The column with the images; SourceError if it is not clear which."""
        images = self.of_kind("Image")
        if "image" not in images and len(images) != 1:
            raise SourceError(
                f"`{self.folder}` has {len(images)} columns with images; its columns are {', '.join(self.features)}.",
                hint="keep one, or call it `image`: `data.rename_column('photo', 'image')`, then save it again",
            )
        return "image" if "image" in images else images[0]

    @property
    def label(self) -> str | None:
        """The column with the labels; None if there is none, or it is not clear which."""
        classes = self.of_kind("ClassLabel")
        return "label" if "label" in self.features else classes[0] if len(classes) == 1 else None

    def of_kind(self, kind: str) -> list[str]:
        """The columns of a kind of feature."""
        return [name for name, told in self.features.items() if isinstance(told, dict) and told.get("_type") == kind]


def open_source(path: str, exclude: Sequence[str] = ()) -> Source:
    """The saved Dataset or DatasetDict at `path`."""
    place = Path(path)
    if (place / "dataset_dict.json").is_file():
        splits = _read(place / "dataset_dict.json", "splits")
        sets = [_saved(place / split, split) for split in splits if not excluded(split, exclude)]
    else:
        sets = [_saved(place, "")]
    for one in sets[1:]:
        if one.features != sets[0].features:
            raise SourceError(f"`{one.folder}` and `{sets[0].folder}` have different columns.", hint="give each alone")
    columns, kept = further_of(sets[0]) if sets else (pa.schema([]), {})
    return Source(path, "huggingface", partial(batches_of, path, sets, exclude, columns, kept, _located), columns)


def _read(file: Path, key: str) -> Any:
    try:
        return json.loads(file.read_bytes())[key]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SourceError(
            f"`{file}` is not what `save_to_disk` writes: {type(error).__name__}: {error}.", hint="save it again"
        ) from error


def _saved(folder: Path, name: str) -> Saved:
    files = [folder / entry["filename"] for entry in _read(folder / "state.json", "_data_files")]
    if missing := [file for file in files if not file.is_file()]:
        raise SourceError(f"There is no `{missing[0]}`, which `{folder / 'state.json'}` names.", hint="copy it again")
    if json.loads((folder / "state.json").read_bytes()).get("_indices_files"):
        raise SourceError(
            f"`{folder}` is a choice of rows by a table of indices.", hint="`data.flatten_indices().save_to_disk(...)`"
        )
    features = _read(folder / "dataset_info.json", "features")
    split = name or str(_read(folder / "state.json", "_split"))
    return Saved(folder, name, SPLIT_OF.get(split), features, files, _schema(files[0]))


def further_of(saved: Saved) -> tuple[pa.Schema, dict[str, str]]:
    """Columns to keep, and what each is called in the collection -> in the files."""
    fields, kept, left = [], {}, []
    for name, kind in zip(saved.schema.names, saved.schema.types, strict=True):
        if name in (saved.image, saved.label):
            continue
        stored = pa.string() if name in saved.of_kind("ClassLabel") else stored_type(kind)
        if stored is None or name in saved.of_kind("Image"):
            left.append(name)
            continue
        called = f"source_{name}" if name in LISTED.names else kept_name(name)
        fields.append((called, stored))
        kept[called] = name
    if left:
        note(f"columns of `{saved.folder}` that a collection does not store, left out: {', '.join(left)}")
    return pa.schema(fields), kept


def batches_of(
    path: str,
    sets: Sequence[Saved],
    exclude: Sequence[str],
    columns: pa.Schema,
    kept: Mapping[str, str],
    located: Callable[[Saved], Iterator[tuple[pa.RecordBatch, list[Place]]]],
) -> Iterator[pa.RecordBatch]:
    """The images of several Datasets with the `columns` that are `kept`; `located` says where those of one lie."""
    found, domain = 0, nfc(text(absolute(path).name.removesuffix(".parquet") or "root"))
    bare: list[Saved] = []  # without a label
    for saved in sets:
        number, labels = 0, 0
        for batch, places in located(saved):
            names = [f"{saved.name}/{number + i}".lstrip("/") for i in range(len(batch))]
            number += len(batch)
            told = _texts(saved, saved.label, batch) if saved.label else [None] * len(batch)
            labels += sum(label is not None for label in told)
            further = {
                called: _texts(saved, name, batch)
                if name in saved.of_kind("ClassLabel")
                else batch[name].cast(columns.field(called).type, safe=False).to_pylist()
                for called, name in kept.items()
            }
            rows = [
                {
                    **listed_place(place, names[i] if place.size is not None else None),
                    **{called: values[i] for called, values in further.items()},
                    "source": names[i],
                    "label": told[i],
                    "domain": domain,
                    "split": saved.split,
                    "is_query": True,
                    "is_gallery": True,
                }
                for i, place in enumerate(places)
                if not excluded(names[i], exclude)
            ]
            found += len(rows)
            yield pa.RecordBatch.from_pylist(rows, pa.schema([*LISTED, *columns]))
        bare += [saved] if number and not labels else []
    if bare:
        more = f" and {len(bare) - 1:,} more" if len(bare) > 1 else ""
        note(f"no image of `{bare[0].folder}`{more} has a label; the columns are {', '.join(bare[0].features)}")
    if not found:
        raise SourceError(f"`{path}` holds no rows.", hint="`len(data)` says how many were saved")


def _schema(file: Path) -> pa.Schema:
    try:
        with pa.memory_map(str(file)) as data:
            return pa.ipc.open_stream(data).schema
    except (pa.ArrowInvalid, OSError) as error:
        raise _damaged(file, error) from error


def _damaged(file: Path, error: Exception) -> SourceError:
    reason = str(error).split("\n")[0].rstrip(".")
    return SourceError(f"`{file}` can't be read as an Arrow stream: {reason}.", hint="copy it again, or save it again")


def _located(saved: Saved) -> Iterator[tuple[pa.RecordBatch, list[Place]]]:
    """Rows, and where their images lie."""
    below = Below(saved.folder)
    for file in saved.files:
        stamp, path = stamp_of(str(file), file.stat()), str(file)
        try:
            with pa.memory_map(path) as data:
                whole = data.read_buffer()
                for batch in pa.ipc.open_stream(whole):
                    for part in (batch.slice(at, BATCH) for at in range(0, len(batch), BATCH)):
                        yield (
                            part,
                            [
                                Place(path, f"{size}-{stamp}", at, size)
                                if told is None
                                else _beside(below, saved, told)
                                for at, size, told in _stretches(part[saved.image], whole, file)
                            ],
                        )
        except pa.ArrowInvalid as error:
            raise _damaged(file, error) from error


def _stretches(images: Any, whole: Any, file: Path) -> Iterator[tuple[int, int, str | None]]:
    """Where the bytes of each image begin in the file, and their size; or the path that stands there instead."""
    if not (pa.types.is_struct(images.type) and {"bytes", "path"} <= {part.name for part in images.type}):
        raise SourceError(f"The images of `{file}` are {images.type}, and expected are bytes and a path.")
    data, paths = images.field("bytes"), images.field("path").to_pylist()
    _, offsets, values = data.buffers()
    wide = np.int64 if pa.types.is_large_binary(data.type) else np.int32
    ends = np.frombuffer(offsets, wide)[data.offset : data.offset + len(data) + 1].astype(np.int64).tolist()
    start = values.address - whole.address if values is not None else 0
    if values is not None and values.size and not 0 <= start <= whole.size - values.size:
        raise SourceError(f"`{file}` is compressed.", hint="save it again without compression")
    empty = data.is_null().to_pylist()
    for i, path in enumerate(paths):
        yield start + ends[i], ends[i + 1] - ends[i], (path or "") if empty[i] else None


def _beside(below: Below, saved: Saved, path: str) -> Place:
    if (found := below.find(path) if path else None) is None:
        what = f"the file `{path}`, which is not there" if path else "no image"
        raise SourceError(
            f"A row of `{saved.folder}` has {what}.", hint="save images with their bytes, or filter such rows out"
        )
    return Place(found[0], found[3])


def _texts(saved: Saved, name: str, batch: pa.RecordBatch) -> list[str | None]:
    """Values as texts: classes by their names; -1 is none."""
    feature = saved.features.get(name)
    names: Sequence[str] = (feature.get("names") or ()) if isinstance(feature, dict) else ()
    values = batch[name].to_pylist()
    try:
        if names:
            return [None if value is None or value < 0 else nfc(str(names[value])) for value in values]
    except (IndexError, TypeError) as error:
        raise SourceError(
            f"Column `{name}` of `{saved.folder}` holds a class beyond its {len(names)} names."
        ) from error
    return [nfc(str(value)) if isinstance(value, str | int) and value != "" else None for value in values]

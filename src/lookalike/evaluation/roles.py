"""Which rows take part in a measurement, and what each is in it: query, gallery image, of which label and group."""

from collections import Counter
from dataclasses import dataclass, fields

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float, Float32, Int64

from lookalike.core.errors import CollectionError, UsageError
from lookalike.core.shapes import Ids, l2_normalize
from lookalike.data.collection import Collection

Codes = Int64[np.ndarray, "N"]
Listed = Int64[np.ndarray, "_"]
"""Ids of some rows."""

COLUMNS = ("id", "label", "domain", "split", "group", "is_query", "is_gallery")
EVERY = "all"  # the split that takes every row, whatever split it is in
NO_DOMAIN = "none"


@dataclass(frozen=True)
class Rows:
    """Queries, or a gallery: vectors of length 1, and for each a number of its label, domain, group and id, or -1."""

    vectors: Float32[np.ndarray, "N D"]
    label: Codes
    domain: Codes
    group: Codes
    id: Codes

    def and_distractors(self, vectors: Float[np.ndarray, "M D"]) -> "Rows":
        """With rows of no label, domain, group or id behind them; UsageError if their width is another."""
        if vectors.shape[1] != self.vectors.shape[1]:
            raise UsageError(
                f"The distractors have {vectors.shape[1]} numbers each, and the rows {self.vectors.shape[1]}."
            )
        count = len(vectors)
        numbers = (np.concatenate([old, np.full(count, -1)]) for old in (self.label, self.domain, self.group, self.id))
        return Rows(np.concatenate([self.vectors, directions(vectors, np.arange(count))]), *numbers)

    def take(self, mask: Bool[np.ndarray, "N"]) -> "Rows":
        """Those of `mask`; without a copy, if they are all."""
        return self if mask.all() else Rows(*(getattr(self, each.name)[mask] for each in fields(self)))


@dataclass(frozen=True)
class Roles:
    """The rows that take part, rising by id, and what each is in it; arrays are over these rows."""

    rows: Codes  # positions in the order of ids of the whole table
    label: Codes  # one number for each (domain, label); -1 without a label
    labels: list[str | None]
    domain: Codes  # position in `names`
    group: Codes  # one number for each (domain, group); -1 without a group
    is_query: Bool[np.ndarray, "N"]
    is_gallery: Bool[np.ndarray, "N"]
    names: tuple[str, ...]
    total: int  # rows of the whole table

    @classmethod
    def of(
        cls,
        rows: Collection | pa.Table,
        split: str,
        queries: Listed | None = None,
        gallery: Listed | None = None,
        *,
        only: Listed | None = None,
        among_others: bool = False,
    ) -> "Roles":
        """The rows that are in `split` and have a role: by their columns, or by the ids of `queries` and `gallery`.
        With `only`, those of these ids.

        UsageError if a role has no row, or if nothing wrong can be found, as all is of one class; not if the gallery
        will have other images too.
        """
        table = rows if isinstance(rows, pa.Table) else rows.table([c for c in COLUMNS if c in rows.columns])
        for name in ("id", "label"):
            if name not in table.column_names:
                raise CollectionError(f"The table has no column `{name}`; it has {', '.join(table.column_names)}.")
        table = table.sort_by("id")
        lists = {name: table[name].to_pylist() for name in COLUMNS[1:] if name in table.column_names}
        nothing, everything = [None] * len(table), [True] * len(table)
        splits = lists.get("split", nothing)
        is_query, is_gallery = (np.array(lists.get(name, everything), bool) for name in ("is_query", "is_gallery"))
        inside = np.array([split in (EVERY, name) for name in splits], bool)
        ids = table["id"].to_numpy()
        is_query = is_query if queries is None else _listed(queries, ids, inside, split, "query")
        is_gallery = is_gallery if gallery is None else _listed(gallery, ids, inside, split, "gallery image")
        if not inside.any():
            counts = Counter("no split" if name is None else f"`{name}`" for name in splits)
            found = ", ".join(f"{name} {count:,}" for name, count in sorted(counts.items())) or "there are no rows"
            raise UsageError(
                f"No row is in split `{split}`; rows per split: {found}.", hint=f"`--split {EVERY}` takes every row"
            )
        if only is not None:
            inside &= np.isin(ids, only)
        _refuse_without(inside, is_query, is_gallery, split)
        kept = np.flatnonzero(inside & (is_query | is_gallery))
        domains = [NO_DOMAIN if name is None else name for name in (lists.get("domain", nothing)[i] for i in kept)]
        names = tuple(sorted(set(domains)))
        labels = [lists["label"][i] for i in kept]
        roles = cls(
            rows=kept,
            label=_codes(domains, labels),
            labels=labels,
            domain=np.searchsorted(names, domains).astype(np.int64),
            group=_codes(domains, [lists.get("group", nothing)[i] for i in kept]),
            is_query=is_query[kept],
            is_gallery=is_gallery[kept],
            names=names,
            total=len(table),
        )
        if not among_others:
            _refuse_one_class(roles, split)
        return roles

    def images(self, vectors: np.ndarray) -> Rows:
        """These rows with their vectors, at unit length, of all vectors by id; UsageError if those do not fit."""
        if vectors.ndim != 2 or len(vectors) != self.total:
            raise UsageError(
                f"There are {self.total:,} rows, and the vectors have the shape {list(vectors.shape)}.",
                hint="row i of the vectors must belong to the i-th row by id, all splits included",
            )
        kept = vectors if len(self.rows) == self.total else vectors[self.rows]
        return Rows(directions(kept, self.rows), self.label, self.domain, self.group, self.rows)

    def measurable(self) -> Bool[np.ndarray, "N"]:
        """Which rows are queries that count: their label has a gallery image beside themselves and their group."""
        gallery = self.is_gallery & (self.label >= 0)
        count = np.bincount(self.label[gallery], minlength=self.label.max(initial=0) + 1)
        pairs = self.label * (self.group.max(initial=0) + 2) + self.group  # of label and group
        _, pair = np.unique(pairs, return_inverse=True)
        alike = np.bincount(pair[gallery], minlength=pair.max(initial=0) + 1)[pair]
        left_out = np.where(self.group >= 0, alike, self.is_gallery)
        found: np.ndarray = self.is_query & (self.label >= 0) & (count[self.label] > left_out)
        return found


def directions(vectors: np.ndarray, rows: Codes) -> Float32[np.ndarray, "N D"]:
    """Vectors at unit length (zeros stay); UsageError names the row, of `rows`, whose numbers are not finite."""
    found = l2_normalize(vectors)
    bad = ~np.isfinite(found.sum(axis=1))
    if bad.any():
        raise UsageError(
            f"Row {rows[np.argmax(bad)]} of the vectors holds a number that is not finite.",
            hint="numpy.isfinite(vectors).all(axis=1) shows which rows are whole; make the others again",
        )
    return found


def _refuse_without(
    inside: Bool[np.ndarray, "N"], is_query: Bool[np.ndarray, "N"], is_gallery: Bool[np.ndarray, "N"], split: str
) -> None:
    """UsageError if no row, or none of a role, takes part."""
    count = int(inside.sum())
    if not count:
        raise UsageError(
            f"No row of split `{split}` is among those that take part.",
            hint=f"another `--where`; `--split {EVERY}` takes rows of every split",
        )
    for role, missing, option in ((is_query, "query", "queries"), (is_gallery, "gallery image", "gallery")):
        if not role[inside].any():
            raise UsageError(
                f"Split `{split}` has {count:,} rows, and none of them is a {missing}.",
                hint=f"`--{option} FILE` names rows that are, in the place of the column `is_{missing.split()[0]}`",
            )


def _refuse_one_class(roles: Roles, split: str) -> None:
    """UsageError if no query can find anything wrong: the gallery is of one class."""
    gallery, queries = (set(roles.label[mask].tolist()) for mask in (roles.is_gallery, roles.is_query))
    if len(gallery) == 1 and gallery <= queries - {-1}:
        more = f"`--split {EVERY}` takes every row; " if split != EVERY else ""
        raise UsageError(
            f"Split `{split}` has one class: every match is right, whatever the vectors.",
            hint=f"{more}a larger `--test` of `lookalike prepare` or `index` keeps more classes back to be measured on",
        )


def _listed(listed: Listed, ids: Ids, inside: Bool[np.ndarray, "N"], split: str, role: str) -> Bool[np.ndarray, "N"]:
    """Which rows are listed; UsageError for an id that is unknown or not in the split."""
    if (unknown := listed[~np.isin(listed, ids)]).size:
        raise UsageError(f"There is no row with the id {unknown[0]}, which is listed as a {role}.")
    found = np.isin(ids, listed)
    if (outside := ids[found & ~inside]).size:
        raise UsageError(
            f"The row with the id {outside[0]} is listed as a {role}, and is not in split `{split}`.",
            hint=f"`--split {EVERY}` takes every row",
        )
    return found


def _codes(domains: list[str], names: list[str | None]) -> Codes:
    """A number for each (domain, name); -1 where there is no name."""
    known: dict[tuple[str, str], int] = {}
    codes = [
        -1 if name is None else known.setdefault((domain, name), len(known))
        for domain, name in zip(domains, names, strict=True)
    ]
    return np.array(codes, np.int64)

"""What looking at a collection gives: small values, each with its JSON."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32

from lookalike.core.shapes import Ids


@dataclass(frozen=True, repr=False)
class Duplicates:
    """Groups of images that are the same or nearly so, the largest first; ids rise in each."""

    groups: tuple[tuple[int, ...], ...]
    why: tuple[str, ...]  # of each group: the weakest reason in it
    cosine: float | None  # from which on vectors were taken for the same; None: they were not asked, or can't tell

    def __len__(self) -> int:
        return len(self.groups)

    def __repr__(self) -> str:
        return f"Duplicates({len(self):,} groups, {sum(map(len, self.groups)):,} images)"

    def to_json(self) -> dict[str, Any]:
        """`{"groups": [[id, ...], ...], "why": [...], "cosine": ...}`."""
        return {"groups": [list(group) for group in self.groups], "why": list(self.why), "cosine": self.cosine}


@dataclass(frozen=True)
class Cluster:
    """Images that lie together, and the one that lies in their middle."""

    number: int
    name: str
    share: float | None  # of its images that have the label it is named by; None: named by something else
    medoid: int
    ids: tuple[int, ...]


@dataclass(frozen=True, repr=False)
class Clusters:
    """Clusters, the largest first; `noise` are the images in none."""

    clusters: tuple[Cluster, ...]
    noise: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.clusters)

    def __repr__(self) -> str:
        return f"Clusters({len(self):,} clusters, {len(self.noise):,} images in none)"

    def to_json(self) -> dict[str, Any]:
        """`{"clusters": [{"cluster", "name", "share", "medoid", "ids"}], "noise": [id, ...]}`."""
        told = [
            {"cluster": c.number, "name": c.name, "share": c.share, "medoid": c.medoid, "ids": list(c.ids)}
            for c in self.clusters
        ]
        return {"clusters": told, "noise": list(self.noise)}


@dataclass(frozen=True)
class Outlier:
    """An image that doesn't fit its label; `reason` is `label`: another label fits better, or `odd`: none does."""

    id: int
    label: str
    score: float  # 0 to 1; above 0.5 the image is suspected
    suggested: str | None
    reason: str


@dataclass(frozen=True, repr=False)
class Outliers:
    """Images that don't fit their labels, the worst first, and how many were looked at."""

    rows: tuple[Outlier, ...]
    judged: int

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        suspected = sum(row.score > 0.5 for row in self.rows)
        return f"Outliers({suspected:,} suspected among {self.judged:,} images)"

    def to_json(self) -> list[dict[str, Any]]:
        """`[{"id", "label", "score", "suggested", "reason"}, ...]`."""
        names = ("id", "label", "score", "suggested", "reason")
        return [{name: getattr(row, name) for name in names} for row in self.rows]


@dataclass(frozen=True, eq=False, repr=False)
class Map:
    """Where each image lies on a plane on which neighbors are neighbors; only that has a meaning."""

    ids: Ids
    places: Float32[np.ndarray, "N 2"]  # within -1 to 1

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        return f"Map({len(self):,} images)"

    def to_json(self) -> dict[str, Any]:
        """`{"ids": [id, ...], "x": [...], "y": [...]}`."""
        x, y = np.round(self.places.astype(np.float64), 5).T.tolist()
        return {"ids": self.ids.tolist(), "x": x, "y": y}


@dataclass(frozen=True, repr=False)
class Split:
    """How many images of each domain are in each split, and what two splits share."""

    counts: Mapping[str, Mapping[str, int]]  # domain -> split ("none": no split) -> images
    shared: Mapping[str, int]  # classes, groups and duplicates that stand in two splits
    largest: int  # images of the largest part that can't be cut

    def __repr__(self) -> str:
        total: dict[str, int] = {}
        for splits in self.counts.values():
            for name, images in splits.items():
                total[name] = total.get(name, 0) + images
        return f"Split({', '.join(f'{name} {images:,}' for name, images in sorted(total.items()))})"

    def to_json(self) -> dict[str, Any]:
        """`{"counts": {domain: {split: images}}, "shared": {"class", "group", "duplicates"}, "largest": images}`."""
        counts = {domain: dict(splits) for domain, splits in self.counts.items()}
        return {"counts": counts, "shared": dict(self.shared), "largest": self.largest}

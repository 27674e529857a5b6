"""lookalike clusters: images that lie together, named by labels or words, as a column and on a page."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lookalike.commands.outcome import tell
from lookalike.core.config import in_range, option
from lookalike.core.errors import CollectionError, LookalikeError, UsageError
from lookalike.core.journal import note, table

if TYPE_CHECKING:
    import numpy as np

    from lookalike.commands.stored import Stored
    from lookalike.exploring.results import Cluster, Clusters

_SHOWN, _BESIDE = 30, 12  # clusters in the table; images of a cluster on the page


@dataclass(frozen=True)
class Config:
    """Group images that lie together (HDBSCAN of scikit-learn), and name the groups.

    A cluster is called by the label that most of its images have, or by the domain where they have many labels; without
    labels by a word, where the encoder knows
    words; else by the file of its medoid, the image in its middle. Images that lie in no crowd are in no cluster.

    HDBSCAN looks at a sample, since its time grows as the square of the images; all others go where their nearest image
    of the sample is, if it is near enough.

    Column `cluster` gets the number, the largest cluster first; -1 stands for none: `--where "cluster = 3"`. Needs
    `pip install 'lookalike[explore]'`.
    """

    collection: str = option(positional=True, metavar="COLL")
    """The collection or index."""
    model: str = option(default="", metavar="MODEL")
    """Look at this model's vectors: a directory, a short name of `lookalike pull --list`, or ORG/NAME on the Hub.
    Unless given, LOOKALIKE_MODEL, then those that the collection has."""
    least: int = 5
    """How many images make a cluster."""
    sample: int = 10000
    """How many images HDBSCAN looks at."""
    words: str = option(default="", metavar="FILE")
    """Words to name clusters by, one a line, instead of labels."""
    json: str | None = option(default=None, metavar="FILE", writes=True)
    """Write the clusters to this file; `-` writes them to stdout instead of the table."""
    html: str | None = option(default=None, metavar="FILE", writes=True)
    """Write a page with images of each cluster."""

    def __post_init__(self) -> None:
        in_range(self, 2.0, math.inf, "least", "sample")


def main(config: Config) -> None:
    """Find, mark, and print or write the clusters."""
    found = run(config)
    tell(found.to_json(), _table(found), config.json)


def run(config: Config) -> "Clusters":
    """Find and mark: the clusters."""
    import numpy as np
    import pyarrow as pa

    from lookalike.commands.stored import Stored, opened, stored_vectors, wrote
    from lookalike.data.made import check_made, write_made
    from lookalike.exploring.clusters import clusters_of
    from lookalike.exploring.results import Clusters

    words = _words(config)
    check_made(opened(config.collection), "clusters", ("cluster",))
    which = stored_vectors(config.collection, config.model, "clusters").which
    with opened(config.collection).locked("clusters"):
        stored = Stored(opened(config.collection), which)
        if len(stored.ids) < config.least:
            raise CollectionError(
                f"`{config.collection}` holds {len(stored.ids):,} images, and {config.least} make a cluster.",
                hint="`--least 2` makes a cluster of two",
            )
        stored.refuse_equal()
        if len(stored.ids) > config.sample:
            note(
                f"HDBSCAN looks at {config.sample:,} of {len(stored.ids):,} images: clusters of fewer than about "
                f"{config.least * len(stored.ids) // config.sample:,} images are not seen"
            )
        numbers = clusters_of(stored.vectors, config.least, config.sample)
        column = pa.array(numbers.astype(np.int32))
        write_made(stored.collection, "clusters", stored.ids, {"cluster": column})
        found = Clusters(tuple(_named(stored, numbers, words)), tuple(stored.ids[np.flatnonzero(numbers < 0)].tolist()))
        if config.html is not None:
            _write_page(config, stored, found)
            wrote(config.html)
    note(f"{len(found.clusters):,} clusters; {len(found.noise):,} of {len(stored.ids):,} images are in none")
    return found


def _words(config: Config) -> tuple[str, ...]:
    """The words of `--words`; none without it."""
    if not config.words:
        return ()
    if not Path(config.words).is_file():
        raise UsageError(f"There is no file `{config.words}` with words.", hint="--words FILE, a word a line")
    lines = Path(config.words).read_text(encoding="utf-8", errors="replace").splitlines()
    words = tuple(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if len(words) < 2:
        raise UsageError(f"`{config.words}` holds {len(words)} words; expected two or more.", hint="a word a line")
    return words


def _named(stored: "Stored", numbers: "np.ndarray", words: tuple[str, ...]) -> "list[Cluster]":
    """The clusters with their names, the largest first."""
    import numpy as np

    from lookalike.exploring.clusters import medoid, told_by_domain
    from lookalike.exploring.results import Cluster

    rows = stored.collection.table(["label", "domain", "source"])
    labels, domains, sources = (rows[name].to_pylist() for name in ("label", "domain", "source"))
    members = [np.flatnonzero(numbers == number) for number in range(int(numbers.max(initial=-1)) + 1)]
    by_words = [] if not members else _by_words(stored, members, words, any(label is not None for label in labels))
    found = []
    for number, own in enumerate(members):
        middle = int(own[medoid(stored.vectors[own])])
        told = None if words else told_by_domain([labels[row] for row in own], [domains[row] for row in own])
        name, share = told or (by_words[number] if by_words else Path(sources[middle]).name, None)
        ids = tuple(stored.ids[own].tolist())
        found.append(Cluster(number, name, share, int(stored.ids[middle]), ids))
    return found


def _by_words(stored: "Stored", members: "list[np.ndarray]", words: tuple[str, ...], are_labelled: bool) -> list[str]:
    """A word for each cluster; nothing where labels name them, or where the encoder knows no words."""
    import numpy as np

    from lookalike.core.shapes import l2_normalize
    from lookalike.exploring.clusters import told_by_words
    from lookalike.exploring.nouns import NOUNS
    from lookalike.vectors.text import load_text

    if are_labelled and not words:
        return []
    asked = words or NOUNS
    try:
        texts = load_text(stored.model, stored.embedder).embed([f"a photo of a {word}" for word in asked])
    except LookalikeError as error:
        if words:
            raise
        note(f"clusters are named by files, since words can't be asked: {error.message}")
        return []
    means = l2_normalize(np.stack([stored.vectors[own].mean(axis=0) for own in members]))
    return [asked[place] for place in told_by_words(means, texts).tolist()]


def _table(found: "Clusters") -> str:
    if not found.clusters:
        return "no images lie so close together that they make a cluster"
    rows = [
        [c.number, len(c.ids), "-" if c.share is None else f"{c.share:.0%}", c.name] for c in found.clusters[:_SHOWN]
    ]
    left = len(found.clusters) - len(rows)
    return table(["cluster", "images", "share", "name"], rows) + (
        f"\n\nand {left:,} clusters more: --json FILE" if left else ""
    )


def _write_page(config: Config, stored: "Stored", found: "Clusters") -> None:
    import numpy as np

    from lookalike.pages.looks import Card, Section, write_looks

    sections = []
    for cluster in found.clusters:
        at = np.searchsorted(stored.ids, np.array(cluster.ids, np.int64))
        middle = int(np.searchsorted(stored.ids, cluster.medoid))
        cosines = stored.vectors[at] @ stored.vectors[middle]
        order = np.argsort(-cosines, kind="stable")
        spread = order[np.linspace(0, len(order) - 1, min(len(order), _BESIDE)).astype(int)]
        cards = [Card(cluster.ids[place], f"cosine {cosines[place]:.3f} with its middle") for place in spread.tolist()]
        words = f"{len(cluster.ids):,} images" + ("" if cluster.share is None else f", {cluster.share:.0%} so labelled")
        sections.append(Section(f"{cluster.number}: {cluster.name}", words, cards))
    title = f"Clusters of {Path(config.collection).name}"
    lead = f"{len(found.clusters):,} clusters, the largest first; {len(found.noise):,} images are in none."
    write_looks(config.html or "", title, lead, sections, stored.collection)

"""The Met dataset (Ypsilantis et al., 2021, arXiv:2202.01747): exhibits of a museum, and photos of its visitors."""

from collections.abc import Iterator

from lookalike.data.sources.dataset import Count, Dataset, Row
from lookalike.data.sources.lists import first_of, read_objects
from lookalike.data.sources.tree import Tree

DATABASE, MINI = "ground_truth/MET_database.json", "ground_truth/mini_MET_database.json"
QUERIES = {"val": "ground_truth/valset.json", "test": "ground_truth/testset.json"}
GALLERIES = {"val": MINI, "test": DATABASE}


def rows(tree: Tree) -> Iterator[Row]:
    """The database is split train, and the gallery of the queries once more: a measurement takes rows of one split.

    So its images stand in split test again, as `index/MET/...`, and those of the mini database, among which val is
    searched as UnED does, in split val, as `mini/MET/...`; they are no queries. This costs their space twice. Queries
    are told by the two lists alone. Those that show no exhibit have no label: nothing in the gallery is relevant.
    """
    folder = first_of(tree, "images") or "."
    trained = DATABASE if tree.has(DATABASE) else MINI
    for path, label in _database(tree, trained):
        yield Row(f"{folder}/{path}", label, "train", name=path)
    for split, name in GALLERIES.items():
        if tree.has(name) and tree.has(QUERIES[split]):
            prefix = "index" if split == "test" else "mini"
            for path, label in _database(tree, name):
                yield Row(f"{folder}/{path}", label, split, is_query=False, name=f"{prefix}/{path}")
    for split, queries in QUERIES.items():
        for entry in read_objects(tree, queries, "path") if tree.has(queries) else ():
            exhibit, path = entry.get("MET_id"), entry["path"]
            known = None if exhibit is None else str(exhibit)
            told = {"licence": "unknown"}  # the database alone is CC0
            yield Row(f"{folder}/{path}", known, split, is_gallery=False, name=path, more=told)


def _database(tree: Tree, name: str) -> Iterator[tuple[str, str]]:
    for entry in read_objects(tree, name, "id", "path"):
        yield entry["path"], str(entry["id"])


DATASET = Dataset(
    name="met",
    title="The Met",
    what="exhibits of the Metropolitan Museum, and visitors' photos of them",
    page="http://cmp.felk.cvut.cz/met/",
    get="the images and ground_truth/ from its page, unpacked: images/MET, images/test_met, images/test_other, "
    "images/test_noart, ground_truth",
    size="not said",
    licence="cc0-1.0",
    forbids="nothing of the museum's images; of the queries nobody said what they allow",
    counts={
        "train": Count(397_121, 224_408),
        "val": Count(38_307 + 2165),
        "test": Count(397_121 + 19_319, 224_408),
    },
    marks=((DATABASE,), (MINI,)),
    rows=rows,
)

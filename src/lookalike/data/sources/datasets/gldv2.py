"""Google Landmarks v2 (Weyand et al., 2020, arXiv:2004.01804): training, index and queries of retrieval."""

from collections import Counter
from collections.abc import Iterator

import pyarrow as pa

from lookalike.data.sources.dataset import Count, Dataset, Row
from lookalike.data.sources.lists import first_of, read_csv
from lookalike.data.sources.tree import Tree

FREE = {"licence": "public domain"}  # of index and test: CC0 or public domain


def rows(tree: Tree) -> Iterator[Row]:
    """Training images are those of train_clean.csv, and all of train.csv only where that list is not there.

    Split `test` is the index, which is no query, and the queries of retrieval v2.1 that count, which no one finds. The
    index counts landmarks by numbers of its own: its labels are `index/123`. A query's label is the landmark of its
    relevant images, of most of them if there are several; `relevant` is the published list. What kind of place a
    landmark of the index is, `index_label_to_hierarchical.csv` says.
    """
    clean, whole = _list(tree, "train_clean.csv"), _list(tree, "train.csv")
    if clean:
        for label, names in read_csv(tree, clean, "landmark_id", "images"):
            yield from (Row(_path("train", name), label) for name in names.split())
    elif whole:
        for name, label in read_csv(tree, whole, "id", "landmark_id"):
            yield Row(_path("train", name), label)
    landmarks: dict[str, str] = {}
    if told := _list(tree, "index_image_to_landmark.csv"):
        landmarks = dict(read_csv(tree, told, "id", "landmark_id"))  # type: ignore[arg-type]
    kinds: dict[str | None, str] = {}
    if told := _list(tree, "index_label_to_hierarchical.csv"):
        kinds = dict(read_csv(tree, told, "landmark_id", "hierarchical_label"))  # type: ignore[arg-type]
    index = _list(tree, "index.csv")
    for name in (name for (name,) in read_csv(tree, index, "id")) if index else landmarks:
        landmark = landmarks.get(name)
        more = {**FREE, "hierarchical_label": kinds.get(landmark)}
        yield Row(_path("index", name), _label(landmark), "test", is_query=False, more=more)
    if solution := _list(tree, "retrieval_solution_v2.1.csv"):
        for query, images, usage in read_csv(tree, solution, "id", "images", "Usage"):
            relevant = images.split()
            if usage.strip() == "Ignored" or relevant in ([], ["None"]):
                continue
            among = Counter(landmarks[image] for image in relevant if image in landmarks)
            landmark = among.most_common(1)[0][0] if among else None
            more = {**FREE, "relevant": " ".join(relevant), "hierarchical_label": kinds.get(landmark)}
            yield Row(_path("test", query), _label(landmark), "test", is_gallery=False, more=more)


def _list(tree: Tree, name: str) -> str | None:
    return first_of(tree, f"metadata/{name}", f"ground_truth/{name}", name)


def _path(folder: str, name: str) -> str:
    return f"{folder}/{'/'.join(name[:3])}/{name}.jpg"


def _label(landmark: str | None) -> str | None:
    return None if landmark is None else f"index/{landmark}"


DATASET = Dataset(
    name="gldv2",
    title="Google Landmarks v2",
    what="landmarks of the whole world: training cleaned, index and queries",
    page="https://github.com/cvdfoundation/google-landmark",
    get="the tar files of train/, index/ and test/ and the lists of metadata/ and ground_truth/, as its page says",
    size="about 600 GB",
    licence="cc-by-4.0",
    forbids="nothing that CC BY allows; the images' authors are to be named. Index and test are in the public domain",
    counts={"train": Count(1_580_470, 81_313), "test": Count(761_757 + 1129)},
    marks=(
        ("metadata/train_clean.csv",),
        ("metadata/train.csv", "train"),
        ("metadata/index.csv", "index"),
        ("train_clean.csv",),
        ("index_image_to_landmark.csv",),
    ),
    rows=rows,
    columns=pa.schema([("relevant", pa.string()), ("hierarchical_label", pa.string())]),
)

"""Google Landmark Recognition 2021, Kaggle's competition: GLDv2 cleaned (Weyand et al., 2020, arXiv:2004.01804)."""

from collections.abc import Iterator

from lookalike.data.sources.dataset import Count, Dataset, Row
from lookalike.data.sources.lists import read_csv
from lookalike.data.sources.tree import Tree


def rows(tree: Tree) -> Iterator[Row]:
    """train.csv: id,landmark_id here, id,url,landmark_id in GLDv2's own. Images without labels (test/) are left out."""
    for name, label in read_csv(tree, "train.csv", "id", "landmark_id"):
        yield Row(f"train/{'/'.join(name[:3])}/{name}.jpg", label)


DATASET = Dataset(
    name="glr2021",
    title="Google Landmark Recognition 2021",
    what="landmarks of the whole world, cleaned",
    page="https://www.kaggle.com/competitions/landmark-recognition-2021",
    get="`kaggle competitions download -c landmark-recognition-2021`, after its rules are accepted there",
    size="not said",
    licence="cc-by-4.0",
    forbids="nothing that CC BY allows; the images' authors are to be named",
    counts={"train": Count(1_580_470, 81_313)},
    marks=(("train.csv", "train/0"), ("train.csv", "sample_submission.csv", "train")),
    rows=rows,
)

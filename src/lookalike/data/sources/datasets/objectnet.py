"""ObjectNet (Barbu et al., 2019): household things at odd places and angles, to be measured on alone."""

import json
from collections.abc import Iterator

from lookalike.core.errors import SourceError
from lookalike.data.sources.dataset import Count, Dataset, Row, is_picture
from lookalike.data.sources.lists import text_of
from lookalike.data.sources.tree import Tree

LABELS = "mappings/folder_to_objectnet_label.json"
BORDER = 2  # pixels of red, by which an image is known as one of a test set; some copies have 3


def rows(tree: Tree) -> Iterator[Row]:
    """images/FOLDER/NAME.png; the label of a folder stands in `LABELS`. Images are stored without their red border."""
    try:
        labels = {str(folder): str(label) for folder, label in json.loads(text_of(tree, LABELS)).items()}
    except (json.JSONDecodeError, AttributeError) as error:
        raise SourceError(f"`{LABELS}` of `{tree.place}` is no table from folders to labels: {error}.") from error
    for name in tree.names("images"):
        folder = name.removeprefix("images/").partition("/")[0]
        if not is_picture(name):
            continue
        if folder not in labels:
            raise SourceError(f"`{name}` of `{tree.place}`: `{LABELS}` has no label of the folder `{folder}`.")
        yield Row(name, labels[folder], "test", border=BORDER)


DATASET = Dataset(
    name="objectnet",
    title="ObjectNet",
    what="household things at odd places and angles",
    page="https://objectnet.dev",
    get="https://objectnet.dev/downloads/objectnet-1.0.zip, unpacked with the password that its page tells",
    size="not said",
    licence="unknown",
    forbids="training on it, and showing its images without their red border; in all else CC BY 4.0, as others say",
    counts={"test": Count(None, 313)},
    marks=((LABELS, "images"),),
    rows=rows,
    learn=False,
)

"""DeepFashion In-shop Clothes Retrieval (Liu et al., 2016)."""

from collections.abc import Iterator

from lookalike.core.errors import SourceError
from lookalike.data.sources.dataset import Count, Dataset, Row
from lookalike.data.sources.lists import first_of, read_words
from lookalike.data.sources.tree import Tree

LIST = "Eval/list_eval_partition.txt"
ROLES = {"train": ("train", True, True), "query": ("test", True, False), "gallery": ("test", False, True)}


def rows(tree: Tree) -> Iterator[Row]:
    """list_eval_partition.txt, behind its count: image_name item_id evaluation_status.

    The item is the class, not the folder: MEN and WOMEN share one space of ids. Large images, in img_highres, are
    taken where there are no others.
    """
    folder = first_of(tree, "Img/img", "img", "Img/img_highres", "img_highres") or "Img/img"
    for path, item, status in read_words(tree, LIST, "image_name", "item_id", "evaluation_status", skip=1):
        if status not in ROLES:
            raise SourceError(f"`{LIST}` of `{tree.place}`: `{path}` is `{status}`, not {', '.join(ROLES)}.")
        yield Row(f"{folder}/{path.removeprefix('img/')}", item, *ROLES[status])


DATASET = Dataset(
    name="inshop",
    title="DeepFashion In-shop",
    what="clothes in the photos of a shop, worn and from several sides",
    page="http://mmlab.ie.cuhk.edu.hk/projects/DeepFashion.html",
    get="Img/img.zip and Eval/list_eval_partition.txt from its page, after its agreement is signed",
    size="not said",
    licence="non-commercial research",
    forbids="any use but non-commercial research and education",
    counts={"train": Count(None), "test": Count(14_218 + 12_612, 3985)},
    marks=tuple(
        (LIST, other)
        for other in ("Anno/list_item_inshop.txt", "Anno/list_bbox_inshop.txt", "Img/img/WOMEN", "img/WOMEN")
    ),
    rows=rows,
)

"""DeepFashion Consumer-to-shop Clothes Retrieval (Liu et al., 2016)."""

from collections.abc import Iterator

from lookalike.core.errors import SourceError
from lookalike.data.sources.dataset import Count, Dataset, Row
from lookalike.data.sources.lists import first_of, read_words
from lookalike.data.sources.tree import Tree

LIST = "Eval/list_eval_partition.txt"
COLUMNS = ("image_pair_name_1", "image_pair_name_2", "item_id", "evaluation_status")


def rows(tree: Tree) -> Iterator[Row]:
    """list_eval_partition.txt, behind its count: a pair a line, the consumer's image (`comsumer`, sic) and the shop's.

    The consumer's is a query, the shop's in the gallery; an image of several pairs stands once. A split searches its
    own gallery. The published one is of val and test together, so what is found here is found among fewer.
    """
    folder = first_of(tree, "Img/img", "img") or "Img/img"
    for consumer, shop, item, split in read_words(tree, LIST, *COLUMNS, skip=1):
        if split not in ("train", "val", "test"):
            raise SourceError(f"`{LIST}` of `{tree.place}`: `{consumer}` is `{split}`, not train, val, test.")
        yield Row(f"{folder}/{consumer.removeprefix('img/')}", item, split, is_gallery=False)
        yield Row(f"{folder}/{shop.removeprefix('img/')}", item, split, is_query=False)


DATASET = Dataset(
    name="deepfashion_c2s",
    title="DeepFashion Consumer-to-shop",
    what="clothes in consumers' photos, to be found in a shop's",
    page="http://mmlab.ie.cuhk.edu.hk/projects/DeepFashion.html",
    get="Img/img.zip and Eval/list_eval_partition.txt from its page, after its agreement is signed",
    size="not said",
    licence="non-commercial research",
    forbids="any use but non-commercial research and education",
    counts={"train": Count(None), "val": Count(None), "test": Count(None)},
    marks=tuple(
        (LIST, other)
        for other in (
            *("Anno/list_item_consumer2shop.txt", "Anno/list_bbox_consumer2shop.txt"),
            *("Img/img/TOPS", "img/TOPS"),
        )
    ),
    rows=rows,
)

"""GPR1200 (Schall et al., 2022): six fields of 200 classes, ten images each, to be measured on."""

import re
from collections.abc import Iterator

import pyarrow as pa

from lookalike.data.sources.dataset import Count, Dataset, Row, is_picture
from lookalike.data.sources.tree import Tree

FIELDS = ("gldv2", "inat", "sketches", "instre", "sop", "faces")  # 200 classes each, in this order
_NAME = re.compile(r"(\d+)_")


def rows(tree: Tree) -> Iterator[Row]:
    """The number before the first `_` is the class; every image is searched for in all others."""
    told = ((_NAME.match(name.removeprefix("images/")), name) for name in tree.names("images") if is_picture(name))
    for number, name in sorted((int(match[1]), name) for match, name in told if match):
        field = FIELDS[number // 200] if number < 200 * len(FIELDS) else None
        yield Row(name, str(number), "test", more={"gpr1200_field": field})


DATASET = Dataset(
    name="gpr1200",
    title="GPR1200",
    what="landmarks, animals and plants, sketches, things, products and faces, a small one of each",
    page="https://github.com/Visual-Computing/GPR1200",
    get="https://visual-computing.com/files/GPR1200/GPR1200.zip",
    size="not said",
    licence="non-commercial research",
    forbids="training, and any use but non-commercial research and education; parts are of GLDv2, iNat and SOP",
    counts={"test": Count(12_000, 1200)},
    marks=(("images/0_*",),),
    rows=rows,
    columns=pa.schema([("gpr1200_field", pa.string())]),
    learn=False,
)

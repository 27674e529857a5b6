"""Class names as queries: how well texts find the images of what they name, without a word of training for it."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from jaxtyping import Float

from lookalike.core.errors import UsageError
from lookalike.data.collection import Collection
from lookalike.evaluation.metrics import METRICS, Metrics
from lookalike.evaluation.protocols import report
from lookalike.evaluation.report import Report
from lookalike.evaluation.roles import Roles, Rows, directions

PLACE = "{}"  # what stands for the class name in a template


@dataclass(frozen=True)
class Classes:
    """The classes of a split that have an image in its gallery, by domain and label."""

    roles: Roles
    code: np.ndarray  # of each class, its number in `roles.label`
    domain: np.ndarray  # of each class, its number in `roles.domain`
    labels: tuple[str, ...]  # of each class, without the domain before it: `cars/`

    @classmethod
    def of(cls, rows: Collection | pa.Table, split: str) -> "Classes":
        """Of rows as `evaluate` takes them; UsageError if no gallery image of the split has a label."""
        roles = Roles.of(rows, split)
        code, first = np.unique(np.where(roles.is_gallery, roles.label, -1), return_index=True)
        first, code = first[code >= 0], code[code >= 0]
        if len(code) == 0:
            raise UsageError(
                f"No gallery image of split `{split}` has a label, so there is no class name to search with.",
                hint="`lookalike info COLL` counts classes by split",
            )
        named = ((str(roles.labels[i]), roles.names[roles.domain[i]]) for i in first)
        return cls(roles, code, roles.domain[first], tuple(label.removeprefix(f"{domain}/") for label, domain in named))

    def texts(self, template: str) -> list[str]:
        """The query of each class: its name, `_` read as a space, in the place of `{}`; UsageError if there is none."""
        if PLACE not in template:
            raise UsageError(
                f"The template {template!r} has no {PLACE} for the name of a class.", hint='"a photo of a {}", or "{}"'
            )
        return [template.replace(PLACE, name.replace("_", " ")) for name in self.labels]


def evaluate_texts(
    texts: Float[np.ndarray, "C D"],
    vectors: Float[np.ndarray, "N D"],
    classes: Classes,
    split: str,
    protocol: str = "merged",
    *,
    metrics: Metrics = METRICS,
    template: str = PLACE,
    model: str | None = None,
    collection: Collection | None = None,
) -> Report:
    """How well texts find the gallery images of the class that they name, by cosine; every such image is relevant.

    `texts` are in the order of `classes`, which are those of the split; `vectors` are of all rows, by id, from the
    same encoder. `split`, `template`, `model` (a fingerprint) and `collection` are for the report. UsageError if the
    number of vectors is not that of the rows, or a number is not finite.
    """
    if len(texts) != len(classes.labels):
        raise UsageError(f"There are {len(classes.labels)} classes, and {len(texts)} vectors of texts.")
    nothing, roles = np.full(len(texts), -1), classes.roles  # a text is of no group, and is no image
    return report(
        Rows(directions(texts, np.arange(len(texts))), classes.code, classes.domain, nothing, nothing),
        roles.images(vectors).take(roles.is_gallery),
        roles.names,
        protocol,
        {
            "queries": f"the name of each class (domain and label), `_` read as a space, in the text {template!r}",
            "relevant": "gallery images of the class (n_q of them)",
        },
        metrics=metrics,
        split=split,
        model=model,
        collection=None if collection is None else collection.fingerprint,
    )

"""What is known of every data set, and the page that tells it."""

from pathlib import Path

import pytest

from lookalike.core.licences import terms_of
from lookalike.data.sources.dataset import Dataset, dataset_of
from lookalike.data.sources.datasets import DATASETS

PAGE = Path(__file__).resolve().parents[3] / "docs" / "how-to" / "datasets.md"


def row(dataset: Dataset) -> str:
    """The line of the page's table."""
    use = "" if dataset.learn else "; to be measured on alone"
    what = f"[{dataset.title}]({dataset.page}): {dataset.what}"
    return f"| `{dataset.name}` | {what} | {dataset.size} | {dataset.licence} ({terms_of(dataset.licence).name}){use} |"


@pytest.mark.parametrize("name", DATASETS)
def test_all_is_told_of_each(name: str) -> None:
    dataset = dataset_of(name)
    assert dataset.name == name
    for word in ("title", "what", "page", "get", "size", "licence", "forbids"):
        assert getattr(dataset, word).strip(), word
    assert dataset.page.startswith(("https://", "http://", "ftp://"))
    assert dataset.counts
    assert dataset.marks
    assert all(value.split(":")[0] in ("md5", "sha256") for value in dataset.checksums.values())


def test_the_page_has_a_row_and_a_command_for_each() -> None:
    page = PAGE.read_text(encoding="utf-8")
    table = [line for line in page.splitlines() if line.startswith("| `") and not line.startswith("| `--")]
    assert table == [row(dataset_of(name)) for name in sorted(DATASETS)]
    for name in DATASETS:
        assert f"lookalike prepare {name} --from " in page, name

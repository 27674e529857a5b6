"""What the judge draws: against the rule, as its module's docstring has it, in a slow loop."""

import gzip
import json
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pytest

from lookalike.core.errors import SourceError, UsageError
from lookalike.data.collection import Collection
from lookalike.data.prepare import prepare
from lookalike.data.sources.datasets import DATASETS
from lookalike.data.sources.judged import IN_INDEX, KINDS, LEFT_OUT, QUERY, draw, judged_source, parts_at, rule, version

from .datasets.conftest import Files, picture, written

ITEMS = {"SHOES": 6, "CHAIR": 5, "CELLULAR_PHONE_CASE": 4}


def shop(root: Path) -> Path:
    """ABO in miniature: items of three types with three images each, one of which is none that is judged."""
    listed, images = list[str](), list[str]()
    files: dict[str, bytes | str] = {}
    for kind, items in ITEMS.items():
        for i in range(items):
            names = [f"{kind[:2]}{i}{k}" for k in range(3)]
            told = {"item_id": f"{kind}-{i}", "main_image_id": names[0], "other_image_id": names[1:]}
            listed.append(json.dumps({**told, "product_type": [{"value": kind}]}))
            for name in names:
                images.append(f"{name},12,16,{name[:2]}/{name}.jpg")
                files[f"images/small/{name[:2]}/{name}.jpg"] = picture(len(files))
    files["listings/metadata/listings_0.json.gz"] = gzip.compress("\n".join(listed).encode())
    lines = "image_id,height,width,path\n" + "\n".join(images)
    return written(root / "abo", {**files, "images/metadata/images.csv.gz": gzip.compress(lines.encode())})


def landmarks(root: Path) -> Path:
    """GLDv2's index and queries: two landmarks with queries, two shops without."""
    index = {f"{i:x}0{i:x}123456789abcd": str(i // 3) for i in range(12)}
    queries = ["ee0123456789abcd", "ff0123456789abcd"]
    files: Files = {
        "metadata/index.csv": "id\n" + "".join(f"{name}\n" for name in index),
        "metadata/index_image_to_landmark.csv": "id,landmark_id\n" + "".join(f"{n},{k}\n" for n, k in index.items()),
        "metadata/index_label_to_hierarchical.csv": (
            "landmark_id,category,supercategory,hierarchical_label,natural_or_human_made\n"
            "0,c,s,church,human-made\n1,c,s,,\n2,c,s,shopping,human-made\n3,c,s,restaurant,human-made\n"
        ),
        "ground_truth/retrieval_solution_v2.1.csv": "id,images,Usage\n"
        + "".join(
            f"{q},{' '.join(n for n, k in index.items() if k == str(i))},Public\n" for i, q in enumerate(queries)
        ),
        **{f"index/{n[0]}/{n[1]}/{n[2]}/{n}.jpg": picture(100 + i) for i, n in enumerate(index)},
        **{f"test/{n[0]}/{n[1]}/{n[2]}/{n}.jpg": picture(200 + i) for i, n in enumerate(queries)},
    }
    return written(root / "gldv2", files)


def judged(root: Path, out: Path, *kinds: str) -> Collection:
    sources = [judged_source(part, str(out)) for part in parts_at(str(root), kinds)]
    prepare(sources, str(out), workers=1)
    return Collection.open(out)


def roles(collection: Collection) -> dict[str, dict[str, set[str]]]:
    found: dict[str, dict[str, set[str]]] = {}
    for row in collection.table(["source", "domain", "is_query", "is_gallery", "split", "label"]).to_pylist():
        assert row["is_query"] != row["is_gallery"]
        assert row["split"] == "test"
        part = found.setdefault(row["domain"], {"queries": set(), "index": set()})
        part["queries" if row["is_query"] else "index"].add(row["source"])
    return found


def test_kinds_from_two_data_sets_and_a_folder(tmp_path: Path) -> None:
    shop(tmp_path)
    landmarks(tmp_path)
    written(tmp_path / "memes", {f"{c}/{i}.jpg": picture(300 + 10 * c + i) for c in range(2) for i in range(3)})
    collection = judged(tmp_path, tmp_path / "out")
    found = roles(collection)
    # One query of each thing, then a second; the image with the highest digest stays in the index.
    assert {kind: (len(part["queries"]), len(part["index"])) for kind, part in found.items()} == {
        "apparel": (12, 6),
        "furniture": (10, 5),
        "landmarks": (2, 6),  # the published queries; the index has the images of both, and no shop
        "storefronts": (4, 2),  # of the index, which has no queries of its own there
        "memes": (4, 2),
    }
    assert not any("CE" in source for part in found.values() for names in part.values() for source in names)
    assert {name.rsplit("/")[-1][:2] for name in found["landmarks"]["queries"]} == {"ee", "ff"}
    facts = {entry["name"]: entry for entry in collection.card["sources"]}
    assert facts["abo"]["judge"]["apparel"]["classes"] == 6
    assert not facts["abo"]["learn"]
    name = version(facts)
    assert name.startswith(f"judge-{rule()}-")
    # The same on another machine, wherever the files lie; another with another image.
    shop(tmp_path / "other")
    landmarks(tmp_path / "other")
    written(tmp_path / "other/memes", {f"{c}/{i}.jpg": picture(300 + 10 * c + i) for c in range(2) for i in range(3)})
    again = judged(tmp_path / "other", tmp_path / "again")
    assert version({entry["name"]: entry for entry in again.card["sources"]}) == name
    written(tmp_path / "other/memes", {"2/1.jpg": picture(400), "2/2.jpg": picture(401)})
    more = judged(tmp_path / "other", tmp_path / "more")
    assert version({entry["name"]: entry for entry in more.card["sources"]}) != name


def test_kinds_that_are_asked_for(tmp_path: Path) -> None:
    shop(tmp_path)
    assert roles(judged(tmp_path, tmp_path / "out", "furniture")).keys() == {"furniture"}
    with pytest.raises(UsageError, match=r"`furnitur` is no kind.*Did you mean `furniture`"):
        parts_at(str(tmp_path), ("furnitur",))
    with pytest.raises(SourceError, match=r"no images of `artwork`.*met"):
        parts_at(str(tmp_path), ("artwork",))
    with pytest.raises(SourceError, match="nothing that can be judged"):
        parts_at(str(tmp_path / "out"))
    with pytest.raises(SourceError, match="no toys to search for"):
        judged(tmp_path, tmp_path / "toys", "toys")


@pytest.mark.parametrize("seed", range(200))
def test_drawn_by_the_rule(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = int(rng.integers(0, 40))
    queries, index = int(rng.integers(1, 9)), int(rng.integers(1, 31))
    digest, classes = rng.permutation(rows).astype(np.uint64), rng.permutation(6).astype(np.uint64)
    label, group = rng.integers(-1, 6, rows), rng.integers(-1, 3, rows)
    is_query, is_gallery = rng.random((2, rows)) < 0.6
    role = draw(digest, label, group, is_query, is_gallery, classes, queries, index)
    asked: dict[int, list[int]] = {}
    for one in range(6):
        mine = sorted((i for i in range(rows) if label[i] == one), key=lambda i: digest[i])
        index_rows = [i for i in mine if is_gallery[i]]
        if index_rows:
            kept = index_rows[-1]
            asked[one] = [i for i in mine if is_query[i] and i != kept and (group[i] == -1 or group[i] != group[kept])]
    expected, turn = set[int](), 0
    while len(expected) < queries and any(turn < len(mine) for mine in asked.values()):
        for one in sorted(asked, key=lambda one: classes[one]):
            if turn < len(asked[one]) and len(expected) < queries:
                expected.add(asked[one][turn])
        turn += 1
    assert set(np.flatnonzero(role == QUERY).tolist()) == expected
    drawn = {int(label[i]) for i in expected}
    theirs = {i for i in range(rows) if label[i] in drawn and is_gallery[i] and i not in expected}
    found = set(np.flatnonzero(role == IN_INDEX).tolist())
    assert theirs <= found  # fewer than 20 each
    others = [i for i in np.argsort(digest).tolist() if is_gallery[i] and label[i] not in drawn]
    assert found - theirs == set(others[: max(0, index - len(theirs))])
    assert (role[~np.isin(np.arange(rows), [*expected, *found])] == LEFT_OUT).all()


def test_the_table_names_data_sets_that_are_known_and_eleven_kinds() -> None:
    assert len(KINDS) == 11
    assert {kind.dataset for kind in KINDS.values() if kind.dataset} <= set(DATASETS)
    assert {name for name, kind in KINDS.items() if kind.is_open} == {
        *("apparel", "packaged", "landmarks", "furniture", "storefronts", "artwork", "toys"),
    }


def test_the_page_tells_of_the_same_kinds() -> None:
    page = Path(__file__).parents[3] / "docs/how-to/judge.md"
    lines = [line.split(" | ") for line in page.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    told = {cells[0].strip("| "): cells[1].strip("`") for cells in lines if cells[0].strip("| ") in KINDS}
    assert told == {name: kind.dataset or "yours" for name, kind in KINDS.items()}
    opened = [name for name, kind in KINDS.items() if kind.is_open]
    assert f"--kinds {' '.join(opened)}`" in page.read_text(encoding="utf-8")


def test_digests_are_of_names_alone() -> None:
    """What orders images is BLAKE2b of their names in eight bytes, which any program can compute."""
    from lookalike.data.sources.listed import names_digested

    wanted = np.frombuffer(blake2b(b"a/b.jpg", digest_size=8).digest(), np.uint64)
    assert np.frombuffer(names_digested(["a/b.jpg"], 8), np.uint64) == wanted

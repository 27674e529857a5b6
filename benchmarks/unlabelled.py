"""The rows of results/unlabelled.md: what images without labels are worth, of domains that no label was learned from.

    python benchmarks/unlabelled.py --data $LOOKALIKE_DATA --work DIR --backbone vit_tiny_patch16_224_in21k_in1k

`lookalike train head` on ten sets of real images, by its own measurements: on classes never seen of all domains, and on
each domain with only the others' labels. Three times each: with nothing beside; with the domain's other images, those
of split "train", without their labels; with all test images, the very ones that are searched, without theirs. The last
is for one's own photos, which are there before they are searched; it says nothing of images that come later. And once
by `lookalike train pca` of the test images, without any label.
A run that is finished in DIR is not run again.
"""

import argparse
import csv
import json
from pathlib import Path
from typing import Any

from last_blocks import BACKBONES
from lookalike.core.journal import table
from real_images import prepared, step

METRIC = "mp@5"
Scores = dict[str, float]


def gallery(data: Path, work: Path) -> str:
    """A collection of the test images: no label, no domain, no split."""
    home = work / "photos"
    home.mkdir(parents=True, exist_ok=True)
    for file in sorted(data.glob("*.csv")):
        rows = [[row["path"]] for row in csv.DictReader(file.open()) if row["split"] == "test"]
        with (home / file.name).open("w") as out:
            csv.writer(out).writerows([["path"], *rows])
        images = home / f"{file.stem}.tar"
        images.unlink(missing_ok=True)
        images.symlink_to(file.with_suffix(".tar").resolve())
    step("prepare", ["prepare", *map(str, sorted(home.glob("*.csv"))), "--out", str(work / "gallery")], [])
    return str(work / "gallery")


def measured(work: Path, name: str, argv: list[str]) -> dict[str, Scores]:
    """What a run's document says: mP@5 of the mean and of each domain, by encoder."""
    file = work / f"{name}.json"
    if not file.exists():
        step(name, [*argv, "--out", str(work / name), "--json", str(file)], [])
    found = json.loads(file.read_text())
    if "folds" in found:
        sides = {fold["domain"]: fold for fold in found["folds"]} | {"mean": found["mean"]}
        return {
            side: {domain: each[side]["value"] for domain, each in sides.items()} for side in ("untouched", "trained")
        }
    return {"trained": _scores(found["test"])}


def _scores(found: dict[str, Any]) -> Scores:
    domains = {domain: each[METRIC] for domain, each in found["per_domain"].items()}
    return domains | {"mean": found["metrics"][METRIC]}


def alone(work: Path, name: str, coll: str, argv: list[str]) -> Scores:
    """The same of a run on images without labels, as `lookalike evaluate` measures what it makes."""
    file = work / f"{name}.json"
    if not file.exists():
        step(name, [*argv, "--out", str(work / name)], [])
        step("evaluate", ["evaluate", coll, "--model", str(work / name / "model"), "--json", str(file)], [])
    return _scores(json.loads(file.read_text()))


def main() -> None:
    """Prepare, train, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--backbone", default="vit_tiny_patch16_224_in21k_in1k", choices=list(BACKBONES))
    options = parser.parse_args()
    coll, tower = prepared(options.data, options.work, options.backbone)
    photos = gallery(options.data, options.work)
    head = ["train", "head", "--data", coll, "--model", tower]
    away, rows = ["--leave-out", "domain"], {}
    for words, name, more in (
        ("labels of all domains", "seen", []),
        ("the same, and the test images without labels", "seen-photos", ["--unlabelled", photos]),
        ("labels of the other domains", "away", away),
        ("the same, and the domain's other images without labels", "away-others", [*away, "--unlabelled", coll]),
        ("the same, and the test images without labels", "away-photos", [*away, "--unlabelled", photos]),
    ):
        found = measured(options.work, f"{options.backbone}-{name}", [*head, *more])
        if "untouched" in found:
            rows["untouched, all features"] = found["untouched"]
        rows[f"{words} ({name})"] = found["trained"]
    pca = ["train", "pca", "--data", photos, "--model", tower, "--fit.power", "-0.25", "--mirror", "--zooms", "0.8"]
    rows["no labels at all: PCA of the test images (pca)"] = alone(options.work, f"{options.backbone}-pca", coll, pca)
    domains = [*sorted(set(rows["untouched, all features"]) - {"mean"}), "mean"]
    print(table(["", *domains], [[name, *(f"{row[domain]:.3f}" for domain in domains)] for name, row in rows.items()]))


if __name__ == "__main__":
    main()

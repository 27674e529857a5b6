"""How many of planted label errors are among the first of `lookalike outliers`, on a collection that has vectors.

    python benchmarks/outliers.py COLL

Gives a share of the images the label of another class, of any or of the same domain, and counts how many of these are
among as many first ones: its precision, which is then its recall too. Mean and range over five draws. Labels are
planted in memory; the collection stays as it is.
"""

import argparse

import numpy as np

from lookalike.core.journal import quiet
from lookalike.core.shapes import l2_normalize
from lookalike.data.collection import Collection
from lookalike.exploring.labels import classes_of, fits_of, score_of

DRAWS = 5


def planted(classes: np.ndarray, domains: np.ndarray, share: float, near: bool, seed: int) -> np.ndarray:
    """The classes, some of them wrong: of any domain, or of the row's own."""
    rng = np.random.default_rng(seed)
    home = {int(number): domain for number, domain in zip(classes, domains, strict=True)}
    names = np.unique(classes)
    found = classes.copy()
    for row in rng.choice(len(classes), round(share * len(classes)), replace=False).tolist():
        others = [n for n in names.tolist() if n != classes[row] and (not near or home[n] == domains[row])]
        found[row] = rng.choice(others)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("collection")
    collection = Collection.open(parser.parse_args().collection)
    column = (collection.card.get("model") or {}).get("column") or next(
        name for name in collection.columns if name.startswith(("embedding_", "features_"))
    )
    vectors = l2_normalize(collection.vectors(column)[1])
    rows = collection.table(["domain", "label"])
    domains = np.array(rows["domain"].to_pylist())
    classes, _ = classes_of(rows["domain"].to_pylist(), rows["label"].to_pylist())
    alone = np.full(len(classes), -1)
    print(f"{len(classes):,} images, {classes.max() + 1:,} labels, {vectors.shape[1]} numbers")
    print("| wrong label from | share | found among as many first | right label suggested | good ones above 0.5 |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for near in (False, True):
        for share in (0.02, 0.05, 0.1):
            found = []
            for seed in range(DRAWS):
                given = planted(classes, domains, share, near, seed)
                wrong = given != classes
                with quiet():
                    fits = fits_of(vectors, given, alone)
                score = np.nan_to_num(score_of(fits), nan=-1)
                first = np.argsort(-score, kind="stable")[: wrong.sum()]
                suggested = (fits.nearest[wrong] == classes[wrong]).mean()
                found.append((wrong[first].mean(), suggested, (score[~wrong] > 0.5).mean()))
            at, right, good = np.array(found).T
            told = f"{at.mean():.3f} ({at.min():.3f} to {at.max():.3f}) | {right.mean():.3f} | {good.mean():.4f}"
            print(f"| {'its own domain' if near else 'anywhere'} | {share:.0%} | {told} |", flush=True)


if __name__ == "__main__":
    main()

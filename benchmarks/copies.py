"""How many planted copies `lookalike duplicates` finds together with what they were made of, and what else it finds.

    python benchmarks/copies.py COLL --model vt --work DIR

Images of COLL, spread through it, are copied in four ways into folders of their own (so with labels of their own), and
COLL's own images beside them; a new collection is made of all, in DIR. Found is a copy that stands in one group with
what it was made of; other groups hold no copy.
"""

import argparse
import io
from pathlib import Path

import numpy as np
import PIL.Image

import lookalike as la
from lookalike.core.journal import table

WAYS = {
    "half the size": lambda image: image.resize((image.width // 2, image.height // 2)),
    "JPEG quality 30": lambda image: image,
    "a tenth cut off": lambda image: image.crop(
        (image.width // 20, image.height // 20, image.width - image.width // 20, image.height - image.height // 20)
    ),
    "mirrored": lambda image: image.transpose(PIL.Image.Transpose.FLIP_LEFT_RIGHT),
}


def main() -> None:
    """Print a line for each way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("collection")
    parser.add_argument("--model", required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--copies", type=int, default=90)
    arguments = parser.parse_args()
    rows = la.Collection.open(arguments.collection).table(["id", "label", "domain", "image"])
    chosen = set(np.linspace(0, len(rows) - 1, arguments.copies).astype(int).tolist())
    for place, row in enumerate(rows.to_pylist()):
        for way in ["own", *(WAYS if place in chosen else ())]:
            own = way == "own"
            folder = f"{row['domain']}/{row['label']}" if own else f"copies/{way} {place}"
            file = arguments.work / "images" / folder / f"{place}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            if own:
                file.write_bytes(row["image"])
            else:
                image = PIL.Image.open(io.BytesIO(row["image"])).convert("RGB")
                WAYS[way](image).save(file, quality=30 if "quality" in way else 90)
    made = la.prepare(arguments.work / "images", arguments.work / "coll")
    names = dict(zip(*(made.table([c])[c].to_pylist() for c in ("id", "source")), strict=True))
    found = la.duplicates(made, model=arguments.model)
    together, others = dict.fromkeys(WAYS, 0), 0
    for group in found.groups:
        inside = {names[number].removeprefix("images/") for number in group}
        owns = {Path(name).stem for name in inside if not name.startswith("copies/")}
        for way in WAYS:
            together[way] += sum(Path(name).stem in owns for name in inside if name.startswith(f"copies/{way} "))
        others += not any(name.startswith("copies/") for name in inside)
    print(table(["copies", "found", "of"], [[way, count, len(chosen)] for way, count in together.items()]))
    print(f"groups without a copy: {others}; vectors from cosine {found.cosine} on")


if __name__ == "__main__":
    main()

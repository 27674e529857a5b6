"""A stage that tunes only the last blocks of a tower, on cached maps, against whole steps: images/s of `train tune`.

    python benchmarks/last_blocks.py --data $LOOKALIKE_DATA
    python benchmarks/last_blocks.py --data $LOOKALIKE_DATA --images 96 --steps 6 --rounds 1     a smoke run

Runs of the recipe `tune` on stored images, as `lookalike train` does them: the whole tower, then its last blocks with
`--copies 1`, whose maps are made before the first step. The rate is that of the steps, without compiling: the median
over lines of metrics behind the first. Rounds are interleaved. Goal: 5 times.
"""

import argparse
import json
import os
import statistics
import tempfile
from dataclasses import replace
from pathlib import Path

from lookalike.core.journal import note, table
from lookalike.data.prepare import prepare
from lookalike.encoders.encoder import Encoder
from lookalike.published.layouts import read_published
from lookalike.recipes import RECIPES
from lookalike.training.config import TrainConfig, Trained
from lookalike.training.loop import train
from prepare import sources

BACKBONES = {"mobilenet_v2_1.0_224": (6, 3), "vit_tiny_patch16_224_in21k_in1k": (4, 2)}
"""Each tower, and how many of its last blocks are tuned: a third of them, and half of that."""


def rate(config: TrainConfig) -> float:
    """Images a second of the steps."""
    train(config)
    lines = [json.loads(line) for line in Path(config.out, "metrics.jsonl").read_text().splitlines()]
    return statistics.median([line["images_per_second"] for line in lines if "images_per_second" in line][1:])


def collected(home: Path, data: Path, count: int) -> Path:
    """A collection of `count` images in 32 classes."""
    for number, image in enumerate(sources(data, count)):
        folder = home / "images" / f"class{number % 32:02}"
        folder.mkdir(parents=True, exist_ok=True)
        image.save(folder / f"{number:05}.jpg", quality=92)
    prepare([str(home / "images")], str(home / "coll"))
    return home / "coll"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("LOOKALIKE_DATA"), help="real images and towers")
    parser.add_argument("--images", type=int, default=320)
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    if arguments.data is None:
        note("Skipped: it needs real images and towers, `--data`.")
        return
    recipe, rows = RECIPES["tune"], []
    with tempfile.TemporaryDirectory() as place:
        home = Path(place)
        coll = collected(home, arguments.data, arguments.images)
        for name, parts in BACKBONES.items():
            _, encoder, tensors = read_published(arguments.data / "backbones" / name)
            Encoder.from_parts(encoder, tensors).save(home / name)
            whole = replace(recipe.stages[0], batch=32, steps=arguments.steps)
            ways = {"whole": whole} | {
                f"last {blocks}": replace(whole, trained=Trained(blocks=blocks), copies=1, steps=4 * arguments.steps)
                for blocks in parts
            }
            found: dict[str, list[float]] = {way: [] for way in ways}
            for number in range(arguments.rounds):
                for way, stage in ways.items():
                    run = home / f"{name}-{way.replace(' ', '-')}-{number}"
                    shared = {"data": str(coll), "model": str(home / name), "out": str(run)}
                    every = max(1, stage.steps // 5)
                    found[way].append(rate(replace(recipe, **shared, stages=(stage,), log_every=every)))
            for way, rates in found.items():
                ratios = sorted(a / b for a, b in zip(rates, found["whole"], strict=True))
                spread = f"{ratios[0]:.2f} to {ratios[-1]:.2f}"
                rows.append([name, way, f"{statistics.median(rates):.1f}", f"{statistics.median(ratios):.2f}", spread])
    note(table(["tower", "blocks tuned", "images/s", "by the whole", "of all rounds"], rows))


if __name__ == "__main__":
    main()

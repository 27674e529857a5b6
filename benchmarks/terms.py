"""The rows of results/terms.md: each loss and each term in the place of the default, one at a time.

    python benchmarks/terms.py --data $LOOKALIKE_DATA --work DIR --backbone vit_tiny_patch16_224_in21k_in1k

On a frozen tower (`train head`); with `--blocks` the last third of its blocks is tuned on cached maps. Protocol, flags
and what goes on after a kill are those of benchmarks/tuned.py, and so are the first rows.
"""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from last_blocks import BACKBONES
from lookalike.data.sampling import Mixture
from lookalike.losses import (
    AdaCos,
    AdaFace,
    ArcFace,
    BySize,
    CosFace,
    CurricularFace,
    FeatureAnchor,
    Geometry,
    Growing,
    L2Sp,
    NormFace,
    Projecting,
    RkdAngle,
    RkdDistance,
    SigmoidPairs,
    SupCon,
)
from lookalike.recipes import RECIPES
from lookalike.training.config import StepStage, TrainConfig
from real_images import Judge, prepared
from tuned import Bench, ways

Changes = dict[str, Any]
FOUR = Mixture(per_class=4)


def losses(stage: StepStage) -> dict[str, tuple[Changes, str]]:
    """Fields of a stage that differ, and how the command says it."""
    keep = stage.projecting
    return {
        "as it is: ArcFace, margin .1, scale 16": ({}, ""),
        "NormFace, no margin": ({"loss": NormFace(16.0)}, "--loss NormFace"),
        "ArcFace, margin .3, scale 30": ({"loss": ArcFace(0.3, 30.0)}, "--loss.margin 0.3 --loss.scale 30"),
        "CosFace, margin .1": ({"loss": CosFace(0.1, 16.0)}, "--loss CosFace --loss.margin 0.1 --loss.scale 16"),
        "three centers a class": ({"centers": 3}, "--centers 3"),
        "AdaCos": ({"loss": AdaCos()}, "--loss AdaCos"),
        "AdaFace, margin .1": ({"loss": AdaFace(0.1, 16.0)}, "--loss AdaFace --loss.margin 0.1 --loss.scale 16"),
        "CurricularFace, margin .1": (
            {"loss": CurricularFace(0.1, 16.0)},
            "--loss CurricularFace --loss.margin 0.1 --loss.scale 16",
        ),
        "margins by class size, .05 to .5": ({"margin": BySize()}, "--margin BySize"),
        "margins that grow, .1 to .4": ({"margin": Growing(top=0.4)}, "--margin Growing --margin.top 0.4"),
        "supervised contrastive, four of a class": (
            {"loss": SupCon(), "mixture": FOUR},
            "--loss SupCon --mixture.per-class 4",
        ),
        "sigmoid of pairs, four of a class": (
            {"loss": SigmoidPairs(), "mixture": FOUR},
            "--loss SigmoidPairs --mixture.per-class 4",
        ),
        "ArcFace, four of a class": ({"mixture": FOUR}, "--mixture.per-class 4"),
        "one domain a batch": ({"mixture": Mixture(domains="single")}, "--mixture.domains single"),
        "five dropouts of .3": (
            {"projecting": Projecting(dropout=0.3, samples=5)},
            "--projecting.dropout 0.3 --projecting.samples 5",
        ),
        "batch norm": ({"projecting": replace(keep, batch_norm=True)}, "--projecting.batch-norm"),
        "rounded to eight bits": ({"projecting": replace(keep, eight_bits=True)}, "--projecting.eight-bits"),
    }


def terms() -> dict[str, tuple[Changes, str]]:
    """What may be held beside the loss, each with a weight at which it counts, but for what is a row of tuned.py."""
    found = {
        "distances held (RKD)": (Geometry(distance=RkdDistance(weight=1.0)), "distance.weight 1"),
        "angles held (RKD)": (Geometry(angle=RkdAngle(weight=1.0)), "angle.weight 1"),
        "features held": (Geometry(anchor=FeatureAnchor(weight=1000.0)), "anchor.weight 1000"),
        "weights held (L2-SP)": (Geometry(weights=L2Sp(weight=1000.0)), "weights.weight 1000"),
    }
    return {name: ({"geometry": geometry}, f"--geometry.{said}") for name, (geometry, said) in found.items()}


def changed(config: TrainConfig, changes: Changes) -> TrainConfig:
    """`config` with these fields of its first stage."""
    first, *rest = config.stages
    return replace(config, stages=(replace(first, **changes), *rest))


def report(judge: Judge, found: dict[str, tuple[list[np.ndarray], str]]) -> str:
    """Means over domains and seeds, and differences from the first row, paired by query, with their intervals."""
    domains, first = sorted(set(judge.domain.tolist())), next(iter(found.values()))[0]
    lines = ["| | mP@5 | difference [95 %] | flags |", "|---|---:|---:|---|"]
    for name, (runs, said) in found.items():
        center = judge.interval(runs, domains)[0]
        more, low, high = judge.interval([run - base for run, base in zip(runs, first, strict=True)], domains)
        flags = said and f"`{said}`"
        lines.append(f"| {name} | {center:.4f} | {more:+.4f} [{low:+.3f}, {high:+.3f}] | {flags} |")
    return "\n".join(lines)


def main() -> None:
    """Prepare, train, score, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--only", default="", help="rows whose name contains this")
    parser.add_argument("--blocks", action="store_true", help="tune the last third of the blocks")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--backbone", default="vit_tiny_patch16_224_in21k_in1k", choices=list(BACKBONES))
    options = parser.parse_args()
    coll, tower = prepared(options.data, options.work, options.backbone)
    bench = Bench(Judge(coll, tower), coll, tower, options.work / f"rows-{options.backbone}")
    if options.blocks:
        kind, (config, _) = "last blocks", ways(BACKBONES[options.backbone][0])["last blocks"]
    else:
        kind, config = "head", replace(RECIPES["head"], mirror=False, zooms=())
    rows = losses(config.stages[0]) | (terms() if options.blocks else {})
    found = {}
    for name, (changes, said) in rows.items():
        if options.only in name:
            run = changed(config, changes)
            kept = f"{kind} {name}" if changes else kind
            found[name] = ([bench.scores(f"{kept} {seed}", bench.trained(run, seed)) for seed in options.seeds], said)
    print(f"{options.backbone}, {kind}:\n")
    print(report(bench.judge, found))


if __name__ == "__main__":
    main()

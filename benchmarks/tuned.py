"""The rows of results/tuned_rows.md: ways to tune the last blocks of a tower, against leaving it alone.

    python benchmarks/tuned.py --data $LOOKALIKE_DATA --work DIR --backbone vit_tiny_patch16_224_in21k_in1k

Protocol, scores and intervals are those of benchmarks/real_images.py, of whole images alone: no mirror image, no zoom.
What is tuned is a third of the blocks, on cached maps; ways differ in one thing each. Then a projection is fitted anew.
A row and seed that is finished in DIR is not run again: an interrupted run is gone on with by the same command, and a
table of what is there is printed at its end. `--only WORDS` runs rows whose name has these words; averages are of
the runs of `last blocks`.
"""

import argparse
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from last_blocks import BACKBONES
from lookalike.core.files import write_json
from lookalike.core.journal import note
from lookalike.encoders.blend import blended
from lookalike.encoders.encoder import Encoder
from lookalike.losses import Geometry, GramDistillation, SimilarityDistillation
from lookalike.recipes import RECIPES
from lookalike.training.config import EVENED, FitStage, Given, HeadStage, TrainConfig, Trained, TuneStage
from lookalike.training.loop import train
from real_images import HEAD, PLAIN, Judge, Row, prepared, staged

SEEDS = (0, 1, 2)
FLAGS = "--trained.blocks {blocks} --copies 2 --optimizer.tower-learning-rate 1e-4 --epochs 4 --no-mirror --zooms"


def ways(blocks: int) -> dict[str, tuple[TrainConfig, str]]:
    """Each way's run, and how its command differs from that of the first."""
    recipe = RECIPES["tune"]
    whole, fit = recipe.stages
    rates = replace(whole.optimizer, tower_learning_rate=1e-4)
    last = replace(whole, trained=Trained(blocks=blocks), copies=2, optimizer=rates, epochs=4.0)

    def run(**changes: object) -> TrainConfig:
        return replace(recipe, stages=(replace(last, **changes), fit), mirror=False, zooms=())

    low = replace(rates, tower_learning_rate=1e-3)
    head = staged(HEAD).stages[0]
    return {
        "last blocks": (run(), ""),
        "without a running mean (EMA)": (run(ema=0.0), "--ema 0"),
        "LoRA, rank 8": (
            run(trained=Trained(blocks=blocks, lora=8), optimizer=low),
            "--trained.lora 8 --optimizer.tower-learning-rate 1e-3",
        ),
        "the untouched tower's neighbours distilled": (
            run(geometry=Geometry(similarity=SimilarityDistillation(weight=1.0))),
            "--geometry.similarity.weight 1",
        ),
        "the untouched tower's cosines distilled": (
            run(geometry=Geometry(gram=GramDistillation(weight=1.0))),
            "--geometry.gram.weight 1",
        ),
        "a head first, then the blocks": (
            replace(run(), stages=(head, replace(last, start=Given()), fit)),
            "a stage `head` before it, whose projection it takes over",
        ),
        "layers' rates falling by .6": (
            run(trained=Trained(blocks=blocks, layer_decay=0.6)),
            "--trained.layer-decay 0.6",
        ),
        "SAM, radius .05": (run(optimizer=replace(rates, sam=0.05)), "--optimizer.sam 0.05"),
    }


def frozen() -> dict[str, tuple[TrainConfig, str]]:
    """What the tower is worth as it is."""
    views = {"mirror": False, "zooms": ()}
    return {
        "untouched, all features": (TrainConfig(), "evaluate"),
        "PCA, 64 numbers": (replace(PLAIN, **views), "train pca"),
        "`head`": (replace(HEAD, **views), "train head --no-mirror --zooms"),
    }


class Bench:
    """Runs and scores that are kept in a directory."""

    def __init__(self, judge: Judge, coll: str, tower: str, kept: Path) -> None:
        self.judge, self.coll, self.tower, self.kept = judge, coll, tower, kept
        kept.mkdir(parents=True, exist_ok=True)

    def scores(self, name: str, make: Callable[[Path], Encoder]) -> np.ndarray:
        """mP@5 of every test row by the encoder that `make` makes in a directory; made and scored once."""
        home = self.kept / _folder(name)
        file = home / "scores.json"
        if not file.exists():
            home.mkdir(exist_ok=True)
            begun = time.monotonic()
            encoder = make(home)
            found = self.judge.per_query(self.judge.vectors(encoder, Row(name, TrainConfig(), "")))
            seconds = time.monotonic() - begun
            write_json(file, {"seconds": seconds, "mp@5": found.tolist()})
            note(f"{name}: {np.mean(self._domains(found)):.4f}, {seconds:.0f} s")
        return np.array(json.loads(file.read_text())["mp@5"], float)

    def _domains(self, scores: np.ndarray) -> list[float]:
        return [float(np.nanmean(scores[self.judge.domain == domain])) for domain in np.unique(self.judge.domain)]

    def trained(self, config: TrainConfig, seed: int) -> Callable[[Path], Encoder]:
        """A run, gone on with where it was; of a tower as it is, the tower."""

        def make(home: Path) -> Encoder:
            if not config.stages:
                untouched = Encoder.load(self.tower)
                return replace(untouched, config=replace(untouched.config, mirror=config.mirror, zooms=config.zooms))
            run = home / "run"
            found = train(replace(config, data=self.coll, model=self.tower, out=str(run), seed=seed))
            found.save(home / "model", {})
            shutil.rmtree(run / "checkpoints", ignore_errors=True)
            return found

        return make

    def averaged(self, names: list[str], shares: list[float]) -> Callable[[Path], Encoder]:
        """Weights of finished runs averaged, "" for the untouched tower, and a projection fitted on what they make."""

        def make(home: Path) -> Encoder:
            models = [Encoder.load(str(self.kept / _folder(name) / "model") if name else self.tower) for name in names]
            mean = replace(models[-1], tensors=blended([model.tensors for model in models], shares))
            mean.save(home / "mean", {})
            stages = (FitStage(EVENED),)
            config = replace(RECIPES["tune"], stages=stages, mirror=False, zooms=(), data=self.coll)
            return train(replace(config, model=str(home / "mean"), out=str(home / "run")))

        return make


def _folder(name: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in name)


def report(bench: Bench, found: dict[str, tuple[list[np.ndarray], str]]) -> str:
    """The table as Markdown: means over seeds, intervals over classes and seeds, and each seed."""
    domains = sorted(set(bench.judge.domain.tolist()))
    lines = [f"| | mP@5 [95 %] | each seed | {' | '.join(domains)} |", "|---|---|---|" + "---|" * len(domains)]
    for name, (runs, _) in found.items():
        center, low, high = bench.judge.interval(runs, domains)
        seeds = ", ".join(f"{bench.judge.interval([run], domains)[0]:.4f}" for run in runs)
        cells = [f"{bench.judge.interval(runs, [domain])[0]:.3f}" for domain in domains]
        lines.append(f"| {name} | **{center:.4f}** [{low:.3f}, {high:.3f}] | {seeds} | {' | '.join(cells)} |")
    lines += ["", "| row | what is different |", "|---|---|"]
    return "\n".join([*lines, *(f"| {name} | {said} |" for name, (_, said) in found.items())])


def main() -> None:
    """Prepare, tune, score, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--only", default="", help="rows whose name contains this")
    parser.add_argument("--backbone", default="vit_tiny_patch16_224_in21k_in1k", choices=list(BACKBONES))
    options = parser.parse_args()
    coll, tower = prepared(options.data, options.work, options.backbone)
    bench = Bench(Judge(coll, tower), coll, tower, options.work / f"rows-{options.backbone}")
    blocks, found = BACKBONES[options.backbone][0], {}
    for name, (config, said) in (frozen() | ways(blocks)).items():
        if options.only in name:
            seeds = SEEDS if any(isinstance(stage, HeadStage | TuneStage) for stage in config.stages) else (0,)
            found[name] = ([bench.scores(f"{name} {seed}", bench.trained(config, seed)) for seed in seeds], said)
    first = [f"last blocks {seed}" for seed in SEEDS]
    averages = {
        "half of the weights, half of the untouched (WiSE-FT)": [(["", run], [0.5, 0.5]) for run in first],
        "the three seeds' weights averaged (soup)": [(first, [1.0, 1.0, 1.0])],
    }
    for name, means in averages.items():
        if options.only in name:
            runs = [bench.scores(f"{name} {number}", bench.averaged(*mean)) for number, mean in enumerate(means)]
            found[name] = (runs, f"`lookalike blend --shares {' '.join(f'{share:g}' for share in means[0][1])}`")
    print(f"{options.backbone}: `lookalike train tune --data coll --model tower {FLAGS.format(blocks=blocks)}`\n")
    print(report(bench, found))


if __name__ == "__main__":
    main()

"""The rows of results/real_images.md: 64 numbers against the raw features, on classes and domains never seen.

    python benchmarks/real_images.py --data $LOOKALIKE_DATA --work /tmp/real > results/real_images.md

Prepares all sets of --data (NAME.csv with NAME.tar) into one collection, takes a frozen tower in --data/backbones, fits
every row of `rows` with its seeds, and scores it twice: on test classes of domains that it was fitted on, and, by its
first seed, on the test classes of each domain after fitting on the nine others. Every search is in the merged index.
Intervals are 95 % of a bootstrap that draws classes within each domain, and seeds; it is computed here from a second,
plain implementation of mP@5, whose means must agree with `lookalike.evaluate`.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa

from lookalike.core.journal import note, table
from lookalike.data.collection import Collection
from lookalike.encoders.encoder import Encoder
from lookalike.evaluation.encoders import vectors_on
from lookalike.evaluation.protocols import evaluate
from lookalike.evaluation.roles import COLUMNS
from lookalike.losses import Geometry, Projecting, SimilarityDistillation
from lookalike.recipes import RECIPES
from lookalike.training.config import FitStage, Pca, TrainConfig
from lookalike.training.loop import train
from lookalike.vectors.runtime import load

PLAIN = RECIPES["pca"]
HEAD = RECIPES["head"]
ARCFACE = RECIPES["arcface"]
KEPT = Geometry(SimilarityDistillation(weight=1.0))


def staged(config: TrainConfig, **changes: object) -> TrainConfig:
    """The recipe with its one stage changed."""
    return replace(config, stages=(replace(config.stages[0], **changes),))


HEAD_OF_PAGE = """# 64 numbers on real images, a frozen {tower}

Ten sets of real images in one collection, mP@5 by cosine in one index of all test images, the query and its group
left out. Test classes are in no fit. In brackets the 95 % interval over drawn classes and seeds: it says how far
another draw of classes might lie, for all rows alike; the differences between rows, which are scored on the same
classes, are surer than that. Where 64 numbers lose, and why: see docs/concepts/sixty-four.md.

    python benchmarks/real_images.py --data $LOOKALIKE_DATA --work DIR --backbone {tower}
"""


@dataclass(frozen=True)
class Row:
    """A way from features to numbers, and the command that makes it."""

    name: str
    config: TrainConfig
    """Without stages: the features themselves, of the views that it says."""
    flags: str
    seeds: int = 1
    first: int = 0
    """How many of the numbers are looked at; 0: all."""
    codes: bool = False
    """Whether they are rounded to a byte each."""


def rows(seeds: int) -> list[Row]:
    """All rows of the table."""
    views = {"mirror": HEAD.mirror, "zooms": HEAD.zooms}
    nested, eight = (
        staged(HEAD, projecting=Projecting(0.1, **how)) for how in ({"nested": (8, 16, 32, 64)}, {"eight_bits": True})
    )
    start = replace(PLAIN, stages=(FitStage(HEAD.stages[0].start),), **views)
    said = "train head --projecting.nested 8 16 32 64"
    return [
        Row("all features", TrainConfig(), "evaluate tower coll"),
        Row("all features, mirror", TrainConfig(mirror=True), "the mean of both"),
        Row("all features, mirror, zoom", TrainConfig(**views), "the mean of four"),
        Row("PCA-64", PLAIN, "train pca"),
        Row(
            "PCA-64, variance^-1/8, mirror, zoom",
            replace(staged(PLAIN, fit=Pca(power=-0.125)), **views),
            "train pca --fit.power -0.125 --mirror --zooms 0.8",
        ),
        Row("LDA-64, mirror, zoom", replace(RECIPES["lda"], **views), "train lda --mirror --zooms 0.8"),
        Row(
            "ArcFace-64 as the field has it, mirror, zoom",
            replace(ARCFACE, **views),
            "train arcface --mirror --zooms 0.8",
            seeds,
        ),
        Row("start of `head`, no steps", start, "train pca --fit.power -0.25 --fit.within 1 --mirror --zooms 0.8"),
        Row("`head` as it ships", HEAD, "train head", seeds),
        Row("`head`, 64 bytes", HEAD, "train head; each number rounded to a byte", seeds, codes=True),
        Row("`head`, learned for bytes, 64 bytes", eight, "train head --projecting.eight-bits", seeds, codes=True),
        Row("`head`, nested", nested, said, seeds),
        Row("`head`, nested, its first 32", nested, said, seeds, first=32),
        Row("`head`, neighbours kept", staged(HEAD, geometry=KEPT), "train head --geometry.similarity.weight 1", seeds),
        Row("`head` without the zoom", replace(HEAD, zooms=()), "train head --zooms", seeds),
        Row(
            "`head` without mirror and zoom",
            replace(HEAD, mirror=False, zooms=()),
            "train head --no-mirror --zooms",
            seeds,
        ),
    ]


def step(words: str, argv: list[str], log: list[tuple[str, float, float]]) -> None:
    """Run one command as a process of its own; note its seconds and its peak memory in MiB."""
    note(f"$ lookalike {' '.join(argv)}")
    begun = time.monotonic()
    process = subprocess.Popen([sys.executable, "-m", "lookalike", *argv], stdout=sys.stderr)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"lookalike {argv[0]} failed")
    log.append((words, time.monotonic() - begun, usage.ru_maxrss / 1024))


def prepared(
    data: Path, work: Path, backbone: str, log: list[tuple[str, float, float]] | None = None
) -> tuple[str, str]:
    """All sets as a collection in `work`, and the backbone as a model directory."""
    coll, tower, log = str(work / "coll"), str(work / backbone), [] if log is None else log
    if not Path(tower).exists():
        given = str(data / "backbones" / backbone)
        step("pull: the published weights into a model directory", ["pull", given, "--out", tower], log)
    sources = [str(path) for path in sorted(data.glob("*.csv"))]
    step("prepare: ten sets into one collection", ["prepare", *sources, "--out", coll], log)
    return coll, tower


class Judge:
    """Scores encoders that have the tower, on the test rows."""

    def __init__(self, coll: str, tower: str) -> None:
        collection = Collection.open(coll)
        self.rows = collection.table(COLUMNS)
        keep = pa.compute.equal(self.rows["split"], "test").to_numpy(zero_copy_only=False)
        self.rows = self.rows.filter(keep)
        take = lambda name: np.array(self.rows[name].to_pylist(), object)
        self.label, self.domain, self.group = take("label"), take("domain"), take("group")
        self.vectors_of = vectors_on(collection, self.rows["id"].to_numpy(), load(tower, precision="float32"))

    def vectors(self, encoder: Encoder, row: Row) -> np.ndarray:
        """Embeddings of the test rows."""
        found = self.vectors_of(encoder)[:, : row.first or None]
        return np.round(found * np.float32(127 / np.abs(found).max())) if row.codes else found

    def per_query(self, vectors: np.ndarray) -> np.ndarray:
        """mP@5 of every test row, plainly written; NaN where nothing is relevant."""
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        scores = np.empty(len(unit))
        for i in range(len(unit)):
            excluded = np.zeros(len(unit), bool)
            excluded[i] = True
            if self.group[i] is not None:
                excluded |= (self.group == self.group[i]) & (self.domain == self.domain[i])
            relevant = (self.label == self.label[i]) & ~excluded
            reach = min(int(relevant.sum()), 5)
            order = np.argsort(-np.where(excluded, -np.inf, unit @ unit[i]), kind="stable")[:reach]
            scores[i] = relevant[order].sum() / reach if reach else np.nan
        return scores

    def interval(self, runs: list[np.ndarray], domains: list[str]) -> tuple[float, float, float]:
        """Mean over domains, and its 95 % interval over drawn classes and drawn seeds."""
        rng = np.random.default_rng(0)
        sums = []
        for domain in domains:
            inside = [np.flatnonzero((self.domain == domain) & (self.label == label)) for label in self._labels(domain)]
            sums.append([[(np.nansum(run[c]), np.count_nonzero(~np.isnan(run[c]))) for c in inside] for run in runs])

        def mean(pick: Callable[[int], np.ndarray], run: int) -> float:
            values = []
            for of_domain in sums:
                chosen = np.array(of_domain[run])[pick(len(of_domain[run]))].sum(axis=0)
                values.append(chosen[0] / chosen[1])
            return float(np.mean(values))

        center = float(np.mean([mean(np.arange, run) for run in range(len(runs))]))
        drawn = [mean(lambda n: rng.integers(0, n, n), int(rng.integers(len(runs)))) for _ in range(1000)]
        low, high = np.percentile(drawn, [2.5, 97.5])
        return center, float(low), float(high)

    def _labels(self, domain: str) -> list[str]:
        return sorted(set(self.label[self.domain == domain].tolist()))


@cache
def fitted(config: TrainConfig, seed: int, where: str, coll: str, tower: str, out: Path) -> Encoder:
    """The encoder of a row."""
    if not config.stages:
        encoder = Encoder.load(tower)
        return replace(encoder, config=replace(encoder.config, mirror=config.mirror, zooms=config.zooms))
    shutil.rmtree(out, ignore_errors=True)
    return train(replace(config, data=coll, model=tower, out=str(out), where=where, seed=seed))


def score(
    row: Row, judge: Judge, coll: str, tower: str, work: Path
) -> tuple[list[np.ndarray], list[np.ndarray], float]:
    """Per-query mP@5 for every seed on seen domains, and of each domain by an encoder that did not see it; seconds."""
    begun, domains, inside = time.monotonic(), sorted(set(judge.domain.tolist())), []
    for seed in range(row.seeds):
        vectors = judge.vectors(fitted(row.config, seed, "", coll, tower, work / "run"), row)
        inside.append(judge.per_query(vectors))
        ours = evaluate(vectors, judge.rows).metrics["mp@5"]
        plain = judge.interval(inside[-1:], domains)[0]
        if abs(ours - plain) > 3e-4:  # a rounding may turn a near tie, and so a query or two
            raise SystemExit(f"lookalike.evaluate says {ours}, the plain implementation {plain}")
        note(f"{row.name}, seed {seed}: seen {ours:.4f}")
    seconds, left_out = (time.monotonic() - begun) / row.seeds, np.empty(len(judge.label))
    for domain in domains:
        encoder = fitted(row.config, 0, f"domain != '{domain}'", coll, tower, work / "run")
        mine = judge.domain == domain
        left_out[mine] = judge.per_query(judge.vectors(encoder, row))[mine]
    return inside, [left_out], seconds


def report(judge: Judge, found: Mapping[str, tuple[Row, list[np.ndarray], list[np.ndarray], float]]) -> str:
    """The tables as Markdown."""
    domains = sorted(set(judge.domain.tolist()))
    parts = []
    for title, place in (("Classes never seen, domains seen", 1), ("Domains never seen (leave one domain out)", 2)):
        lines = [f"| | macro mP@5 [95 %] | {' | '.join(domains)} |", "|---|---|" + "---|" * len(domains)]
        for name, entry in found.items():
            runs = entry[place]
            center, low, high = judge.interval(runs, domains)
            cells = [f"{judge.interval(runs, [domain])[0]:.3f}" for domain in domains]
            lines.append(f"| {name} | **{center:.4f}** [{low:.3f}, {high:.3f}] | {' | '.join(cells)} |")
        parts.append(f"## {title}\n\n" + "\n".join(lines))
    lines = ["| row | command | seeds | seconds a fit |", "|---|---|---|---|"]
    lines += [f"| {n} | `{row.flags}` | {row.seeds} | {seconds:.1f} |" for n, (row, _, _, seconds) in found.items()]
    return "\n\n".join([*parts, "## How the rows were made\n\n" + "\n".join(lines)])


def main() -> None:
    """Prepare, embed, fit, score, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", default="", help="rows whose name contains this")
    parser.add_argument("--backbone", default="mobilenet_v2_1.0_224", help="a folder of --data/backbones")
    options = parser.parse_args()
    log: list[tuple[str, float, float]] = []
    coll, tower = prepared(options.data, options.work, options.backbone, log)
    judge = Judge(coll, tower)
    found = {}
    for row in rows(options.seeds):
        if options.only in row.name:
            found[row.name] = (row, *score(row, judge, coll, tower, options.work))
    print(HEAD_OF_PAGE.format(tower=options.backbone))
    print(report(judge, found))
    if log:
        print("\n## Time and memory of the steps\n\n```")
        print(table(["step", "seconds", "peak MiB"], [[w, f"{s:.1f}", f"{m:.0f}"] for w, s, m in log]))
        print("```")


if __name__ == "__main__":
    main()

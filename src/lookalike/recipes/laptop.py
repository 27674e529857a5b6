"""Recipes for a laptop: minutes on two cores, from a few hundred images on.

Scores are mP@5 of 64 numbers on classes never seen, of MobileNetV2 learning from 1,646 images of 177 classes in ten
domains; times and memory are those of two cores (results/real_images.md). Other machines: `lookalike plan RECIPE
--model MODEL --data COLL --measure 3`.
"""

from dataclasses import replace

from lookalike.imaging.augment import Color
from lookalike.losses import ArcFace, Geometry, Projecting, SimilarityDistillation
from lookalike.training.config import (
    EVENED,
    Augments,
    BestConfig,
    FitStage,
    HeadStage,
    Lda,
    NewStage,
    Optimizer,
    Pca,
    TrainConfig,
    Trained,
    TuneStage,
)

CHUNK = 1024  # classes whose logits a processor's cache holds: of 17,691 a step takes three quarters of the time
ZOOMS = (0.8,)  # twice the time of an image for .007 (MobileNetV2) and .03 (ViT-Tiny) of mP@5

# ArcFace that keeps what the tower knows: a start in closed form, which needs no steps and is most of the gain, then a
# small margin, low rates, few epochs. From this start terms of geometry added nothing.
HEAD = HeadStage(
    start=EVENED,
    loss=ArcFace(margin=0.1, scale=16.0),
    chunk=CHUNK,
    projecting=Projecting(dropout=0.1),
    optimizer=Optimizer(learning_rate=1e-4, centers_learning_rate=1e-3),
    epochs=20.0,
)

# All of the tower moves, and little: crops that keep most of an image, its colors, one low rate for all layers. Higher
# rates with stronger changes are as good for a ViT-Tiny, and .01 below for a MobileNetV2.
TUNE = TuneStage(
    start=EVENED,
    loss=ArcFace(margin=0.1, scale=16.0),
    projecting=Projecting(dropout=0.1),
    augment=Augments(area=(0.7, 1.0), color=Color(0.0, 0.0, 0.0)),
    optimizer=Optimizer(
        learning_rate=1e-4, centers_learning_rate=1e-3, tower_learning_rate=2e-5, warmup=0.1, floor=0.05, beta2=0.99
    ),
    batch=48,
    epochs=10.0,
    ema=0.98,
)

# The last blocks alone, on maps that are made once: faster, and the tower's neighbourhoods from before hold them.
LAST = replace(
    TUNE,
    geometry=Geometry(similarity=SimilarityDistillation(weight=1.0)),
    augment=Augments(area=(0.35, 1.0), color=Color(0.3, 0.3, 0.3, cast=0.1)),
    trained=Trained(blocks=4, layer_decay=0.8),
    optimizer=replace(TUNE.optimizer, learning_rate=5e-4, centers_learning_rate=3e-3, tower_learning_rate=2e-4),
    batch=64,
    epochs=4.0,  # longer gives no more
    copies=3,
)


def pca() -> TrainConfig:
    """PCA of a frozen tower's features, in closed form.

    lookalike train pca --data COLL --model MODEL --out RUN

    20 seconds and 0.8 GiB for features, one for the fit; nothing to choose: the bar for all training. Expected: .515.
    """
    return TrainConfig(stages=(FitStage(Pca(power=0.0)),))


def lda() -> TrainConfig:
    """LDA with shrinkage, in closed form; needs labels.

    lookalike train lda --data COLL --model MODEL --out RUN

    Time and memory are those of pca. Expected: .518, better than PCA on domains that it was fitted on,
    and worse on others (.482 for .502).
    """
    return TrainConfig(stages=(FitStage(Lda(shrinkage=0.7)),))


def head() -> TrainConfig:
    """A projection trained gently on a frozen tower's features; the one to begin with.

    lookalike train head --data COLL --model MODEL --out RUN

    A minute and 0.8 GiB for features, 20 seconds for the steps. Expected: .549 where its tower's 1280 numbers have .555
    (MobileNetV2), .630 for .613 of 192 (ViT-Tiny). `--zooms` without a number looks at each image half as often. The
    mirror image is left out where classes kept back from training say that it is worth nothing; `--mirror` takes it.
    """
    return TrainConfig(stages=(HEAD,), mirror=True, zooms=ZOOMS)


def arcface() -> TrainConfig:
    """The same as the field trains it, for comparison.

    lookalike train arcface --data COLL --model MODEL --out RUN

    Time and memory are those of head. Expected: .533; on few classes it gives away what the tower knew.
    """
    stage = HeadStage(
        start=Pca(power=0.0),
        loss=ArcFace(margin=0.3, scale=30.0),
        chunk=CHUNK,
        optimizer=Optimizer(learning_rate=1e-3, centers_learning_rate=1e-3),
        epochs=30.0,
    )
    return TrainConfig(stages=(stage,))


def tune() -> TrainConfig:
    """A given tower tuned gently, then a projection in closed form.

    lookalike train tune --data COLL --model MODEL --out RUN

    Ten to twenty minutes for a small tower and 1,646 images; `--trained.blocks 4 --copies 3
    --optimizer.tower-learning-rate 2e-4 --epochs 4` tunes the last blocks alone, in a few. Expected: .658 (ViT-Tiny),
    .570 (MobileNetV2; results/tuned.md).
    """
    return TrainConfig(stages=(TUNE, FitStage(EVENED)), mirror=True, zooms=ZOOMS)


def tiny() -> TrainConfig:
    """A small tower from scratch, on images.

    lookalike train tiny --data COLL --out RUN

    12 minutes for 1,646 images, one for a few hundred. Expected: .22 (results/tiny_real_images.md); the honest lower
    end: what images alone teach.
    """
    stage = TuneStage(
        augment=Augments(area=(0.4, 1.0), color=Color(0.3, 0.3, 0.3, cast=0.3)),
        loss=ArcFace(margin=0.2, scale=16.0),
        optimizer=Optimizer(
            learning_rate=2e-3, centers_learning_rate=1e-2, tower_learning_rate=2e-3, weight_decay=0.05, warmup=0.1
        ),
        batch=64,
        epochs=120.0,
    )
    return TrainConfig(stages=(NewStage(), stage))


def best() -> TrainConfig:
    """Whatever does best on classes and domains that it kept back: tries and proves.

    lookalike train best --data COLL --model MODEL --out RUN --minutes 60

    Closed forms, heads, gentle tuning and averages with the untouched weights, on folds of what there is to learn from;
    says when none is better than the untouched tower. `--minutes` is the time that it may take. Expected:
    that of the way which it keeps, of those of `head` and `tune` (results/tuned.md).
    """
    return BestConfig(mirror=True, zooms=ZOOMS, head=HEAD, last=LAST, whole=TUNE)

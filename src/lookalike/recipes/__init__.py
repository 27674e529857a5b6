"""Complete training configs by name. Flags override their leaves for a trial; a run worth a name becomes one."""

from dataclasses import replace

from lookalike.imaging.augment import Color
from lookalike.losses import ArcFace, Projecting
from lookalike.training.config import (
    Augments,
    Chosen,
    FitStage,
    HeadStage,
    Lda,
    NewStage,
    Optimizer,
    Pca,
    Stage,
    TrainConfig,
    TuneStage,
)

ABOUT: dict[str, str] = {
    "pca": "PCA of a frozen tower's features, in closed form",
    "lda": "LDA with shrinkage, in closed form; needs labels",
    "head": "a projection trained gently on a frozen tower's features; the one to begin with",
    "arcface": "the same as the field trains it, for comparison",
    "tune": "a given tower tuned gently, with its projection",
    "tiny": "a small tower from scratch, on images",
}
"""What each is, in one line of help."""

# ArcFace that keeps what the tower knows: a start at PCA in a half whitened metric, which needs no steps and is most of
# the gain, then a small margin, low rates, few epochs. From this start terms of geometry added nothing.
#
# To expect of MobileNetV2's 1280 features, 1,646 images of 177 classes in ten domains: mP@5 on classes never seen .543
# (raw 1280 numbers .555, PCA-64 .515, the start .538), in 20 seconds of one core once features are cached.
HEAD = HeadStage(
    start=Chosen(),
    loss=ArcFace(margin=0.1, scale=16.0),
    projecting=Projecting(dropout=0.1),
    optimizer=Optimizer(learning_rate=1e-4, centers_learning_rate=1e-3),
    epochs=20.0,
)


def _recipe(*stages: Stage, mirror: bool = False) -> TrainConfig:
    return TrainConfig(stages=stages, mirror=mirror)


RECIPES: dict[str, TrainConfig] = {
    # Seconds of work once features are cached, nothing to tune, the bar for all training. `--fit.power -0.25
    # --fit.within 0.5 --mirror` is worth two points of mP@5 (.538 for .515 where `head` has .543), the mirror image for
    # twice the work per image.
    "pca": _recipe(FitStage(Pca(power=0.0))),
    # Better than PCA on domains that it was fitted on, worse on others (.49 for .51 there).
    "lda": _recipe(FitStage(Lda(shrinkage=0.7))),
    "head": _recipe(HEAD, mirror=True),
    # As the field writes it: on few classes it gives away what the tower knew (mP@5 .527).
    "arcface": _recipe(
        HeadStage(
            start=Pca(power=0.0),
            loss=ArcFace(margin=0.3, scale=30.0),
            optimizer=Optimizer(learning_rate=1e-3, centers_learning_rate=1e-3),
            epochs=30.0,
        )
    ),
    "tune": _recipe(
        TuneStage(
            start=HEAD.start,
            loss=ArcFace(margin=0.1, scale=16.0),
            augment=Augments(area=(0.5, 1.0)),
            optimizer=Optimizer(learning_rate=1e-4, centers_learning_rate=1e-3, tower_learning_rate=2e-5),
            batch=48,
            epochs=6.0,
            ema=0.99,
        ),
        mirror=True,
    ),
    # A minute of two cores for a few hundred images; the honest lower end: what images alone teach.
    "tiny": _recipe(
        NewStage(),
        TuneStage(
            augment=Augments(area=(0.4, 1.0), color=Color(0.3, 0.3, 0.3, cast=0.3)),
            loss=ArcFace(margin=0.2, scale=16.0),
            optimizer=Optimizer(
                learning_rate=2e-3, centers_learning_rate=1e-2, tower_learning_rate=2e-3, weight_decay=0.05, warmup=0.1
            ),
            batch=64,
            epochs=120.0,
        ),
    ),
}
RECIPES = {name: replace(config, recipe=name) for name, config in RECIPES.items()}

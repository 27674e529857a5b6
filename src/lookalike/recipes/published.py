"""Recipes of the Google Universal Image Embedding challenge (2022) and after, by name.

Values are those of papers and released code, as far as they were read there; what neither says is ours, and marked.
Scores are the sources' own, mP@5 of the challenge's hidden test unless said otherwise; none was measured here. Hours
and memory are `lookalike plan`'s for 478,185 images of 17,691 classes (what seed's original had) on eight chips of TPU
v5e, as Kaggle lends them, at 40 % of their peak; results/plan.md says what that rests on.
"""

from dataclasses import replace

from lookalike.data.sampling import Mixture
from lookalike.imaging.augment import Color, Erase, Flip
from lookalike.losses import ArcFace, CosFace, Growing, NormFace, Projecting
from lookalike.training.config import Augments, Given, HeadStage, Optimizer, Random, TrainConfig, TuneStage

NOTHING = Augments(area=(1.0, 1.0), flip=Flip(0.0), color=Color(0.0, 0.0, 0.0), erase=Erase(0.0))
FLIPS = replace(NOTHING, area=(0.8, 1.0), flip=Flip(0.5))  # ours, where a recipe only says that it augments
LARGE = TuneStage(dtype="bfloat16")  # float32 masters; the originals computed in float32 or with AMP


def seed() -> TrainConfig:
    """The challenge entry that this project starts from: a head, then all of CLIP ViT-H/14.

    lookalike pull openclip-vit-h-14 --features pooled --out H14 &&
    lookalike train seed --data COLL --model H14 --out RUN

    1,000 + 9,691 + 7,000 = 17,691 classes, at most 50 images each. Linear 1280 -> 64, ArcFace s 30, m .3, batch 200;
    Adam 2e-7 -> 2e-6 -> 2e-7 in straight lines over one pass, 4/10 of it rising, no augmentation. The original took
    the head of another run (ten passes with the tower frozen), ImageNet's statistics and a resize without antialias;
    here they are the model's own.

    On v5e-8: 8 GiB a chip, 0.3 hours, of which 0.2 are the pass over all images. One chip, as Colab lends it, takes
    batches of 50 with `--tune.remat`, and 2.6 hours.

    Expected: .65 (the notebook's, in 80 minutes of a TPU v3-8).
    """
    loss = ArcFace(margin=0.3, scale=30.0)
    first = HeadStage(
        start=Random(),
        loss=loss,
        optimizer=Optimizer(learning_rate=1e-3, centers_learning_rate=1e-3),  # ours: the other run's are not known
        mixture=Mixture(classes="uniform"),
        batch=200,
        epochs=10.0,
    )
    rates = Optimizer(
        learning_rate=2e-6,
        centers_learning_rate=2e-6,
        tower_learning_rate=2e-6,
        schedule="linear",
        warmup=0.4,
        floor=0.1,
    )
    second = replace(
        LARGE,
        loss=loss,
        optimizer=rates,
        mixture=Mixture(classes="uniform"),
        augment=NOTHING,
        batch=200,
        epochs=1.0,
    )
    return TrainConfig(stages=(first, second))


def first_place(cosine: bool = True) -> TrainConfig:
    """The winner as its code is: cosine margins; a head, then towers under a frozen head, larger and larger.

    lookalike pull openclip-vit-h-14 --out H14 &&
    lookalike train first_place --data COLL --model H14 --out RUN

    Dropout .2, linear 1024 -> 64; SGD without momentum, weight decay 1e-4; s 30, m .55 on the mixture, .65 on
    Products-10K, which ends each round: rows of domain `products10k`. 224 px, 280 px, 290 px with patches that overlap
    by 4 px. Head 6 epochs at .02, batch 1024; tower 3 epochs at 2.5e-4, batch 128, on four GPUs there. Epochs of later
    rounds are ours.

    On v5e-8: 2.1 hours, and 1.5 more times the share of `products10k`; 2.1 GiB a chip at 224 px, 4.4 at 290.

    Expected: .728 (Shao and Cui).
    """
    kind = CosFace if cosine else ArcFace
    mixed, products = kind(margin=0.55, scale=30.0), kind(margin=0.65, scale=30.0)
    dropped = Projecting(dropout=0.2)
    rates = Optimizer("sgd", 0.02, 0.02, weight_decay=1e-4, momentum=0.0)
    first = HeadStage(
        start=Random(),
        loss=mixed,
        projecting=dropped,
        optimizer=rates,
        mixture=Mixture(classes="uniform"),
        batch=1024,
        epochs=6.0,
    )
    frozen = replace(rates, learning_rate=0.0, centers_learning_rate=0.0, tower_learning_rate=2.5e-4)
    tower = replace(
        LARGE,
        loss=mixed,
        projecting=dropped,
        optimizer=frozen,
        mixture=Mixture(classes="uniform"),
        augment=FLIPS,
        remat=True,  # for the last rounds
        batch=128,
        epochs=3.0,
    )
    ending = replace(tower, loss=products, only="domain = 'products10k'", epochs=1.0)
    larger = replace(tower, size=280, epochs=1.0)
    overlapping = replace(tower, size=290, stride=10, epochs=1.0)
    return TrainConfig(
        stages=(
            first,
            tower,
            ending,
            larger,
            replace(ending, size=280),
            overlapping,
            replace(ending, size=290, stride=10),
        )
    )


def first_place_paper() -> TrainConfig:
    """The winner as its paper is: ArcFace, all else as first_place.

    lookalike train first_place_paper --data COLL --model H14 --out RUN

    Hours and memory are those of first_place. Expected: .728 (Shao and Cui, who call it so).
    """
    return first_place(cosine=False)


def second_place() -> TrainConfig:
    """The second: everything at once, the tower a thousand times slower, margins that grow.

    lookalike pull openclip-vit-h-14 --features pooled --out H14 &&
    lookalike train second_place --data COLL --model H14 --out RUN

    Dropout .2, linear 1280 -> 64, ArcFace s 30, margin .1 more each epoch up to .8; AdamW 1e-4, tower 1e-7, 10 epochs
    of which one rises, batch 192 on six A40 there, 224 px.

    On v5e-8: 8 GiB a chip, as seed; 2.2 hours.

    Expected: .709 (Huang and Li).
    """
    stage = replace(
        LARGE,
        start=Random(),
        loss=ArcFace(margin=0.3, scale=30.0),
        margin=Growing(),
        projecting=Projecting(dropout=0.2),
        optimizer=Optimizer(
            learning_rate=1e-4, centers_learning_rate=1e-4, tower_learning_rate=1e-7, weight_decay=0.01, warmup=0.1
        ),
        augment=FLIPS,
        batch=192,
        epochs=10.0,
    )
    return TrainConfig(stages=(stage,))


def third_place() -> TrainConfig:
    """The third: twenty dropouts at once; a long head, then one pass of everything.

    lookalike pull openclip-vit-h-14 --features pooled --out H14 &&
    lookalike train third_place --data COLL --model H14 --out RUN

    20 parallel dropouts before one linear layer, averaged; ArcFace, a larger margin in stage two; head 200 of their
    epochs (20 passes), then one pass at a low rate, on Colab's TPU there. Rates are ours.

    On v5e-8: 8 GiB a chip, as seed; 0.3 hours.

    Expected: .692 (Namba and Aoki).
    """
    parallel = Projecting(dropout=0.2, samples=20)
    first = HeadStage(
        start=Random(),
        loss=ArcFace(margin=0.3, scale=30.0),
        projecting=parallel,
        optimizer=Optimizer(learning_rate=1e-3, centers_learning_rate=1e-3),
        batch=200,
        epochs=20.0,
    )
    second = replace(
        LARGE,
        loss=ArcFace(margin=0.5, scale=30.0),
        projecting=parallel,
        optimizer=Optimizer(
            learning_rate=2e-6, centers_learning_rate=2e-6, tower_learning_rate=2e-6, schedule="linear"
        ),
        augment=NOTHING,
        batch=200,
        epochs=1.0,
    )
    return TrainConfig(stages=(first, second))


def fifth_place() -> TrainConfig:
    """The fifth: a frozen tower, batch norm and one linear layer, trained very long with SAM.

    lookalike pull openclip-vit-h-14 --features pooled --out H14 &&
    lookalike train fifth_place --data COLL --model H14 --out RUN

    ArcFace s 30, m .5; SAM over AdamW, weight decay .1, 1e-4 -> 1e-2 in 3 epochs, cosine to 1e-4; batch 256, best at
    650 of 1,000 epochs; crops of .9 and more. Their three numbers of image size are left out.

    On v5e-8: 4 GiB a chip, a third of an hour for features of all images and their copies; then 1.2 million small
    steps, whose time is the host's and is not planned.

    Expected: .688 (Ota, Yokoi and Yamaoka).
    """
    stage = HeadStage(
        start=Random(),
        loss=ArcFace(margin=0.5, scale=30.0),
        projecting=Projecting(batch_norm=True),
        optimizer=Optimizer(
            learning_rate=1e-2, centers_learning_rate=1e-2, weight_decay=0.1, warmup=3 / 650, floor=0.01, sam=0.05
        ),
        augment=replace(NOTHING, area=(0.9, 1.0)),
        copies=4,
        batch=256,
        epochs=650.0,
    )
    return TrainConfig(stages=(stage,))


def unifex() -> TrainConfig:
    """After the challenge: a frozen SigLIP and one linear layer, three centers a class.

    lookalike pull siglip-so400m-14-384 --out SO400M &&
    lookalike train unifex --data COLL --model SO400M --out RUN

    Dropout .2, linear 1152 -> 64, sub-center ArcFace k 3, s 30, m .5; Adam 2e-2 -> 1e-3, weight decay 1e-4, batch 128,
    10 epochs; 34.8 k classes, 328 k images.

    On v5e-8, for so many: 6 minutes for features, then the host's time for 26 thousand small steps.

    Expected: .721 (Florek et al., 2024).
    """
    stage = HeadStage(
        start=Random(),
        loss=ArcFace(margin=0.5, scale=30.0),
        centers=3,
        chunk=1024,
        projecting=Projecting(dropout=0.2),
        optimizer=Optimizer(learning_rate=2e-2, centers_learning_rate=2e-2, weight_decay=1e-4, floor=0.05),
        mixture=Mixture(classes="uniform"),
        batch=128,
        epochs=10.0,
    )
    return TrainConfig(stages=(stage,))


def uned() -> TrainConfig:
    """The universal baseline of UnED: no margin, one domain a batch, each in turn.

    lookalike pull google/vit-base-patch16-224-in21k --out B16 &&
    lookalike train uned --data COLL --model B16 --out RUN

    NormFace s 16; Adam 1e-3, the tower at a hundredth, weight decay 1e-6, batch 128; 2 epochs with the tower frozen, 5
    with it open. One softmax for all domains, where theirs has one each.

    On v5e-8, for UnED's 2.8 M images of 349 k classes: 0.7 hours if the input keeps up. Its memory was not planned.

    Expected: nothing is said here, as the paper's table was not read (Ypsilantis et al., 2023).
    """
    loss, single = NormFace(scale=16.0), Mixture("single", classes="uniform")
    rates = Optimizer(learning_rate=1e-3, centers_learning_rate=1e-3, weight_decay=1e-6)
    first = HeadStage(start=Random(), loss=loss, optimizer=rates, mixture=single, batch=128, epochs=2.0)
    second = TuneStage(
        start=Given(),
        loss=loss,
        optimizer=replace(rates, tower_learning_rate=1e-5),
        mixture=single,
        augment=FLIPS,
        batch=128,
        epochs=5.0,
    )
    return TrainConfig(stages=(first, second))

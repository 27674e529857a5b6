"""Training: the whole story. A run is a function of its config; killed, the same command goes on where it stopped."""

from dataclasses import replace
from typing import Any

import jax
from jax.sharding import Mesh

from lookalike.core.devices import described, start
from lookalike.core.errors import UsageError
from lookalike.core.files import read_card, storage_errors
from lookalike.core.journal import note, said_if_slow
from lookalike.core.mesh import in_turn, is_first, make_mesh
from lookalike.encoders.config import TextSide
from lookalike.encoders.directory import read_config, read_text
from lookalike.encoders.encoder import Encoder
from lookalike.training.checkpoint import clear, hold_to, last_stage, opened_run, save_stage
from lookalike.training.config import FitStage, NewStage, TrainConfig, TuneStage
from lookalike.training.measuring import Evaluate, Measuring, Report
from lookalike.training.rows import Rows, note_smaller, note_without_labels
from lookalike.training.steps import take_steps
from lookalike.training.tasks import (
    Made,
    begun,
    chooses_directions,
    closed_form,
    facts_of,
    make_task,
    rows_of,
    viewing,
)
from lookalike.training.tracking import tracked

_LEFT = "stages", "copies"  # what a finished run no longer needs


def train(
    config: TrainConfig,
    evaluate: Evaluate | None = None,
    *,
    report: Report | None = None,
    mesh: Mesh | None = None,
    rows: Rows | None = None,
) -> Encoder:
    """Train as `config` says; go on from `config.out` if it holds a checkpoint, do nothing if it is finished.

    `evaluate` is asked before training (of the encoder as it was given, and of the first values), every
    `evaluate_every` steps and behind each stage; `report` is told when that was done. Devices are those of `mesh`, by
    default those of all processes; `rows` take the place of those that `config` says. Returns the encoder, which is
    also in `config.out`/model. Of several processes the first measures and writes; all need to see the same collection,
    model and `config.out`.
    """
    start(config.device)
    first = is_first()
    if not first:
        evaluate = report = None
    if config.stop_if_worse and jax.process_count() > 1:
        raise UsageError("`--stop-if-worse` is for runs of one process, and there are several.")
    if config.stop_if_worse and evaluate is None:
        raise UsageError(
            "`--stop-if-worse` needs measurements, and the collection has no rows of split `test`.",
            hint="`lookalike prepare ... --test 0.2` keeps a share of the classes for that",
        )
    with storage_errors(config.out), opened_run(config) as run:
        mesh = mesh or make_mesh(everywhere=True)
        note(described(list(mesh.devices.flat)))
        if (run / "model").exists():
            note(f"Run `{run}` is finished; its encoder is `{run / 'model'}`.")
            clear(run, *_LEFT)  # what it was killed over
            return Encoder.load(run / "model")
        with tracked(config if first else replace(config, track="none"), run) as track:
            measuring = Measuring(run, evaluate, track, report, first)
            encoder = _stages(config, rows or rows_of(config), measuring, mesh)
            if first:
                encoder.save(run / "model", _card(config, measuring), _text(config, encoder))
                clear(run, *_LEFT)
            if report:
                report("")
        note(f"The encoder is `{run / 'model'}`.")
    return encoder


def _stages(config: TrainConfig, rows: Rows, measuring: Measuring, mesh: Mesh) -> Encoder:
    """What the stages make, one after the other, from the first one that is not finished."""
    run = measuring.run
    _note_others(config, rows)
    untouched = begun(config, mesh)
    hold_to(run, facts_of(rows, untouched))
    done, step, made, said = 0, 0, viewing(config, untouched), 0
    if kept := last_stage(run):
        done, step, made = kept[0] + 1, kept[1], Made(*kept[2:])
        made = replace(made, path=made.path and config.model)  # which may have moved
    if done == 0:
        measuring.measure(0, "untouched", untouched.encoder)
    for number in range(done, len(config.stages)):
        stage, name = config.stages[number], config.names[number]
        match stage:
            case NewStage():
                continue
            case FitStage():
                with in_turn(), said_if_slow("fitting the projection"):
                    made = closed_form(config, stage, rows, made)
            case _:
                size = getattr(stage, "size", 0) or made.encoder.config.preprocess.size
                if isinstance(stage, TuneStage) and size > said:
                    note_smaller(rows, said := size)
                with in_turn(), said_if_slow(f"{name}: making the first values"):
                    task = make_task(config, stage, rows, made, untouched, run, mesh)
                made, step = take_steps(config, stage, name, task, measuring, step, mesh)
        last = number == len(config.stages) - 1
        measuring.measure(step, "trained" if last else name, made.encoder)
        if not last and measuring.writes:
            save_stage(run, number, step, made.encoder, made.centers, made.path)
    return made.encoder


def _note_others(config: TrainConfig, rows: Rows) -> None:
    """Say how many images help without their labels, or could; UsageError if no stage chooses directions."""
    chooses = config.model and any(map(chooses_directions, config.stages))
    if config.stages and rows.others:
        if not chooses:
            raise UsageError(
                "`--unlabelled` is for directions of greatest variance, and no stage of the run begins with them.",
                hint="`lookalike train head` and `tune` do, and `pca`",
            )
        count = f"{len(rows.others.ids):,} images of `{config.unlabelled}`"
        note(f"{count} help to choose the directions, without their labels")
    elif chooses:
        note_without_labels(rows)


def _card(config: TrainConfig, measuring: Measuring) -> dict[str, Any]:
    """How the encoder was made, how it and the untouched one do on split "test", and the card of what it began from."""
    before = read_card(config.model) if config.model else None
    card = {"name": measuring.run.name, "recipe": config.recipe, **_learned(config.data), "metrics": measuring.scores()}
    if config.unlabelled:
        card["unlabelled"] = _learned(config.unlabelled)
    if before is not None:
        card |= {n: v for n, v in before.items() if n == "license"} | {"began_from": before}
    return card


def _learned(path: str) -> dict[str, Any]:
    """What a card says of a collection that was learned from."""
    card = read_card(path)
    sources = [source["name"] for source in card.get("sources", ())]
    images = {"rows": card.get("rows", 0), "licences": card.get("licences", {}), "sources": sources}
    return {"data": path, "images": images}


def _text(config: TrainConfig, encoder: Encoder) -> TextSide | None:
    """The text side of what was begun from, if it still belongs to the features that the encoder makes."""
    side = read_text(config.model) if config.model else None
    if side is None:
        return None
    alone = replace(encoder, config=replace(encoder.config, zooms=read_config(config.model).zooms))
    if side.image == alone.features_fingerprint:  # the mean with zooms lies in the same space
        return replace(side, image=encoder.features_fingerprint)
    note(f"The text side of `{config.model}` is left out: its texts don't belong to a tower that was trained further.")
    return None

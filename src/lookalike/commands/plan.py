"""lookalike plan: whether a recipe fits a TPU that is not here, and how long it takes there; or on this machine."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from lookalike.commands.recipe_flags import parsed, recipe_of
from lookalike.core.config import did_you_mean, in_range
from lookalike.core.errors import UsageError
from lookalike.core.files import json_text, kind_of
from lookalike.core.journal import note, table

if TYPE_CHECKING:
    from lookalike.encoders.config import EncoderConfig
    from lookalike.training.config import TrainConfig
    from lookalike.training.plan import Plan, StagePlan

_USAGE = """usage: lookalike plan RECIPE --topology v5e:2x4 [--model MODEL] [--data COLL] [options]

Compile a recipe's steps for a TPU that is not here, or for this machine, and say whether they fit and how long they
take. Options are those of `lookalike train RECIPE`; MODEL may be the short name of a published model, or its
ORG/NAME, of which nothing is downloaded.

{recipes}

`lookalike plan RECIPE --help` lists the recipe's options and what it sets them to."""

_EXAMPLE = "lookalike plan tune --model openclip-vit-h-14 --topology v5e:2x4"


@dataclass(frozen=True)
class Options:
    """What is asked beside the recipe."""

    topology: str = "local"
    """Chips to compile for, KIND:SIDES: v5e:1x1 is Colab's TPU, v5e:2x4 Kaggle's; v6e and v5p (v5p:2x2x1) are known,
    too. local: the devices that JAX finds here."""
    classes: int = 17691
    """Classes to learn from, without `--data`. As many as the data of the 2022 competition's notebooks have."""
    rows: int = 478185
    """Images to learn from, without `--data`."""
    efficiency: float = 0.4
    """Share of the roofline that a step is expected to reach."""
    search: bool = True
    """Look for the largest batch that fits; each try compiles once more."""
    measure: int = 0
    """Take so many steps with random weights and images, and time them; for `--topology local`."""
    memory: float = 0.0
    """GiB of this machine's memory that a compiler may take before it is ended; 0: 60 % of what there is."""
    minutes: float = 60.0
    """Minutes that a compiler may take before it is ended."""
    json: bool = False
    """Write one JSON document instead of tables."""

    def __post_init__(self) -> None:
        from lookalike.training.chips import LOCAL, topology_of

        if self.topology != LOCAL:
            topology_of(self.topology)
        in_range(self, 1.0, float("inf"), "classes", "rows")
        in_range(self, 0.0, float("inf"), "measure", "memory", "minutes")
        if not 0 < self.efficiency <= 1:
            raise UsageError(f"`--efficiency` is {self.efficiency}; expected more than 0, and 1 at most.")
        if self.rows < self.classes:
            raise UsageError(f"`--rows` is {self.rows}; expected at least one for each of {self.classes} classes.")
        if self.measure and self.topology != LOCAL:
            raise UsageError(f"`{self.topology}` is not here to be measured.", hint="`--topology local --measure 5`")


@dataclass(frozen=True)
class Config:
    """The recipe, with its flags applied, and what is asked of it."""

    run: TrainConfig
    """What is planned."""
    options: Options
    """What is asked."""


def configure(argv: list[str]) -> Config:
    """The recipe that `argv` names, with its flags applied, and the options beside; UsageError if one is unknown."""
    from lookalike.recipes import ABOUT, RECIPES

    name = recipe_of(argv, _USAGE, _EXAMPLE, staged=True)
    if not RECIPES[name].stages:  # before its options are looked at, some of which are called as ours are
        raise UsageError(f"`{name}` chooses its stages while it runs, so that there is nothing to plan.", hint=_EXAMPLE)
    run, options = parsed(name, argv[1:], f"lookalike plan {name}", f"Plan {ABOUT[name]}.", Options())
    if "new" not in run.names and not run.model:
        raise UsageError("Missing: `--model`.", hint=_EXAMPLE)
    return Config(run, options)


def main(config: Config) -> None:
    """Compile, and print the plan."""
    from lookalike.training.plan import Question, make_plan

    run, options = config.run, config.options
    encoder = None if "new" in run.names else _encoder(run.model)
    classes, rows, others = _counts(run) if run.data else (options.classes, options.rows, 0)
    question = Question(
        run, encoder, options.topology, classes, rows, options.efficiency, options.search, options.measure, others
    )
    plan = make_plan(question, _memory(options.memory), 60 * options.minutes)
    if options.json:
        print(json_text(plan.as_json()))
        return
    print(_text(plan))
    if not plan.fits:
        note(_WARNING)


_WARNING = """The run does not fit. It takes less memory with a smaller `--batch`, with `--remat` and
`--dtype bfloat16`, with `--trained.blocks N` or `--trained.lora N`, with `--ema 0`, and on more chips."""


def _encoder(model: str) -> EncoderConfig:
    """The config of a model directory; that of a published model, of which what a download would bring is said."""
    from lookalike.encoders.config import EncoderConfig, ProjectionConfig
    from lookalike.encoders.directory import read_config
    from lookalike.imaging.preprocess import Preprocess
    from lookalike.published.presets import ALIASES, PRESETS, preset_of
    from lookalike.towers.ops import parameters

    if kind_of(model) == "encoder":
        return read_config(model)
    published = {preset.repository: name for name, preset in PRESETS.items()}
    found = preset_of(published.get(model, model))
    if found is None:
        names = [*ALIASES, *PRESETS, *published]
        raise UsageError(
            f"`{model}` is no model directory, no short name, and no ORG/NAME of one.{did_you_mean(model, names)}",
            hint="`lookalike pull --all` lists the names",
        )
    name, preset = found
    count, size, width = parameters(preset.tower), preset.size, preset.tower.features
    words = f"{count / 1e6:,.1f} M parameters ({4 * count / 1e9:.2f} GB in float32), {size} px, {width} features"
    note(f"`{name}` is {preset.repository}, {preset.kind}: {words}, licence {preset.license}; nothing is downloaded")
    preprocess = Preprocess(size, "squash", size, "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    return EncoderConfig(preset.tower, preset.pooling, preprocess, ProjectionConfig("identity", width, width))


def _counts(run: TrainConfig) -> tuple[int, int, int]:
    """Classes and rows of the collection that the run learns from, and rows that help without labels."""
    from lookalike.training.tasks import rows_of

    rows = rows_of(run)
    return max(len(rows.classes), 1), len(rows.ids), 0 if rows.others is None else len(rows.others.ids)


def _memory(gib: float) -> int:
    """Bytes that a compiler may take."""
    import os

    return int(gib * 2**30) or int(0.6 * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def _text(plan: Plan) -> str:
    """The plan as a table, one column a program, and what it rests on."""
    names = {field.name: [_told(field.name, stage) for stage in plan.stages] for field in fields(plan.stages[0])}
    heads = ["", *names.pop("name")]
    shown = [[_TITLES[name], *cells] for name, cells in names.items() if any(cell != "-" for cell in cells)]
    each = f"{plan.hbm_bytes / 2**30:.1f} GiB and {plan.flops_per_s / 1e12:,.3g} TFLOP/s each"
    whole = f"about {plan.hours:.2g} hours at {plan.efficiency:.0%} of the roofline, if the input keeps up"
    whole = f"{'It fits' if plan.fits else 'It does not fit'}; {whole}, without measurements of the encoder."
    return "\n\n".join([f"{plan.chips} x {plan.chip}, {each}", table(heads, shown), whole])


_TITLES = {
    "batch": "batch",
    "fits": "fits",
    "bytes_per_chip": "GiB a chip",
    "largest_batch": "largest batch",
    "flops_per_step": "TFLOP a step",
    "bytes_per_step": "GB a step",
    "roofline_s": "roofline, ms",
    "images_per_s": "images/s",
    "steps": "steps",
    "embeds": "images embedded before",
    "hours": "hours",
    "compile_s": "compiled in, s",
    "measured_s": "measured, ms",
}
_SCALES = {
    "bytes_per_chip": 2**-30,
    "flops_per_step": 1e-12,
    "bytes_per_step": 1e-9,
    "roofline_s": 1e3,
    "measured_s": 1e3,
}


def _told(name: str, stage: StagePlan) -> str:
    value = getattr(stage, name)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if name == "bytes_per_chip" and value is None:
        return "more than there are"
    if value is None or isinstance(value, str):
        return value or "-"
    value = value * _SCALES.get(name, 1)
    return f"{value:,}" if isinstance(value, int) else f"{value:,.3g}" if value < 1000 else f"{value:,.0f}"

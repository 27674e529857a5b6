"""How a run's encoders do, and where its numbers go: the journal, a tracker, a report."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from lookalike.core.journal import note, read_metrics, record, rewind, said_if_slow
from lookalike.encoders.encoder import Encoder
from lookalike.training.tracking import Track

Evaluate = Callable[[Encoder], Mapping[str, float]]  # given by the command, as training knows no evaluation
Report = Callable[[str], None]  # told which encoder was just measured; "" when the run ends

_BESIDE = ("step", "encoder", "dimension")  # what a line of a measurement has beside its metrics


@dataclass(frozen=True)
class Measuring:
    """Measures the encoders of `run`, each once, and writes what it finds."""

    run: Path
    evaluate: Evaluate | None
    track: Track
    report: Report | None = None
    writes: bool = True  # False: another process of the run does

    def record(self, step: int, values: Mapping[str, float | int | str]) -> None:
        """Numbers as of `step` of the run."""
        if self.writes:
            record(self.run, step, values)
            self.track(step, values)

    def rewind(self, step: int) -> None:
        """Drop what is known of later steps."""
        if self.writes:
            rewind(self.run, step)

    def measure(self, step: int, which: str, encoder: Encoder) -> None:
        """Score `encoder` as of `step`, unless that was done.

        `which` is "untouched", "start" (of a stage), the name of a stage (on its way, or behind it) or "trained".
        """
        lines = self._lines()
        if self.evaluate is None or (step, which) in lines:
            return
        with said_if_slow(f"measuring the encoder of step {step}, {which}"):
            found = {name: float(value) for name, value in self.evaluate(encoder).items()}
        dimension, words = encoder.config.projection.dimension, ""
        self.record(step, {"encoder": which, "dimension": dimension, **found})
        for name, value in found.items():
            untouched = lines.get((0, "untouched"), {}).get(name)
            words += f"  {name} {value:.4f}" + (f" ({value - untouched:+.4f})" if untouched is not None else "")
        note(f"step {step}, {which} ({dimension} numbers):{words[1:]}")
        if self.report:
            self.report(which)

    def score(self, step: int, which: str) -> tuple[str, float]:
        """Name and value of the first metric of what was measured, which is the one that decides."""
        return next(iter(self._lines()[step, which].items()))

    def best(self, first: int, last: int, name: str) -> int:
        """The step from `first` to `last` at which stage `name` was best, its start included; of two the later."""
        known = [at for at in self._lines() if first <= at[0] <= last and at[1] in ("start", name)]
        return max((self.score(*at)[1], at[0]) for at in known)[1]

    def scores(self) -> dict[str, dict[str, float]]:
        """The metrics of the untouched encoder and of the trained one, as far as they are known."""
        return {which: found for (_, which), found in self._lines().items() if which in ("untouched", "trained")}

    def _lines(self) -> dict[tuple[int, str], dict[str, float]]:
        """Metrics by step and encoder."""
        lines = [line for line in read_metrics(self.run) if "encoder" in line]
        return {(line["step"], line["encoder"]): {n: v for n, v in line.items() if n not in _BESIDE} for line in lines}

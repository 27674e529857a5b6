"""How good an encoder is, measured while it is made, and told as a difference from the untouched one."""

from collections.abc import Callable, Mapping

from lookalike.core.journal import Journal, note, read_metrics
from lookalike.encoders.encoder import Encoder

Evaluate = Callable[[Encoder], Mapping[str, float]]
"""Scores an encoder, by name; given by the command, as training knows no evaluation."""


class Scores:
    """Measures encoders, writes what was found, and says it as a difference from the untouched encoder."""

    def __init__(self, journal: Journal, evaluate: Evaluate | None) -> None:
        self._journal, self._evaluate = journal, evaluate
        lines = [line for line in read_metrics(journal.path.parent) if "encoder" in line]
        self._done = {(line["step"], line["encoder"]) for line in lines}
        self._untouched = next((line for line in lines if line["encoder"] == "untouched"), {})

    def measure(self, step: int, which: str, encoder: Encoder) -> None:
        """Score `encoder` as of `step`, unless that was done; `which` is "untouched", "start" or "trained"."""
        if self._evaluate is None or (step, which) in self._done:
            return
        found = {name: float(value) for name, value in self._evaluate(encoder).items()}
        dimension = encoder.config.projection.dimension
        line: dict[str, float | int | str] = {"encoder": which, "dimension": dimension, **found}
        self._journal.metrics(step, line)
        if which == "untouched":
            self._untouched = found
        words = "  ".join(f"{name} {value:.4f}{self._difference(which, name, value)}" for name, value in found.items())
        note(f"step {step}, {which} ({dimension} numbers): {words}")

    def _difference(self, which: str, name: str, value: float) -> str:
        if which == "untouched" or name not in self._untouched:
            return ""
        return f" ({value - self._untouched[name]:+.4f})"

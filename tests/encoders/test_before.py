"""What the version before the renaming wrote opens as it is: `tests/golden/before` is a run of its own making."""

import json
from pathlib import Path

from lookalike.commands import main
from lookalike.targets.model_card import licences

RUN = Path(__file__).parents[1] / "golden" / "before" / "run"


def test_a_model_keeps_its_fingerprint() -> None:
    from lookalike.encoders.encoder import Encoder

    card = json.loads((RUN / "model" / "card.json").read_text())
    encoder = Encoder.load(RUN / "model")
    assert encoder.fingerprint == card["fingerprint"]
    assert encoder.config.projection.l2_normalize_input


def test_a_model_is_shown(capsys) -> None:
    assert main(["info", str(RUN / "model")]) == 0
    assert "ConvNet" in capsys.readouterr().out


def test_licences_of_its_images_still_count() -> None:
    card = {"data": "coll", "pictures": {"rows": 3, "licences": {"CC-BY-NC-4.0": 3}}}
    assert licences(card) == {"3 images of `coll`": "CC-BY-NC-4.0"}

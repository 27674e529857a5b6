"""The notebooks, top to bottom in one process, on images that lie as on Kaggle; cells that install are left out."""

import ast
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import jax
import numpy as np
import PIL.Image
import pytest

from lookalike.commands import main
from lookalike.encoders.config import EncoderConfig, ProjectionConfig
from lookalike.encoders.encoder import Encoder
from lookalike.imaging.preprocess import Preprocess
from lookalike.towers import ViTConfig

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"


def program(path: Path, *, displayed: bool = False) -> str:
    """The cells as a program: `!command {NAME}` is run by a shell, with the names of the program in it.

    With `displayed` the last expression of a cell is shown as Jupyter does it, as HTML where it can be.
    """
    lines = ["import subprocess"]
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code" and "install" not in cell["metadata"].get("tags", ()):
            assert not cell["outputs"], "notebooks are kept without outputs"
            source = "".join(cell["source"]).splitlines()
            if displayed and isinstance((last := ast.parse("\n".join(_plain(source))).body[-1]), ast.Expr):
                source[last.lineno - 1] = "_ = " + source[last.lineno - 1]
                source.append("print(_._repr_html_() if hasattr(_, '_repr_html_') else repr(_))")
            for line in source:
                shell = f"subprocess.run(f{line[1:]!r}, shell=True, check=True)" if line.startswith("!") else line
                lines.append(shell)
    return "\n".join(lines)


def _plain(lines: list[str]) -> list[str]:
    return ["pass" if line.startswith("!") else line for line in lines]


def drawn(path: Path, thing: int, rng: np.random.Generator) -> None:
    """An image of a thing: its colour, and noise."""
    color = np.random.default_rng(thing).integers(0, 256, 3)
    pixels = np.clip(color + rng.normal(0, 30, (40, 48, 3)), 0, 255).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(pixels).save(path)


def ran(name: str, home: Path, environment: dict[str, str], *, displayed: bool = False) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program(NOTEBOOKS / name, displayed=displayed)],
        cwd=home,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def model(tmp_path) -> Path:
    """A small ViT as others publish it."""
    tower = ViTConfig(size=32, patch=16, width=64, layers=2, heads=2, hidden=96, activation="gelu")
    prepare = Preprocess(32, "crop", 32, "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    config = EncoderConfig(tower, "class", prepare, ProjectionConfig("identity", 64, 64))
    Encoder.init(config, jax.random.key(0)).save(tmp_path / "own")
    assert (
        main(["export", "--model", str(tmp_path / "own"), "--to", "transformers", "--out", str(tmp_path / "published")])
        == 0
    )
    return tmp_path / "published"


def test_from_kaggle_s_data_sets_to_a_submission(tmp_path, model, environment):
    pytest.importorskip("transformers", reason="reference library not installed: transformers")
    rng, inputs = np.random.default_rng(0), tmp_path / "input"
    for thing in range(12):
        for i in range(3):
            drawn(
                inputs / f"imagenet-object-localization-challenge/ILSVRC/Data/CLS-LOC/train/n{thing:08}/n_{i}.JPEG",
                thing,
                rng,
            )
    rows = [(thing, 3 * thing + i) for thing in range(12) for i in range(3)]
    for thing, i in rows:
        drawn(inputs / f"products-10k/train/{i}.jpg", 100 + thing, rng)
    (inputs / "products-10k/train.csv").write_text("name,class,group\n" + "".join(f"{i}.jpg,{t},0\n" for t, i in rows))
    marks = [(thing, f"{thing:x}{i:x}0a{thing:012x}") for thing in range(12) for i in range(3)]
    for thing, name in marks:
        drawn(inputs / f"landmark-recognition-2021/train/{'/'.join(name[:3])}/{name}.jpg", 200 + thing, rng)
    (inputs / "landmark-recognition-2021/train.csv").write_text(
        "id,landmark_id\n" + "".join(f"{name},{50_000 + thing}\n" for thing, name in marks)
    )
    settings = "--head.steps 2 --tune.steps 2 --head.batch 8 --tune.batch 8 --tune.dtype float32"
    said = ran(
        "kaggle_tpu.ipynb",
        tmp_path,
        environment | {"KAGGLE_INPUT": str(inputs), "MODEL": str(model), "SETTINGS": settings, "TEST": "0.3"},
    )
    assert "mean over domains" in said
    assert "largest batch" in said or "fits" in said
    with zipfile.ZipFile(tmp_path / "submission" / "submission.zip") as archive:
        assert archive.namelist() == ["saved_model.pt"]


def test_a_better_encoder_for_photos_on_colab(tmp_path, model, environment):
    rng = np.random.default_rng(0)
    for thing in range(24):
        for i in range(4):
            drawn(tmp_path / f"photos/{('mugs', 'books')[thing % 2]}/thing {thing}/{i}.jpg", thing, rng)
    settings = {"PHOTOS": str(tmp_path / "photos"), "MODEL": str(model), "SETTINGS": "--minutes 0 --dimension 8"}
    settings |= {"RUN": str(tmp_path / "my drive" / "run")}
    said = ran("colab.ipynb", tmp_path, environment | settings)
    assert "mean over domains" in said
    assert (tmp_path / "my drive" / "run" / "model").is_dir()
    assert (tmp_path / "encoder" / "model.onnx").exists()


def test_the_first_hour_shows_what_it_finds(tmp_path, environment):
    said = ran("first_hour.ipynb", tmp_path, environment | {"PRODUCTS": "30", "STEPS": "3"}, displayed=True)
    assert said.count('<img src="data:image/jpeg;base64,') == 15  # five matches of three queries
    assert said.count("mean over domains") == 1
    assert "tower" in said
    assert "minimum_cosine" not in said
    assert (tmp_path / "head-onnx" / "model.onnx").exists()
    assert (NOTEBOOKS / "first_hour.ipynb").stat().st_size < 50_000

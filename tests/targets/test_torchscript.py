"""TorchScript and the competition's submission: traced from transformers, prepared by a program of their own."""

import zipfile
from pathlib import Path

import numpy as np
import pytest

from lookalike.core.errors import EncoderError
from lookalike.imaging.preprocess import Preprocess
from lookalike.targets.parts import Export
from lookalike.targets.writing import write_export
from lookalike.towers import ConvNetConfig, ViTConfig

pytestmark = [
    pytest.mark.reference("torch", "transformers"),
    pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning"),
]
COLORS = ((0.48, 0.45, 0.40), (0.27, 0.26, 0.28))


@pytest.mark.parametrize(
    ("pooling", "preprocess", "options"),
    [
        (
            "class",
            Preprocess(32, "pad", 32, "bicubic", *COLORS, fill=(9, 99, 200), rounding="even"),
            {"mirror": True, "zooms": (0.8, 0.5)},
        ),
        ("class", Preprocess(32, "crop", 24, "lanczos", *COLORS), {"dimension": None}),
        ("class", Preprocess(32, "squash", 36, "nearest", *COLORS), {}),
        ("class", Preprocess(32, "crop", 36, "bicubic", *COLORS, antialias=False), {}),
    ],
)
def test_the_readme_gives_the_encoders_vectors(tmp_path: Path, case, small, pooling, preprocess, options):
    made = case(ViTConfig(**small, activation="gelu"), pooling, preprocess, **options)
    facts = write_export("torchscript", Export(made.config, made.tensors, {}), made.vectors, tmp_path / "out")
    assert facts["minimum_cosine"] > 0.99999


def test_a_convolutional_tower_and_any_batch(tmp_path: Path, mobilenet):
    import torch

    write_export("torchscript", Export(mobilenet.config, mobilenet.tensors, {}), mobilenet.vectors, tmp_path / "out")
    model = torch.jit.load(tmp_path / "out" / "model.pt")
    images = torch.randint(0, 256, (3, 3, 57, 40), dtype=torch.uint8)
    with torch.no_grad():
        whole, alone = model(images).numpy(), [model(image[None])[0].numpy() for image in images]
    np.testing.assert_allclose(whole, alone, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(whole, axis=1), 1, atol=1e-6)


def test_the_submission(tmp_path: Path, clip, by_readme):
    import torch

    out = tmp_path / "out"
    facts = write_export("submission", Export(clip.config, clip.tensors, {}), clip.vectors, out)
    assert facts["minimum_cosine"] > 0.99999
    assert sorted(path.name for path in out.iterdir()) == ["README.md", "card.json", "submission.zip"]
    with zipfile.ZipFile(out / "submission.zip") as archive:
        assert archive.namelist() == ["saved_model.pt"]
        archive.extractall(tmp_path)
    model = torch.jit.load(tmp_path / "saved_model.pt")
    vector = model(torch.zeros(1, 3, 500, 333, dtype=torch.uint8))
    assert (tuple(vector.shape), vector.dtype) == ((1, 64), torch.float32)


def test_what_can_not_be_submitted(tmp_path: Path, case, mobilenet):
    with pytest.raises(EncoderError, match="takes embeddings of 64 numbers, and this encoder gives 16"):
        write_export("submission", Export(mobilenet.config, mobilenet.tensors, {}), mobilenet.vectors, tmp_path / "a")
    net = case(
        ConvNetConfig(widths=(8, 16), depths=(0, 1)),
        "mean",
        Preprocess(32, "squash", 32, "bilinear", *COLORS),
        by_graph=True,
    )
    with pytest.raises(EncoderError, match="transformers has no class for this ConvNet"):
        write_export("torchscript", Export(net.config, net.tensors, {}), net.vectors, tmp_path / "b")
    assert list(tmp_path.iterdir()) == []

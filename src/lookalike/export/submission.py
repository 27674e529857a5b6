"""The submission of the Google Universal Image Embedding competition: a TorchScript model in a zip.

It takes one RGB image of any size, uint8 [1, 3, height, width], and gives float32 [1, 64].
"""

import tempfile
import zipfile
from pathlib import Path

from lookalike.core.errors import EncoderError
from lookalike.export import torchscript
from lookalike.export.parts import Export, Target, Written

DIMENSION = 64
"""Numbers in an embedding, by the rules of the competition."""


def write(export: Export, directory: Path) -> Written:
    """`submission.zip`, with `saved_model.pt` at its top.

    Raises:
        EncoderError: The encoder gives another number of numbers, or transformers has no class for its tower.
    """
    dimension = export.config.projection.dimension
    if dimension != DIMENSION:
        raise EncoderError(
            f"The competition takes embeddings of {DIMENSION} numbers, and this encoder gives {dimension}.",
            hint="`lookalike train pca --data COLL --model MODEL --out RUN` makes one of 64 numbers",
        )
    with tempfile.TemporaryDirectory(dir=directory) as scratch:
        torchscript.save(export, Path(scratch) / "saved_model.pt")
        with zipfile.ZipFile(directory / "submission.zip", "w") as archive:  # stored: weights do not shrink
            archive.write(Path(scratch) / "saved_model.pt", "saved_model.pt")
    reading = "zipfile.ZipFile('submission.zip').open('saved_model.pt')"
    code = "import io\nimport zipfile\n\n" + torchscript.CODE.format(file=f"io.BytesIO({reading}.read())")
    keeps = "`submission.zip` takes uint8 `[1, 3, height, width]`, RGB, of any size, and gives float32 `[1, 64]`."
    return Written(code, keeps)


TARGET = Target(write, "pytorch", needs=torchscript.TARGET.needs, reads=torchscript.TARGET.reads)

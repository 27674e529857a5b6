"""TorchScript: one file for PyTorch, with preprocessing, tower and projection inside; see `torch_program`.

The submission of the Google Universal Image Embedding competition is such a file in a zip.
"""

import tempfile
import zipfile
from pathlib import Path

from lookalike.targets.lines import graph_lines
from lookalike.targets.parts import Export, Target, Written, refused


def write(export: Export, directory: Path) -> Written:
    """`model.pt`."""
    from lookalike.targets.torch_program import save

    save(export, directory / "model.pt")
    keeps = (
        "Input: uint8 `[batch, 3, height, width]`, RGB, of any height and width. Output: float32 "
        f"`[batch, {export.config.projection.dimension}]` of unit length. Everything is inside."
    )
    return Written(_lines("import torch", "'model.pt'"), keeps)


def write_submission(export: Export, directory: Path) -> Written:
    """`submission.zip`, with `saved_model.pt` at its top."""
    if (dimension := export.config.projection.dimension) != 64:
        raise refused(
            f"The competition takes embeddings of 64 numbers, and this encoder gives {dimension}.",
            "`lookalike train pca --data COLL --model MODEL --out RUN` makes one of 64 numbers",
        )
    with tempfile.TemporaryDirectory(dir=directory) as scratch:
        write(export, Path(scratch))
        with zipfile.ZipFile(directory / "submission.zip", "w") as archive:  # stored: weights do not shrink
            archive.write(Path(scratch) / "model.pt", "saved_model.pt")
    file = "io.BytesIO(zipfile.ZipFile('submission.zip').read('saved_model.pt'))"
    keeps = "`submission.zip` takes uint8 `[1, 3, height, width]`, RGB, of any size, and gives float32 `[1, 64]`."
    return Written(_lines("import io\nimport torch\nimport zipfile", file), keeps)


def _lines(imports: str, file: str) -> str:
    load = f"model = torch.jit.load({file})\n\n@torch.no_grad()"
    return graph_lines(imports, load, "model(torch.tensor(prepared(path)).permute(2, 0, 1)[None])[0].numpy()")


TARGET = Target(write, "pytorch", needs=("torch", "transformers"), reads=("torch",))
SUBMISSION = Target(write_submission, "pytorch", needs=("torch", "transformers"), reads=("torch",))

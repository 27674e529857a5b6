"""The Python lines that a README shows and the check runs: they open images, and define `embed(path)`."""

from lookalike.encoders.config import EncoderConfig
from lookalike.imaging.preprocess import Preprocess

OPENED = """def opened(path):  # upright, on white, in 8 bits
    image = ImageOps.exif_transpose(Image.open(path))
    if image.mode.startswith('I'):  # 16 bits
        image = image.convert('I').point(lambda value: value / 257 + 0.5).convert('L')
    image = image.convert('RGBA')
    return Image.alpha_composite(Image.new('RGBA', image.size, 'white'), image).convert('RGB')
"""
"""They open an image file as `lookalike.imaging.decode.decode` does, but for color profiles."""


def preparation(preprocess: Preprocess | None) -> str:
    """Lines that make `prepared(path)` -> uint8 [S S 3] of an image file; without `preprocess` [H W 3], all of it."""
    if preprocess is None:
        return f"{OPENED}\ndef prepared(path):\n    return np.asarray(opened(path))\n"
    if not preprocess.antialias:  # Pillow always does
        return (
            f"from lookalike.imaging.preprocess import Preprocess\n\n{OPENED}\n"
            f"def prepared(path):\n    return {preprocess}(np.asarray(opened(path)))\n"
        )
    size, side = preprocess.size, preprocess.resize
    sides = {
        "squash": f"({side}, {side})",
        "crop": f"[{side} * length // min(image.size) for length in image.size]",
        "pad": f"[max(1, round(length / (max(image.size) / {side}))) for length in image.size]",
    }
    start = "spare // 2" if preprocess.rounding == "floor" else "round(spare / 2)"
    if preprocess.mode != "crop" or preprocess.rounding == "even":
        start += " if spare > 0 else -(-spare // 2)"
    fill = preprocess.fill if preprocess.mode == "pad" else (0, 0, 0)
    return (
        f"{OPENED}\ndef prepared(path):\n    image = opened(path)\n    size = {sides[preprocess.mode]}\n"
        f"    image = image.resize(size, Image.Resampling.{preprocess.interpolation.upper()})\n"
        f"    left, top = ({start} for spare in (length - {size} for length in image.size))\n"
        f"    square = Image.new('RGB', ({size}, {size}), {fill})\n"
        "    square.paste(image, (-left, -top))\n    return np.asarray(square)\n"
    )


def graph_lines(imports: str, load: str, run: str, preprocess: Preprocess | None = None) -> str:
    """The lines that `load` a graph and `run` it on `prepared(path)`: all of an image, or what `preprocess` makes."""
    return (
        f"import numpy as np\n{imports}\nfrom PIL import Image, ImageOps\n\n{preparation(preprocess)}\n{load}\n"
        f"def embed(path):\n    return {run}\n"
    )


def tower_lines(config: EncoderConfig, library: str, load: str, pixels: str, run: str, projection: str | None) -> str:
    """The lines of a tower in torch, by the `library` that loads it.

    `load` makes `model`, and what `pixels` needs: the library's own transform of `opened(path)`, [1 3 S S] ("": ours).
    `run` gives the features, as "model({}).pooler_output"; `projection` is its file, if it is not in the model.
    """
    mean, std = config.preprocess.mean, config.preprocess.std
    lines = [] if pixels else ["import numpy as np"]
    lines += [f"import {library}", "import torch", "from PIL import Image, ImageOps"]
    lines += ["from safetensors.torch import load_file"] if projection else []
    lines += ["", OPENED if pixels else preparation(config.preprocess), load]
    lines += [f"projection = load_file('{projection}')"] if projection else []
    lines += ["", "@torch.no_grad()", "def embed(path):"]
    if not pixels:
        lines.append(f"    pixels = (prepared(path) / 255 - np.array({list(mean)})) / np.array({list(std)})")
        pixels = "torch.tensor(pixels, dtype=torch.float32).permute(2, 0, 1)[None]"
    lines += [f"    pixels = {pixels}"]
    if config.mirror or config.zooms:
        lines.append("    views = [pixels]")
        for share in config.zooms:
            part = max(1, round(config.preprocess.size * share))
            start = (config.preprocess.size - part) // 2
            cut = f"pixels[..., {start}:{start + part}, {start}:{start + part}]"
            lines.append(
                f"    views.append(torch.nn.functional.interpolate({cut}, {config.preprocess.size}, mode='bilinear'))"
            )
        lines += ["    views += [view.flip(-1) for view in views]"] if config.mirror else []
        lines.append(f"    features = sum({run.format('view')} for view in views) / len(views)")
    else:
        lines.append(f"    features = {run.format('pixels')}")
    return "\n".join(lines) + "\n" + embedding_lines(config, projection)


def views(config: EncoderConfig) -> str:
    """What else of an image an encoder looks at, behind a comma: "" or ", the mean with ..."."""
    parts = ["with the mirror image"] if config.mirror else []
    parts += [f"with the enlarged center ({', '.join(f'{share:g}' for share in config.zooms)} of the side)"] * bool(
        config.zooms
    )
    return f", the mean {' and '.join(parts)}" if parts else ""


def embedding_lines(config: EncoderConfig, projection: str | None) -> str:
    """The last lines of a function: the vector of `features`, by `projection` if that is not in the model."""
    lines = []
    if projection and config.projection.l2_normalize_input:
        lines.append("    features = torch.nn.functional.normalize(features)")
    if projection:
        lines.append("    features = features @ projection['weight'] + projection['bias']")
    return "\n".join([*lines, "    return torch.nn.functional.normalize(features)[0].numpy()\n"])

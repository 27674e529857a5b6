"""A hostile world for every test, and the same one in every shell.

Nothing of the shell reaches a test but what `KEPT` names: no variable of the Hub, of JAX or of a locale, and no home.
Warnings are errors (pyproject.toml), sockets are blocked, eight virtual CPU devices must be there, dtypes are
never promoted silently, ranks never at all, and every annotation of the package is checked as it is called.
"""

import importlib.util
import json
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

KEPT = {"PATH", "PYTHONPATH", "TMPDIR", "LD_LIBRARY_PATH", "LOOKALIKE_DATA", "UPDATE_GOLDEN"}
for name in set(os.environ) - KEPT:
    if not name.startswith("PYTEST_"):
        del os.environ[name]

_home = tempfile.TemporaryDirectory(prefix="lookalike-home-")  # gone when the process ends
# JAX reads its variables once, when its CPU backend starts.
os.environ |= {
    "HOME": _home.name,
    "LANG": "C.UTF-8",
    "TZ": "UTC",
    "JAX_PLATFORMS": "cpu",
    # Most programs run once, and what a compiler does to make them quick takes longer than they do without. The
    # demonstration and the benchmarks have a user's settings.
    "XLA_FLAGS": "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
    " --xla_llvm_disable_expensive_passes=true --xla_cpu_use_fusion_emitters=false --xla_cpu_use_xnnpack=false"
    " --xla_cpu_parallel_codegen_split_count=1",
    "JAX_NUMPY_DTYPE_PROMOTION": "strict",
    "JAX_NUMPY_RANK_PROMOTION": "raise",
    "ORT_DISABLE_TELEMETRY": "1",  # tests import ONNX Runtime themselves, and its sockets are not Python's
}
time.tzset()

import pytest  # noqa: E402  behind the environment

# A shell that starts a job in the background has it ignore Ctrl-C, and children inherit that; the tests send it.
signal.signal(signal.SIGINT, signal.default_int_handler)

REFERENCE = {"torch", "transformers", "faiss", "sklearn"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip, with a reason that the summary counts, what needs libraries or images that are not here."""
    for item in items:
        marker = item.get_closest_marker("reference")
        if marker:
            missing = [name for name in (marker.args or ("torch",)) if importlib.util.find_spec(name) is None]
            if missing:
                item.add_marker(pytest.mark.skip(reason=f"reference library not installed: {', '.join(missing)}"))
        if item.get_closest_marker("data") and not os.environ.get("LOOKALIKE_DATA"):
            item.add_marker(pytest.mark.skip(reason="LOOKALIKE_DATA is not set: no real images"))


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Graphs of models go to a cache of the test run, not to the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def devices() -> list[object]:
    """The eight virtual devices; a failure, not a skip, if they are not there."""
    import jax

    found = jax.devices()
    assert len(found) == 8, f"expected 8 virtual CPU devices, found {len(found)}"
    return list(found)


@pytest.fixture(scope="session")
def data_path() -> Path:
    """Where the real images lie; for tests marked `data`."""
    return Path(os.environ["LOOKALIKE_DATA"])


LINES = [
    "a photo of a red kettle",
    "the quick brown fox's tail",
    "42 blue labels, don't boil",
    "ein schöner Kessel",
    "薬缶",
]


@pytest.fixture(scope="session")
def clip_pieces() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary and merges of a small tokenizer of CLIP's kind, whose end has the highest id."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.Lowercase()
    words = pre_tokenizers.Split(Regex(r"'s|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"), "removed", invert=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([words, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    bytes_ = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=600, initial_alphabet=bytes_, end_of_word_suffix="</w>", show_progress=False
    )
    tokenizer.train_from_iterator(LINES * 3, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    vocabulary: dict[str, int] = model["vocab"]
    for piece in [*(f"{byte}</w>" for byte in bytes_), "<|startoftext|>", "<|endoftext|>"]:
        vocabulary.setdefault(piece, len(vocabulary))
    return vocabulary, [tuple(merge) for merge in model["merges"]]


@pytest.fixture(scope="session")
def clip_files(clip_pieces: tuple[dict[str, int], list[tuple[str, str]]]) -> Callable[[Path], int]:
    """Writes that tokenizer as `vocab.json` and `merges.txt` into a directory; returns how many tokens it has."""

    def write(path: Path) -> int:
        vocabulary, merges = clip_pieces
        path.mkdir(parents=True, exist_ok=True)
        (path / "vocab.json").write_text(json.dumps(vocabulary))
        (path / "merges.txt").write_text("#version: 0.2\n" + "\n".join(map(" ".join, merges)) + "\n")
        return len(vocabulary)

    return write


@pytest.fixture(scope="session")
def write_text_model(
    clip_files: Callable[[Path], int], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Path]:
    """Writes a small ViT with a head and random weights, and its text side: `write_text_model(path, seed=0, dim=None)`.

    `dim` numbers of a random projection, `mirror` as the config has it, `text` False: without the text side; `context`
    tokens, `causal` or not.
    """
    import numpy as np

    from lookalike.encoders.config import EncoderConfig, ProjectionConfig, TextSide, tensor_shapes
    from lookalike.encoders.directory import features_fingerprint_of, write_model
    from lookalike.imaging.preprocess import Preprocess
    from lookalike.published.tokenizers import read_tokenizer
    from lookalike.towers import ViTConfig
    from lookalike.towers.ops import shapes_of
    from lookalike.towers.text import TextConfig

    files = tmp_path_factory.mktemp("tokenizer")
    vocabulary = clip_files(files)
    (files / "tokenizer_config.json").write_text('{"pad_token": "<|endoftext|>"}')

    def drawn(shapes: dict[str, tuple[int, ...]], seed: int) -> dict[str, Any]:
        rng, tensors = np.random.default_rng(seed), {}
        for name, shape in shapes.items():
            scale = 1.2 * shape[-2] ** -0.5 if len(shape) > 1 and "norm" not in name else 0.2
            centre = 1.0 if "norm" in name and name.endswith("weight") else 0.0
            tensors[name] = (centre + scale * rng.standard_normal(shape)).astype(np.float32)
        return tensors

    def write(
        path: Path,
        seed: int = 0,
        dim: int | None = None,
        mirror: bool = False,
        text: bool = True,
        context: int = 16,
        causal: bool = True,
    ) -> Path:
        tower = ViTConfig(size=32, patch=16, width=24, layers=2, heads=2, hidden=32, activation="gelu", head=12)
        projection = ProjectionConfig("linear" if dim else "identity", 12, dim or 12)
        prepare = Preprocess(32, "squash", 32, "bilinear", (0.5,) * 3, (0.25,) * 3)
        config = EncoderConfig(tower, "class", prepare, projection, mirror)
        tensors = drawn(tensor_shapes(config), seed)
        side = None
        if text:
            options = {"width": 24, "layers": 2, "heads": 2, "hidden": 32, "activation": "gelu", "head": 12}
            read = "highest" if causal else "last"
            words = TextConfig(vocabulary=vocabulary, context=context, causal=causal, read=read, **options)
            tokenizer = read_tokenizer(files, words, "none")
            side = TextSide(
                words, drawn(shapes_of(words), seed + 1), tokenizer, features_fingerprint_of(config, tensors)
            )
        write_model(path, config, tensors, {"name": "words", "license": "Apache-2.0"}, side)
        return path

    return write

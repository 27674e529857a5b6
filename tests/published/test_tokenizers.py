"""Token ids equal to those of transformers, from every published form of a tokenizer."""

import json
import string
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lookalike.core.errors import EncoderError, UsageError
from lookalike.encoders.tokenizer import Tokenizer
from lookalike.published.tokenizers import NoTextError, read_tokenizer, tokenizer_class
from lookalike.towers.text import TextConfig

CONTEXT = 16
TEXTS = [
    "a red kettle",
    "A RED  Kettle!!",
    "",
    "   ",
    "don't, it's",
    "🫖 🤷🏽‍♀️",
    "Ⅷ ½ ①",
    "naïve Café",
    "cafe\u0301",
    "ΟΔΟΣ",
]
TEXTS += [
    "日本語 薬缶",
    "x" * 100,
    "word " * 40,
    "a\tb\nc\u00a0d",
    "x <|endoftext|> y",
    "&amp; _snake_case_",
    "\u200b",
    "İstanbul",
]


def config(vocabulary: int, whole: bool = False) -> TextConfig:
    sizes = {"context": CONTEXT, "width": 8, "layers": 1, "heads": 1, "hidden": 8, "activation": "gelu"}
    return TextConfig(vocabulary=vocabulary, causal=not whole, read="last" if whole else "highest", **sizes)


def ours(path: Path, tower: TextConfig, clean: Any = "none", side: str | None = None) -> Tokenizer:
    return Tokenizer(read_tokenizer(path, tower, clean, side), tower, "here")


def gemma(path: Path, **options: Any) -> Any:
    """A small tokenizer of SigLIP 2's kind, saved by transformers."""
    from tokenizers import Tokenizer as Pieces
    from tokenizers import models, normalizers, pre_tokenizers, trainers
    from transformers.models.siglip2.tokenization_siglip2 import Siglip2Tokenizer

    pieces = Pieces(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    pieces.normalizer = normalizers.Replace(" ", "▁")
    pieces.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    special = ["<pad>", "<eos>", "<bos>", "<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=special, show_progress=False)
    pieces.train_from_iterator(["a photo of a red kettle", "the quick brown fox", "薬缶"] * 3, trainer)
    model = json.loads(pieces.to_str())["model"]
    merges = [tuple(merge) for merge in model["merges"]]
    saved = Siglip2Tokenizer(vocab=model["vocab"], merges=merges, **options)
    saved.save_pretrained(path)
    return Siglip2Tokenizer.from_pretrained(path)


@pytest.mark.reference("transformers")
@pytest.mark.parametrize("form", ["tokenizer.json", "vocab.json"])
def test_clip(tmp_path, clip_pieces, clip_files, form):
    from transformers import CLIPTokenizer

    vocabulary, merges = clip_pieces
    CLIPTokenizer(vocab=vocabulary, merges=merges).save_pretrained(tmp_path / "theirs")
    theirs = CLIPTokenizer.from_pretrained(tmp_path / "theirs")
    if form == "vocab.json":
        clip_files(tmp_path / "theirs")
        (tmp_path / "theirs" / "tokenizer.json").unlink()
    tokens = ours(tmp_path / "theirs", config(len(vocabulary)))

    @given(st.text(max_size=40))
    @settings(max_examples=100, deadline=None, database=None)
    def any_text(text: str) -> None:
        assert tokens(text).tolist() == theirs(text, truncation=True, max_length=CONTEXT).input_ids

    any_text()
    for text in TEXTS:
        found = tokens(text)
        assert found.dtype == np.int64
        assert found.tolist() == theirs(text, truncation=True, max_length=CONTEXT).input_ids, text
        assert found[0] == vocabulary["<|startoftext|>"]
        assert found[-1] == vocabulary["<|endoftext|>"]
        assert len(found) <= CONTEXT


@pytest.mark.reference("transformers")
@pytest.mark.parametrize("side", ["left", "right", None])
def test_siglip_2(tmp_path, side):
    sides = {} if side is None else {"padding_side": side}
    theirs = gemma(tmp_path, add_bos_token=False, add_eos_token=True, **sides)
    assert tokenizer_class(tmp_path) == "Siglip2Tokenizer"
    tokens = ours(tmp_path, config(2000, whole=True), "lower")
    for text in TEXTS:
        expected = theirs(text, truncation=True, max_length=CONTEXT, padding="max_length").input_ids
        assert tokens(text).tolist() == expected, text


@pytest.mark.reference("transformers")
def test_marks_that_only_the_config_asks_for(tmp_path):
    """As GemmaTokenizer's files have it: flags in `tokenizer_config.json`, whatever `tokenizer.json` says."""
    gemma(tmp_path, add_bos_token=True, add_eos_token=False)
    bos, eos = 2, 1
    assert ours(tmp_path, config(2000, whole=True), side="right")("a").tolist()[0] == bos
    described = json.loads((tmp_path / "tokenizer_config.json").read_text())
    flags = {"add_bos_token": False, "add_eos_token": True, "pad_token": {"content": "<pad>"}, "padding_side": "right"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(described | flags))
    found = ours(tmp_path, config(2000, whole=True), "lower")("A red kettle").tolist()
    assert bos not in found
    assert found[found.index(eos) :] == [eos, *[0] * (CONTEXT - 1 - found.index(eos))]


def canonical(text: str) -> str:
    """Lower case without punctuation, as the authors of SigLIP give it."""
    return " ".join(text.lower().translate(str.maketrans("", "", string.punctuation)).split())


@pytest.mark.parametrize("clean", ["canonical", "words"])
def test_siglip_cleans_first(tmp_path, clip_files, clean):
    """The same ids as those of the text that was cleaned by hand."""
    tower = config(clip_files(tmp_path))
    plain, tokens = ours(tmp_path, tower), ours(tmp_path, tower, clean)
    for text in [*TEXTS, string.punctuation, "a-b_c [d] \\ ^e"]:
        if "Σ" in text or "<|" in text:  # one word's last sigma; special tokens are never cleaned
            continue
        by_hand = canonical(text.replace("_", " ") if clean == "words" else text)
        assert tokens(text).tolist() == plain(by_hand).tolist(), text


def test_what_is_no_text_does_no_harm(tmp_path, clip_files):
    tokens = ours(tmp_path, config(clip_files(tmp_path)))
    assert tokens("a\ud800b").tolist() == tokens("a?b").tolist()


def test_what_can_not_be_read_is_a_sentence(tmp_path, clip_files, monkeypatch):
    tower = config(2000)
    tmp_path.joinpath("empty").mkdir()
    with pytest.raises(NoTextError, match=r"no `tokenizer\.json`\."):
        read_tokenizer(tmp_path / "empty", tower, "none")
    (tmp_path / "empty" / "spiece.model").touch()
    with pytest.raises(NoTextError, match=r"only `spiece\.model`"):
        read_tokenizer(tmp_path / "empty", tower, "none")
    (tmp_path / "empty" / "tokenizer.json").write_text("{}")
    with pytest.raises(EncoderError, match="no tokenizer that the `tokenizers` library reads"):
        read_tokenizer(tmp_path / "empty", tower, "none")
    clip_files(tmp_path)
    with pytest.raises(NoTextError, match="does not say what short texts are filled up with"):
        read_tokenizer(tmp_path, config(2000, whole=True), "none")
    (tmp_path / "merges.txt").write_text("one")
    with pytest.raises(EncoderError, match="can't be read"):
        read_tokenizer(tmp_path, tower, "none")
    (tmp_path / "vocab.json").write_text('{"a": 0}')
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    with pytest.raises(NoTextError, match="not CLIP's"):
        read_tokenizer(tmp_path, tower, "none")
    monkeypatch.setitem(__import__("sys").modules, "tokenizers", None)
    with pytest.raises(UsageError, match="not installed"):
        read_tokenizer(tmp_path, tower, "none")


def test_a_tokenizer_of_another_tower_is_refused(tmp_path):
    """Too many tokens, or texts without the mark that the tower reads."""
    from tokenizers import Tokenizer as Pieces
    from tokenizers import models, pre_tokenizers

    pieces = Pieces(models.WordLevel({"<unk>": 0, "a": 1, "b": 2}, unk_token="<unk>"))
    pieces.pre_tokenizer = pre_tokenizers.Whitespace()
    pieces.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(NoTextError, match=r"is not that of its text tower, which has 2 tokens: it has 3 tokens"):
        ours(tmp_path, config(2, whole=True))
    with pytest.raises(NoTextError, match="its texts have no mark of the end"):
        ours(tmp_path, config(9))

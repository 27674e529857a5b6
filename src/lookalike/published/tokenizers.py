"""The tokenizer beside published weights, completed by all that stands elsewhere, as one `tokenizer.json`.

What a text goes through is spread over files and code: `tokenizer.json` holds the pieces, `tokenizer_config.json` the
marks and the side that is filled up, and lower-casing is sometimes in neither. All of it goes into the one file.
"""

import string
from pathlib import Path
from typing import Any, Literal

from lookalike.core.errors import EncoderError
from lookalike.core.files import read_json
from lookalike.encoders.tokenizer import library, parsed
from lookalike.towers.text import TextConfig

Clean = Literal["none", "lower", "canonical", "words"]
"""What is done to a text before the pieces are looked for. none: nothing but what `tokenizer.json` says. lower: lower
case. canonical: lower case, no ASCII punctuation, single spaces (SigLIP). words: the same, but `_` becomes a space
(OpenCLIP's SigLIP)."""

BEGIN, END = "<|startoftext|>", "<|endoftext|>"
"""CLIP's marks."""

GEMMA = ("GemmaTokenizer", "Siglip2Tokenizer")
"""Classes of transformers that fill up at the left unless told otherwise, as SigLIP 2's published files do."""

# How CLIP cuts a text into words (Radford et al., 2021): English endings, letters, single digits, the rest.
_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"


class NoTextError(EncoderError):
    """Weights of a text tower that can't be taken along, for a reason other than damage."""


def read_tokenizer(path: Path, config: TextConfig, clean: Clean, side: str | None = None) -> str:
    """The content of our `tokenizer.json` for the published directory `path`; NoTextError if there is none to be read.

    Short texts are filled up at `side`, right or left; None: as `tokenizer_config.json` says, or its class does it.
    """
    described, tokenizer = _described(path), _pieces(path)
    asked = {f"{name}_token": described.get(f"add_{name}_token") for name in ("bos", "eos")}
    if any(ask is not None for ask in asked.values()):  # these overrule the marks of the file
        _surround(tokenizer, *(_text(described, name) if ask else None for name, ask in asked.items()))
    _refuse_foreign(tokenizer, config, path)
    _clean(tokenizer, clean)
    tokenizer.enable_truncation(config.context)
    tokenizer.no_padding()
    if config.whole:
        direction = side or described.get("padding_side", "left" if tokenizer_class(path) in GEMMA else "right")
        token = _text(described, "pad_token")
        if token is None or tokenizer.token_to_id(token) is None:
            raise NoTextError(
                f"`{path}` does not say what short texts are filled up with: there is no `pad_token` in "
                "`tokenizer_config.json`, or it is no token.",
                hint="copy `tokenizer_config.json` from where the model comes from, and pull again",
            )
        filler = {"pad_id": tokenizer.token_to_id(token), "pad_token": token}
        tokenizer.enable_padding(direction=direction, length=config.context, **filler)
    return str(tokenizer.to_str())


def _described(path: Path) -> dict[str, Any]:
    """`tokenizer_config.json`, and what older writers put into `special_tokens_map.json`."""
    data: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        if (path / name).exists():
            data |= {key: value for key, value in dict(read_json(path / name)).items() if value is not None}
    return data


def tokenizer_class(path: Path) -> str:
    """The class that `tokenizer_config.json` names, "Fast" left out; "" if it names none."""
    return str(_described(path).get("tokenizer_class") or "").removesuffix("Fast")


def _pieces(path: Path) -> Any:
    """The tokenizer that the files hold, from whichever form is there."""
    if (path / "tokenizer.json").exists():
        where = path / "tokenizer.json"
        tokenizer = parsed(where.read_text(encoding="utf-8"), str(where))
        if (tokenizer.truncation or {}).get("direction", "right") != "right":
            raise NoTextError(f"`{where}` cuts texts at their beginning, which is not supported.")
        return tokenizer
    if (path / "vocab.json").exists() and (path / "merges.txt").exists():
        return _clip(path)
    found = [name for name in ("spiece.model", "tokenizer.model", "sentencepiece.bpe.model") if (path / name).exists()]
    raise NoTextError(
        f"`{path}` has a text tower and no `tokenizer.json`" + (f" (only `{found[0]}`)." if found else "."),
        hint="copy that file from where the model comes from (`hf download ORG/NAME tokenizer.json --local-dir DIR`), "
        "and pull again",
    )


def _clip(path: Path) -> Any:
    """CLIP's tokenizer from `vocab.json` and `merges.txt`: byte pairs, whose last piece of a word ends in `</w>`."""
    with library(f"`{path / 'vocab.json'}` or `merges.txt` can't be read") as names:
        vocabulary, merges = names.models.BPE.read_file(str(path / "vocab.json"), str(path / "merges.txt"))
    if BEGIN not in vocabulary or END not in vocabulary:
        raise NoTextError(f"`{path / 'vocab.json'}` is not CLIP's: it has no `{BEGIN}` and `{END}`.")
    model = names.models.BPE(vocab=vocabulary, merges=merges, unk_token=END, end_of_word_suffix="</w>")
    tokenizer, normal, before = names.Tokenizer(model), names.normalizers, names.pre_tokenizers
    tokenizer.normalizer = normal.Sequence([normal.NFC(), normal.Replace(names.Regex(r"\s+"), " "), normal.Lowercase()])
    words = before.Split(names.Regex(_WORDS), behavior="removed", invert=True)
    tokenizer.pre_tokenizer = before.Sequence([words, before.ByteLevel(add_prefix_space=False)])
    tokenizer.add_special_tokens([BEGIN, END])
    _surround(tokenizer, BEGIN, END)
    return tokenizer


def _surround(tokenizer: Any, begin: str | None, end: str | None) -> None:
    from tokenizers.processors import TemplateProcessing

    template = [part for part in (begin, "$A", end) if part]
    marks = [(mark, tokenizer.token_to_id(mark)) for mark in template if mark != "$A"]
    tokenizer.post_processor = TemplateProcessing(single=" ".join(template), special_tokens=marks)


def _refuse_foreign(tokenizer: Any, config: TextConfig, path: Path) -> None:
    """NoTextError if the tokens can't be those that the tower has learned."""
    count = tokenizer.get_vocab_size()
    tried = [tokenizer.encode(text).ids for text in ("a photo of a red kettle", "b", "7 zoos")]
    if config.read == "end":  # no text has what is no token: then the tower reads the first
        ends = all(config.end in ids for ids in tried) or int(config.end or 0) >= config.vocabulary
    else:
        last = {ids[-1] if ids and ids[-1] == max(ids) else None for ids in tried}
        ends = config.read == "last" or (len(last) == 1 and None not in last)
    if count > config.vocabulary or not ends:
        what = f"it has {count:,} tokens" if count > config.vocabulary else "its texts have no mark of the end"
        raise NoTextError(
            f"The tokenizer of `{path}` is not that of its text tower, which has {config.vocabulary:,} tokens: {what}.",
            hint="copy `tokenizer.json` from where the model comes from, and pull again",
        )


def _clean(tokenizer: Any, clean: Clean) -> None:
    """Put the steps of `clean` before those of the file."""
    from tokenizers import Regex, normalizers

    steps: list[Any] = [] if clean == "none" else [normalizers.Lowercase()]
    if clean in ("canonical", "words"):
        punctuation = "".join(f"\\{character}" for character in string.punctuation)
        steps += [normalizers.Replace(Regex(f"[{punctuation}]"), ""), normalizers.Replace(Regex(r"\s+"), " ")]
        steps.append(normalizers.Strip())
    if clean == "words":
        steps.insert(0, normalizers.Replace("_", " "))
    if steps:
        tokenizer.normalizer = normalizers.Sequence([*steps, *filter(None, [tokenizer.normalizer])])


def _text(described: dict[str, Any], name: str) -> str | None:
    """A token from either of its published forms: a text, or an object with its `content`."""
    value = described.get(name)
    return value.get("content") if isinstance(value, dict) else value

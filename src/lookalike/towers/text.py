"""A text tower. How a text becomes tokens is the business of its `tokenizer.json`."""

from dataclasses import dataclass
from typing import Literal

from lookalike.towers.ops import Attention, Ops, Pooling, Value, Where, demand
from lookalike.towers.plans import AnySize


@dataclass(frozen=True)
class TextConfig(AnySize):
    """Transformer over tokens, as CLIP (Radford et al., 2021) and SigLIP (Zhai et al., 2023) have it."""

    poolings = ("class",)

    vocabulary: int
    context: int
    """Tokens that a text may have, marks of beginning and end included; what is longer is cut."""
    width: int
    layers: int
    heads: int
    hidden: int
    activation: Literal["gelu", "gelu_tanh", "quick_gelu"]
    causal: bool
    """Whether a token looks only at itself and those before it."""
    read: Where
    """Which token the text is read from. highest: that with the highest id, the first of several (CLIP, whose mark of
    the end is its last token). end: the first with the id `end`; the first of all where there is none. last: the last
    of the context, padding or not (SigLIP)."""
    end: int | None = None
    """Id of the mark of the end; for `read` = end."""
    eps: float = 1e-5
    head: int | None = None
    """Size of the projection into the space of the image features; None leaves it out."""
    head_bias: bool = False

    def __post_init__(self) -> None:
        fits = self.width % self.heads == 0
        demand(fits, f"A text tower of width {self.width} can't be split among {self.heads} heads.")
        whole = (self.read == "end") == (self.end is not None)
        demand(whole, f"A text tower that reads from {self.read!r} has `end` = {self.end}.")

    @property
    def features(self) -> int:
        """Numbers in the features of a text (F)."""
        return self.head or self.width

    @property
    def whole(self) -> bool:
        """Whether a text must be filled up to the whole context; else what follows its end changes nothing."""
        return not self.causal or self.read == "last"

    def forward(self, ops: Ops, ids: Value, _pooling: Pooling = "class") -> Value:
        """The features of one text, not of unit length; its tokens are filled up where `whole` says so."""
        x = ops.see(ops.embed(ids, self.vocabulary, self.context, self.width))
        x = ops.repeat("blocks", self.layers, [self._block], x)
        x = ops.norm("norm_post", ops.read(x, ids, self.read, self.end), self.eps)
        return ops.linear("head", x, self.head, self.head_bias) if self.head else x

    def _block(self, ops: Ops, x: Value) -> Value:
        y = ops.attend("attention", ops.norm("norm1", x, self.eps), Attention(self.heads, causal=self.causal))
        x = ops.apply("add", x, ops.linear("attention.out", y, self.width))
        y = ops.apply(self.activation, ops.linear("mlp.up", ops.norm("norm2", x, self.eps), self.hidden))
        return ops.see(ops.apply("add", x, ops.linear("mlp.down", y, self.width)))

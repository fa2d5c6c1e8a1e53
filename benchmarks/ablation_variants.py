"""The variants that ablations.py trains: what each changes in our model, its recipe or
its batches.
"""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from lightlm.data.loader import Batch
from lightlm.model import transformer
from lightlm.model.attention import KVCache, rotate
from lightlm.model.config import ModelConfig
from lightlm.training import device
from lightlm.training.optimizer import Optimizer


class ReluSquared(nn.Module):
    """relu(x W)^2 projected down, with as many parameters as the gated feed-forward that it stands
    for.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        hidden = 3 * config.ffn_dim // 2
        # the name: a matrix of one slice for Muon
        self.output = nn.Parameter(torch.empty(hidden, config.model_dim))
        self.down = nn.Parameter(torch.empty(config.model_dim, hidden))

    def forward(self, x: Tensor) -> Tensor:
        """Return the feed-forward of each position, (B, T, model_dim)."""
        hidden = functional.relu(functional.linear(x, self.output.to(x.dtype))).square()
        return functional.linear(hidden, self.down.to(x.dtype))


class ExtendedLayer(transformer.Layer):
    """A layer with two more inputs: the embeddings, for residual scalars, and its own value
    embeddings.
    """

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, x: Tensor, cosine: Tensor, sine: Tensor, cache: KVCache | None = None,
        kept: Tensor | None = None,
        first: Tensor | None = None, extra_value: Tensor | None = None, scalars: Tensor | None = None,
    ) -> tuple[Tensor, None]:  # fmt: skip
        """Return (B, T, model_dim) after the layer."""
        if scalars is not None and first is not None:
            x = scalars[0] * x + 0.1 * scalars[1] * first
        normed = functional.rms_norm(x, x.shape[-1:], self.attention_norm.to(x.dtype), self.epsilon)
        of_attention, of_feedforward = (None, None) if kept is None else kept
        x = self._add(x, attend(self.attention, normed, cosine, sine, extra_value), of_attention)
        normed = functional.rms_norm(
            x, x.shape[-1:], self.feedforward_norm.to(x.dtype), self.epsilon
        )
        return self._add(x, self.feedforward(normed), of_feedforward), None


def attend(
    attention: Any, x: Tensor, cosine: Tensor, sine: Tensor, extra_value: Tensor | None
) -> Tensor:
    """Return the attention of a layer, `extra_value` (B, T, kv heads x head_dim) added to its
    values.
    """
    config = attention.config
    batch, length, _ = x.shape
    groups = (config.num_heads, config.num_kv_heads, config.num_kv_heads)
    stacked = functional.linear(x, attention.query_key_value.to(x.dtype)).view(
        batch, length, sum(groups), -1
    )

    query, key, value = stacked.split(groups, dim=2)
    if extra_value is not None:
        value = value + extra_value.view_as(value)

    query = functional.rms_norm(
        query, (config.head_dim,), attention.query_norm.to(x.dtype), config.norm_epsilon
    )
    key = functional.rms_norm(
        key, (config.head_dim,), attention.key_norm.to(x.dtype), config.norm_epsilon
    )

    query = rotate(query.transpose(1, 2), cosine, sine)
    key = rotate(key.transpose(1, 2), cosine, sine)
    gathered = (
        attention.attend(query, key, value.transpose(1, 2))
        .transpose(1, 2)
        .reshape(batch, length, -1)
    )

    return functional.linear(gathered, attention.output.to(x.dtype))


class ExtendedTransformer(transformer.Transformer):
    """Our model with additions that its export has no place for; `additions` says which."""

    additions: frozenset[str] = frozenset()
    num_bigrams = 16384

    def __init__(self, config: ModelConfig, *, kernel: str = "sdpa", dropout: float = 0.0) -> None:
        super().__init__(config, kernel=kernel, dropout=dropout)
        dim = config.model_dim
        self.layers = nn.ModuleList(
            ExtendedLayer(config, i, kernel, dropout) for i in range(config.num_layers)
        )

        if "value-embeddings" in self.additions:
            width = config.num_kv_heads * config.head_dim
            self.value_embeddings = nn.Parameter(
                torch.empty(config.num_layers, config.vocab_size, width)
            )

        if "residual-scalars" in self.additions:
            self.scalars = nn.ParameterList(torch.ones(2) for _ in range(config.num_layers))
        if "bigrams" in self.additions:
            self.bigram_embeddings = nn.Parameter(torch.empty(self.num_bigrams, dim))
        if "smear" in self.additions:
            self.smear = nn.Parameter(torch.ones(dim))

    def hidden_states(
        self, tokens: Tensor, cache: KVCache | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Return the last layer's (B, T, model_dim)."""
        cosine, sine = self._positions(tokens, cache)
        x = functional.embedding(tokens, self.embedding).to(self.compute_dtype)
        if "bigrams" in self.additions:
            before = functional.pad(tokens[:, :-1], (1, 0))
            pairs = (before * 36313 ^ tokens * 27191) % self.num_bigrams
            x = x + functional.embedding(pairs, self.bigram_embeddings).to(x.dtype)

        if "smear" in self.additions:
            x = x + 0.1 * self.smear.to(x.dtype) * functional.pad(x[:, :-1], (0, 0, 1, 0))
        if "embedding-norm" in self.additions:
            x = functional.rms_norm(x, x.shape[-1:])

        first = x
        for i, layer in enumerate(self.layers):
            extra = scalars = None
            if "value-embeddings" in self.additions:
                extra = functional.embedding(tokens, self.value_embeddings[i]).to(x.dtype)
            if "residual-scalars" in self.additions:
                scalars = self.scalars[i].to(x.dtype)
            is_dropping = self.training and self.dropout > 0
            kept = (
                transformer.sample_dropout_mask((2, *x.shape), self.dropout, x.device)
                if is_dropping
                else None
            )
            call = layer if torch.is_grad_enabled() else layer.forward
            x, _ = call(x, cosine, sine, None, kept, first, extra, scalars)

        return x, None


@dataclass(frozen=True)
class Variant:
    """What differs from our model; `is_exportable`: whether a standard Hugging Face layout has a
    place for it.
    """

    is_exportable: bool = True
    model: dict[str, Any] = field(default_factory=dict)
    trainer: dict[str, Any] = field(default_factory=dict)
    additions: frozenset[str] = frozenset()
    feedforward: type[nn.Module] | None = None
    ramp: str = ""
    is_averaged: bool = False


VARIANTS = {
    "ours": Variant(),
    "ours, another seed": Variant(trainer={"seed": 1}),
    "tied head": Variant(model={"tie_embeddings": True}),
    "relu-squared": Variant(is_exportable=False, feedforward=ReluSquared),
    "value embeddings": Variant(is_exportable=False, additions=frozenset({"value-embeddings"})),
    "residual scalars": Variant(is_exportable=False, additions=frozenset({"residual-scalars"})),
    "bigram embeddings": Variant(is_exportable=False, additions=frozenset({"bigrams"})),
    "smear": Variant(is_exportable=False, additions=frozenset({"smear"})),
    "embedding norm": Variant(is_exportable=False, additions=frozenset({"embedding-norm"})),
    "weight averaging": Variant(is_averaged=True),
    "context ramp": Variant(ramp="context"),
    "batch ramp": Variant(ramp="batch"),
    "no dropout": Variant(trainer={"dropout": 0.0, "weight_decay": 0.0}),
    "dropout 0.1, decay 0.3": Variant(trainer={"dropout": 0.1, "weight_decay": 0.3}),
    "dropout 0.2, decay 1.0": Variant(trainer={"dropout": 0.2, "weight_decay": 1.0}),
}


def install(variant: Variant) -> None:
    """Put the variant's parts where the model and the optimizer are built from."""
    if variant.feedforward is not None:
        transformer.FeedForward = variant.feedforward  # pyright: ignore[reportAttributeAccessIssue]
    if not variant.additions:
        return

    ExtendedTransformer.additions = variant.additions
    device.Transformer = ExtendedTransformer  # pyright: ignore[reportPrivateImportUsage]
    usual = Optimizer._adamw_rate

    def choose(self: Optimizer, name: str, is_matrix: bool) -> tuple[float, float]:
        is_table = name in ("value_embeddings", "bigram_embeddings")
        return usual(self, "embedding" if is_table else name, is_matrix)

    Optimizer._adamw_rate = choose


RAMP_SHARE = 0.4
"""Of the steps, that have the smaller batches or the shorter sequences."""


def ramp_context(loader: Iterator[Batch], progress: Callable[[], float]) -> Iterator[Batch]:
    """Yield batches as half as long and twice as many sequences for RAMP_SHARE of the budget."""
    for batch in loader:
        if progress() < RAMP_SHARE:
            yield batch.halve_context()
        else:
            yield batch


def ramp_batch(loader: Iterator[Batch], progress: Callable[[], float]) -> Iterator[Batch]:
    """Yield half batches for RAMP_SHARE of the budget."""
    for batch in loader:
        half = len(batch.inputs) // 2
        if progress() < RAMP_SHARE:
            yield Batch(batch.inputs[:half], batch.targets[:half])
            yield Batch(batch.inputs[half:], batch.targets[half:])
        else:
            yield batch


RAMPS = {"context": ramp_context, "batch": ramp_batch}

"""The decoder-only transformer: embeddings, layers, head, and the nats of each target token.

Weights stay fp32, but for frozen ones (adapters.py); the layers compute in `compute_dtype`.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from lightlm.model.attention import Attention, KVCache, rotary_table
from lightlm.model.config import ModelConfig
from lightlm.model.cross_entropy import each_nats, mean_nats
from lightlm.model.feedforward import FeedForward
from lightlm.model.moe import MixtureOfExperts
from lightlm.model.tensors import BT, BTM, TD, Scalar


class Layer(nn.Module):
    """Pre-norm attention and feed-forward with residuals; also the layer's balance loss."""

    def __init__(self, config: ModelConfig, layer: int, kernel: str, dropout: float) -> None:
        super().__init__()
        self.epsilon = config.norm_epsilon
        self.dropout = dropout
        self.attention_norm = nn.Parameter(torch.ones(config.model_dim))
        self.attention = Attention(config, layer, kernel)
        self.feedforward_norm = nn.Parameter(torch.ones(config.model_dim))
        self.feedforward: nn.Module = (
            MixtureOfExperts(config) if config.is_mixture_of_experts else FeedForward(config)
        )

    def forward(
        self,
        x: BTM,
        cosine: TD,
        sine: TD,
        cache: KVCache | None = None,
        dropout_mask: Tensor | None = None,
    ) -> tuple[BTM, Scalar | None]:
        """Return the states after the layer, and the balance loss of its experts.

        `dropout_mask` (2, B, T, M), int8 of 0 and 1, masks what attention and feed-forward add.
        """
        of_attention, of_feedforward = (None, None) if dropout_mask is None else dropout_mask
        normed = functional.rms_norm(x, x.shape[-1:], self.attention_norm.to(x.dtype), self.epsilon)
        x = self._add(x, self.attention(normed, cosine, sine, cache), of_attention)
        normed = functional.rms_norm(
            x, x.shape[-1:], self.feedforward_norm.to(x.dtype), self.epsilon
        )
        if isinstance(self.feedforward, MixtureOfExperts):
            mixed, balance_loss = self.feedforward(normed)
            return self._add(x, mixed, of_feedforward), balance_loss
        return self._add(x, self.feedforward(normed), of_feedforward), None

    def _add(self, x: BTM, change: BTM, mask: BTM | None) -> BTM:
        if mask is None:
            return x + change
        return torch.add(x, change * mask.to(change.dtype), alpha=1 / (1 - self.dropout))


def sample_dropout_mask(shape: tuple[int, ...], rate: float, device: torch.device) -> Tensor:
    """Return a mask of int8: 1 with probability 1 - `rate` (to 1.5e-5), else 0, by the device's
    generator.

    One random number of 64 bits gives four of 16, in a quarter of `bernoulli_`'s time on a CPU. It
    is sampled outside of the layer: inside a compiled one, a CPU samples one by one, and what is
    fused with it is not vectorized.
    """
    count = math.prod(shape)
    numbers = torch.empty(-(-count // 4), dtype=torch.int64, device=device).random_(-(2**63), None)
    threshold = round(rate * 2**16) - 2**15
    return (numbers.view(torch.int16)[:count].view(shape) >= threshold).view(torch.int8)


class Transformer(nn.Module):
    """A language model of one of the families. `kernel`: sdpa, flash or matmul (attention.py)."""

    def __init__(self, config: ModelConfig, *, kernel: str = "sdpa", dropout: float = 0.0) -> None:
        super().__init__()
        self.config = config
        self.compute_dtype = torch.float32
        self.dropout = dropout
        self.recomputes_layers = False
        """Whether training computes a layer's activations again in the backward pass."""

        self.embedding = nn.Parameter(torch.empty(config.vocab_size, config.model_dim))
        self.layers = nn.ModuleList(
            Layer(config, layer, kernel, dropout) for layer in range(config.num_layers)
        )
        self.norm = nn.Parameter(torch.ones(config.model_dim))
        self.head = (
            None
            if config.tie_embeddings
            else nn.Parameter(torch.empty(config.vocab_size, config.model_dim))
        )

    def initialize(self, seed: int) -> None:
        """Give all weights their first values, on whatever device they are."""
        with torch.no_grad():
            for weight, first in self.init_weights(seed):
                weight.copy_(first)

    def init_weights(self, seed: int) -> Iterator[tuple[nn.Parameter, Tensor]]:
        """Yield every weight with its first value, in the host's memory: a pure function of
        (config, seed).

        Output projections start at zero, so that each layer starts as the identity.
        """
        generator = torch.Generator().manual_seed(seed)
        for name, weight in self.named_parameters():
            if name.endswith("input_bias"):
                yield weight, torch.zeros(weight.shape)
            elif weight.dim() == 1:
                yield weight, torch.ones(weight.shape)
            elif name.endswith(("attention.output", ".down")):
                yield weight, torch.zeros(weight.shape)
            else:
                yield (
                    weight,
                    torch.randn(weight.shape, generator=generator).mul_(
                        self._initial_scale(name, weight)
                    ),
                )

    def _initial_scale(self, name: str, weight: Tensor) -> float:
        if name == "embedding" and not self.config.tie_embeddings:
            return 1.0
        if name in ("embedding", "head"):
            return 0.02 if self.config.tie_embeddings else 0.001
        return weight.shape[-1] ** -0.5

    def forward(
        self, tokens: BT, targets: BT | None = None, cache: KVCache | None = None
    ) -> Tensor:
        """Return logits BTV in fp32, or with targets the nats of each, BT in fp32.

        `tokens` are int64 ids. With a cache, they follow its filled positions, which grow by T.
        """
        hidden, _ = self.hidden_states(tokens, cache)
        if targets is None:
            return self.logits(hidden).float()
        return self.score(hidden, targets)

    def hidden_states(self, tokens: BT, cache: KVCache | None = None) -> tuple[BTM, Scalar | None]:
        """Return the last layer's states, and the mean balance loss of the experts."""
        cosine, sine = self._positions(tokens, cache)
        x = functional.embedding(tokens, self.embedding).to(self.compute_dtype)
        losses = []
        for layer in self.layers:
            x, balance_loss = self._call_layer(layer, x, cosine, sine, cache)
            if balance_loss is not None:
                losses.append(balance_loss)
        if cache is not None:
            cache.length += tokens.shape[1]
        return x, torch.stack(losses).mean() if losses else None

    def _call_layer(
        self, layer: nn.Module, x: BTM, cosine: TD, sine: TD, cache: KVCache | None
    ) -> tuple[BTM, Scalar | None]:
        mask = (
            sample_dropout_mask((2, *x.shape), self.dropout, x.device)
            if self.training and self.dropout
            else None
        )

        if not torch.is_grad_enabled():
            # Compiled layers serve training only: scoring and generation would compile them anew.
            # Hooks run in both.
            return layer._call_impl(x, cosine, sine, cache, mask)  # pyright: ignore[reportCallIssue]

        if not self.recomputes_layers:
            return layer(x, cosine, sine, cache, mask)

        return checkpoint(
            layer, x, cosine, sine, None, mask, use_reentrant=False, preserve_rng_state=False
        )  # pyright: ignore[reportReturnType]

    def logits(self, hidden: Tensor) -> Tensor:
        """Return the logits (..., V) of hidden states (..., M)."""
        return functional.linear(self.normalize(hidden), self.unembedding.to(hidden.dtype))

    def score(self, hidden: BTM, targets: BT) -> BT:
        """Return the nats that each target costs, in fp32."""
        rows = self.normalize(hidden).flatten(0, 1)
        return each_nats(rows, self.unembedding, targets.flatten()).view_as(targets)

    def compute_loss(self, tokens: BT, targets: BT) -> tuple[Scalar, Scalar | None]:
        """Return the mean nats per target and the mean balance loss of the experts, to train."""
        hidden, balance_loss = self.hidden_states(tokens)
        rows = self.normalize(hidden).flatten(0, 1)
        return mean_nats(rows, self.unembedding, targets.flatten()), balance_loss

    def compile_layers(self) -> None:
        """Compile one layer for all: they share code, so the cost is that of one."""
        torch._dynamo.config.recompile_limit = 64
        # Each layer is a graph of its own: nothing to cut where gradients travel in buckets.
        torch._dynamo.config.optimize_ddp = False
        for layer in self.layers:
            if isinstance(layer.feedforward, MixtureOfExperts):
                layer.feedforward.keep_from_compiler()
            layer.compile(dynamic=False)

    @property
    def unembedding(self) -> nn.Parameter:
        """The matrix VM that gives the logits; the embedding itself when tied."""
        return self.embedding if self.head is None else self.head

    def normalize(self, hidden: Tensor) -> Tensor:
        """Return hidden states (..., M) as the head takes them."""
        gain = self.norm.to(hidden.dtype)
        return functional.rms_norm(hidden, hidden.shape[-1:], gain, self.config.norm_epsilon)

    def _positions(self, tokens: BT, cache: KVCache | None) -> tuple[TD, TD]:
        start = cache.length if cache is not None else 0
        positions = torch.arange(start, start + tokens.shape[1], device=tokens.device)
        if cache is not None and cache.padding is not None:
            positions = (positions - cache.padding[:, None]).clamp(min=0)  # (B, T)
            cosine, sine = rotary_table(self.config, positions[:, None])  # (B, 1, T, D)
        else:
            cosine, sine = rotary_table(self.config, positions)  # (T, D)
        return cosine.to(self.compute_dtype), sine.to(self.compute_dtype)

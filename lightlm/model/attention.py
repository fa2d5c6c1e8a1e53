"""Causal grouped-query attention with rotary positions, as Qwen3, Llama and Qwen2 have it.

Also the key/value cache. Source: transformers, models/qwen3/modeling_qwen3.py (rotate-half rotary
positions, after RMSNorm of each head's query and key), models/llama and models/qwen2.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from lightlm.model.config import ModelConfig
from lightlm.model.low_rank import project
from lightlm.model.tensors import BHTD, BKSD, BKTD, BTM, TD


@dataclass
class KVCache:
    """Preallocated keys and values of every layer; `length` positions are filled.

    `keys` and `values`: one (B, num_kv_heads, capacity, head_dim) tensor a layer. `padding` (B,):
    how many leading positions of each sequence are padding, which no query attends to; None where
    there is none.
    """

    keys: list[Tensor]
    values: list[Tensor]
    length: int = 0
    padding: Tensor | None = None

    @classmethod
    def allocate(
        cls,
        config: ModelConfig,
        batch_size: int,
        capacity: int,
        *,
        dtype: torch.dtype,
        device: torch.device | str = "cpu",
        padding: Tensor | None = None,
    ) -> "KVCache":
        """Return an empty cache for `capacity` positions of `batch_size` sequences."""
        shape = (batch_size, config.num_kv_heads, capacity, config.head_dim)
        blank = [
            torch.zeros(shape, dtype=dtype, device=device) for _ in range(2 * config.num_layers)
        ]
        return cls(blank[: config.num_layers], blank[config.num_layers :], 0, padding)

    def extend(self, layer: int, keys: BKTD, values: BKTD) -> tuple[BKSD, BKSD]:
        """Write keys and values after the filled positions; return all filled ones."""
        end = self.length + keys.shape[2]
        self.keys[layer][:, :, self.length : end] = keys
        self.values[layer][:, :, self.length : end] = values
        return self.keys[layer][:, :, :end], self.values[layer][:, :, :end]

    def attend(self, query: BHTD, keys: BKSD, values: BKSD) -> BHTD:
        """Return attention of new positions over all filled ones."""
        return attend_cached(query, keys, values, self)


def rotary_frequencies(config: ModelConfig, device: torch.device | str = "cpu") -> Tensor:
    """Return the angle per position of each pair of dimensions, (head_dim / 2,) in fp32."""
    exponents = torch.arange(0, config.head_dim, 2, device=device).float()
    frequencies = config.rope_theta ** (-exponents / config.head_dim)
    scaling = config.rope_scaling
    if scaling is None:
        return frequencies
    if scaling.kind == "linear":
        return frequencies / scaling.factor

    # Waves shorter than the original context stay, those longer than it are stretched; between the
    # two bounds it is a mixture.
    turns = scaling.original_context_length * frequencies / (2 * math.pi)
    low = scaling.low_frequency_factor
    share = ((turns - low) / (scaling.high_frequency_factor - low)).clamp(0, 1)
    return share * frequencies + (1 - share) * frequencies / scaling.factor


def rotary_table(config: ModelConfig, positions: Tensor) -> tuple[TD, TD]:
    """Return cosine and sine, each (..., T, head_dim) in fp32, of positions (..., T)."""
    frequencies = rotary_frequencies(config, positions.device)
    angles = positions.float().unsqueeze(-1) * frequencies  # (..., T, D / 2)
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos(), angles.sin()


def rotate(heads: BHTD, cosine: TD, sine: TD) -> BHTD:
    """Return heads turned by their positions; the tables broadcast over heads."""
    first, second = heads.chunk(2, dim=-1)
    return heads * cosine + torch.cat((-second, first), dim=-1) * sine


class Attention(nn.Module):
    """Causal self-attention."""

    def __init__(self, config: ModelConfig, layer: int, kernel: str) -> None:
        super().__init__()
        self.config = config
        self.layer = layer
        self.kernel = kernel
        rows = (config.num_heads + 2 * config.num_kv_heads) * config.head_dim
        self.query_key_value = nn.Parameter(torch.empty(rows, config.model_dim))
        self.output = nn.Parameter(
            torch.empty(config.model_dim, config.num_heads * config.head_dim)
        )
        self.adapters: nn.ModuleDict | None = None
        self.query_norm = self.key_norm = self.input_bias = None
        if config.has_head_norms:
            self.query_norm = nn.Parameter(torch.ones(config.head_dim))
            self.key_norm = nn.Parameter(torch.ones(config.head_dim))
        if config.has_bias:
            self.input_bias = nn.Parameter(torch.zeros(rows))

    def forward(self, x: BTM, cosine: TD, sine: TD, cache: KVCache | None = None) -> BTM:
        """Return what each position gathers from itself and earlier ones."""
        config = self.config
        batch, length, _ = x.shape
        groups = (config.num_heads, config.num_kv_heads, config.num_kv_heads)
        bias = None if self.input_bias is None else self.input_bias.to(x.dtype)
        stacked = project(self, "query_key_value", x, bias)
        stacked = stacked.view(batch, length, sum(groups), config.head_dim)
        query, key, value = stacked.split(groups, dim=2)  # (B, T, H, D) each
        query = self._normalize(query, self.query_norm)
        key = self._normalize(key, self.key_norm)
        query = rotate(query.transpose(1, 2), cosine, sine)  # (B, H, T, D)
        key = rotate(key.transpose(1, 2), cosine, sine)
        value = value.transpose(1, 2)

        if cache is None:
            gathered = self.attend(query, key, value)
        else:
            gathered = cache.attend(query, *cache.extend(self.layer, key, value))

        gathered = gathered.transpose(1, 2).reshape(batch, length, -1)
        return project(self, "output", gathered)

    def _normalize(self, heads: Tensor, gain: Tensor | None) -> Tensor:
        if gain is None:
            return heads
        size = (self.config.head_dim,)
        return functional.rms_norm(heads, size, gain.to(heads.dtype), self.config.norm_epsilon)

    def attend(self, query: BHTD, key: BKTD, value: BKTD) -> BHTD:
        """Return softmax(QK^T / sqrt(D)) V under the causal mask, by the kernel chosen."""
        grouped = self.config.num_heads != self.config.num_kv_heads
        if self.kernel == "matmul":
            return attend_by_matmul(query, key, value)
        if self.kernel == "flash":
            with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
                return functional.scaled_dot_product_attention(
                    query, key, value, is_causal=True, enable_gqa=grouped
                )
        return functional.scaled_dot_product_attention(
            query, key, value, is_causal=True, enable_gqa=grouped
        )


def attend_by_matmul(query: BHTD, key: BKTD, value: BKTD) -> BHTD:
    """Return causal attention by two matrix products; faster than flash on CPUs at short T."""
    length = query.shape[2]
    if query.shape[1] != key.shape[1]:
        repeats = query.shape[1] // key.shape[1]
        key = key.repeat_interleave(repeats, 1)
        value = value.repeat_interleave(repeats, 1)
    scores = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5  # (B, H, T, T)
    future = torch.ones(length, length, dtype=torch.bool, device=query.device).triu(1)
    weights = scores.masked_fill(future, float("-inf")).float().softmax(-1).to(value.dtype)
    return weights @ value


def attend_cached(query: BHTD, keys: BKSD, values: BKSD, cache: KVCache) -> BHTD:
    """Return attention of new positions over all filled ones, padding left out."""
    if query.dtype != keys.dtype:  # a cache in fp32, see PackedStepper
        return attend_cached(query.to(keys.dtype), keys, values, cache).to(query.dtype)

    new = query.shape[2]
    filled = keys.shape[2]
    grouped = query.shape[1] != keys.shape[1]
    if new == 1 and cache.padding is None:
        return functional.scaled_dot_product_attention(query, keys, values, enable_gqa=grouped)

    # a first reading: the kernel's own causal mask, none in memory
    if new == filled and cache.padding is None:
        return functional.scaled_dot_product_attention(
            query, keys, values, is_causal=True, enable_gqa=grouped
        )

    positions = torch.arange(filled, device=query.device)
    visible = positions <= positions[filled - new :].unsqueeze(-1)  # (T, S)
    if cache.padding is not None:
        real = positions >= cache.padding.unsqueeze(-1)  # (B, S)
        visible = (visible & real[:, None, :])[:, None]
        # A padding position sees itself, so that no row of the softmax is empty.
        own = positions == positions[filled - new :].unsqueeze(-1)
        visible = visible | own

    return functional.scaled_dot_product_attention(
        query, keys, values, attn_mask=visible, enable_gqa=grouped
    )

"""One-token steps of a dense model on a CPU: weights packed for it once, buffers kept, as few calls as there can be.

Owns speed alone: the arithmetic is that of transformer.py, in the model's compute dtype, and the cache is the same.
Batch 1 reads every weight once a token, so memory bandwidth is the limit; F.linear reached 15 GB/s of 35 GB/s that a
copy moves (bf16 and fp32, one thread of an EPYC, November 2026), oneDNN's packed layout 24 to 29 GB/s.
"""

import functools

import torch
from torch import Tensor
from torch.nn import functional

from lightlm.model.attention import Attention, KVCache, rotary_table
from lightlm.model.feedforward import FeedForward
from lightlm.model.transformer import Layer, Transformer

CACHE_DTYPE = torch.float32
"""Of keys and values, whatever the weights are: attention of one query took 9 us in fp32 and 51 us in bf16 over 100
positions of 6 heads, 30 us and 257 us over 500 (torch 2.13, one thread of an EPYC)."""

PACKED_DTYPES = (torch.float32, torch.bfloat16)


class PackedLinear:
    """x (B, in) to (B, out) by a weight (out, in), packed by oneDNN where this build of torch has it."""

    def __init__(self, weight: Tensor, batch_size: int) -> None:
        self.weight = weight
        self.packed = pack(weight, batch_size)

    def __call__(self, x: Tensor) -> Tensor:
        """Return the product."""
        if self.packed is None:
            return functional.linear(x, self.weight)
        return torch.ops.mkldnn._linear_pointwise(x, self.packed, None, "none", [], "")


def pack(weight: Tensor, batch_size: int) -> Tensor | None:
    """Return the weight in oneDNN's layout for `batch_size` rows; None where it has none for it."""
    if not is_packing_available(weight.dtype):
        return None
    return torch.ops.mkldnn._reorder_linear_weight(weight.detach(), batch_size)


@functools.cache
def is_packing_available(dtype: torch.dtype) -> bool:
    """Return whether products of this dtype can be packed on this machine: tried, and compared to the plain one."""
    if dtype not in PACKED_DTYPES or not torch.backends.mkldnn.is_available():
        return False
    weight = torch.arange(-32, 32, dtype=dtype).view(4, 16) / 16
    x = torch.ones(1, 16, dtype=dtype)
    try:
        packed = torch.ops.mkldnn._reorder_linear_weight(weight, 1)
        found = torch.ops.mkldnn._linear_pointwise(x, packed, None, "none", [], "")
    except (RuntimeError, AttributeError, NotImplementedError):
        return False
    return torch.allclose(found.float(), functional.linear(x, weight).float(), atol=0.05)


def can_step(model: Transformer) -> bool:
    """Return whether PackedStepper serves this model: dense, on the CPU, weights in its compute dtype."""
    return (
        model.embedding.device.type == "cpu"
        and not model.config.is_mixture_of_experts
        and model.embedding.dtype == model.compute_dtype
    )


class PackedLayer:
    """A layer's weights, packed, and its gains in the compute dtype."""

    def __init__(self, layer: Layer, batch_size: int) -> None:
        attention, mixing = layer.attention, layer.feedforward
        assert isinstance(attention, Attention) and isinstance(mixing, FeedForward)
        config = attention.config
        self.attention_gain = layer.attention_norm.detach()
        self.feedforward_gain = layer.feedforward_norm.detach()
        self.query_key_value = PackedLinear(attention.query_key_value, batch_size)
        self.output = PackedLinear(attention.output, batch_size)
        self.gate_up = PackedLinear(mixing.gate_up, batch_size)
        self.down = PackedLinear(mixing.down, batch_size)
        gains = [attention.query_norm] * config.num_heads + [attention.key_norm] * config.num_kv_heads
        self.head_gains = torch.stack([gain.detach() for gain in gains])  # (H + K, D)


class PackedStepper:
    """Reads one token of each of `batch_size` texts at a time into a cache; nothing else changes."""

    def __init__(self, model: Transformer, batch_size: int) -> None:
        self.config = model.config
        self.embedding = model.embedding.detach()
        self.layers = [PackedLayer(layer, batch_size) for layer in model.layers if isinstance(layer, Layer)]
        self.norm = model.norm.detach()
        self.head = PackedLinear(model.unembedding, batch_size)
        positions = torch.arange(model.config.context_length)
        cosine, sine = rotary_table(model.config, positions)
        half = model.config.head_dim // 2
        # rotate() is x * cos + (-x2, x1) * sin; with the halves exchanged, the sign goes to the table.
        sine = torch.cat((-sine[:, :half], sine[:, half:]), dim=-1)
        self.cosine, self.sine = cosine.to(model.compute_dtype), sine.to(model.compute_dtype)

    @torch.inference_mode()
    def step(self, tokens: Tensor, cache: KVCache) -> Tensor:
        """Return the logits (B, V) in fp32 after tokens (B,), which follow the cache's filled positions."""
        config = self.config
        heads, both = config.num_heads, config.num_heads + config.num_kv_heads
        batch, dim, epsilon = tokens.shape[0], config.head_dim, config.norm_epsilon
        cosine, sine, visible = self._place(cache)
        at, end = cache.length, cache.length + 1
        is_grouped = heads != config.num_kv_heads
        x = self.embedding[tokens]
        for index, layer in enumerate(self.layers):
            normed = functional.rms_norm(x, (config.model_dim,), layer.attention_gain, epsilon)
            stacked = layer.query_key_value(normed).view(batch, -1, dim)  # (B, H + 2 K, D)
            turned = functional.rms_norm(stacked[:, :both], (dim,), None, epsilon) * layer.head_gains
            turned = torch.addcmul(turned * cosine, turned.roll(dim // 2, -1), sine)
            keys, values = cache.keys[index], cache.values[index]
            keys[:, :, at] = turned[:, heads:]
            values[:, :, at] = stacked[:, both:]
            gathered = functional.scaled_dot_product_attention(
                turned[:, :heads].unsqueeze(2).to(keys.dtype),
                keys[:, :, :end],
                values[:, :, :end],
                attn_mask=visible,
                enable_gqa=is_grouped,
            )
            x = x + layer.output(gathered.reshape(batch, -1).to(x.dtype))
            normed = functional.rms_norm(x, (config.model_dim,), layer.feedforward_gain, epsilon)
            gate, up = layer.gate_up(normed).chunk(2, dim=-1)
            x = x + layer.down(functional.silu(gate).mul_(up))
        cache.length = end
        normed = functional.rms_norm(x, (config.model_dim,), self.norm, epsilon)
        return self.head(normed).float()

    def _place(self, cache: KVCache) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return cosine and sine, (D) or (B, 1, D), of each text's next position, and what it sees or None for all."""
        if cache.padding is None:
            return self.cosine[cache.length], self.sine[cache.length], None
        positions = (cache.length - cache.padding).clamp(min=0)
        visible = torch.arange(cache.length + 1) >= cache.padding[:, None]  # (B, S)
        return self.cosine[positions][:, None], self.sine[positions][:, None], visible[:, None, None]

"""Steps of a dense model on a CPU, one token or a few at a time, in as few calls as possible.

The arithmetic is that of transformer.py, in the model's compute dtype, on the same cache. A batch
of 1 reads every weight once per token, so memory bandwidth is the limit (docs/speed.md).
"""

import functools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from lightlm.model.attention import Attention, KVCache, rotary_table
from lightlm.model.feedforward import FeedForward
from lightlm.model.packed_products import (
    HalfLinear,
    PackedLinear,
    is_half_available,
    serves_fewer_rows,
)
from lightlm.model.tensors import BT, BTV, BV, B
from lightlm.model.transformer import Layer, Transformer

CACHE_DTYPE = torch.float32
"""Data type of keys and values, whatever the weights are: over 100 positions of 6 heads, attention
of one query took 9 us in fp32 and 51 us in bf16 (torch 2.13, one thread of an EPYC).
"""

MAX_HALF = 65504.0
"""The largest fp16 number; FBGEMM would cut a larger weight down to it."""

ONE_THREAD_PARAMETERS = 20_000_000
"""Parameters below which products are too short to share between threads."""


def can_halve(model: Transformer) -> bool:
    """Return whether fp16 weights serve this model: small, and no weight beyond fp16."""
    weights = list(model.parameters())
    is_small = sum(weight.numel() for weight in weights) < ONE_THREAD_PARAMETERS
    return (
        is_small
        and is_half_available()
        and all(float(weight.detach().abs().max()) <= MAX_HALF for weight in weights)
    )


def can_draft(model: Transformer) -> bool:
    """Return whether greedy text can be drafted in fp16 and checked in fp32."""
    return (
        model.compute_dtype == torch.float32
        and can_halve(model)
        and serves_fewer_rows(torch.float32)
    )


def halve_model(model: Transformer) -> Transformer:
    """Return a copy that computes in fp32 with weights rounded to fp16."""
    return copy_model(model, torch.float32, lambda weight: weight.half().float())


def store_in_compute_dtype(model: Transformer) -> Transformer:
    """Return the model, or a copy whose weights are kept in what it computes in.

    The layers convert their weights at every call: nothing for a batch of training, three times the
    memory traffic for one token.
    """
    if is_stored_in_compute_dtype(model):
        return model
    return copy_model(model, model.compute_dtype, lambda weight: weight.to(model.compute_dtype))


def is_stored_in_compute_dtype(model: Transformer) -> bool:
    """Return whether all weights are kept in what the model computes in."""
    return all(weight.dtype == model.compute_dtype for weight in model.parameters())


def copy_model(
    model: Transformer, dtype: torch.dtype, convert: Callable[[Tensor], Tensor]
) -> Transformer:
    """Return a copy, for reading only, with each weight converted."""
    with torch.device("meta"):
        copy = Transformer(model.config)
    copy.load_state_dict(
        {name: convert(weight.detach()) for name, weight in model.named_parameters()}, assign=True
    )
    copy.compute_dtype = dtype
    return copy.eval()


def can_step(model: Transformer) -> bool:
    """Return whether PackedStepper serves: dense, on a CPU, weights in compute dtype."""
    return (
        model.embedding.device.type == "cpu"
        and not model.config.is_mixture_of_experts
        and is_stored_in_compute_dtype(model)
    )


def mirror(x: Tensor) -> Tensor:
    """Return -x and after it x, (..., 2 size), for queries and keys without a norm."""
    return torch.cat((x.neg(), x), -1)


class MirroredNorm:
    """RMSNorm of the last dimension as a layer norm of (-x, x): its mean is 0 and its variance the
    mean square of x.

    One fused kernel instead of torch's five on a CPU: 3.2 us instead of 6.6 (8.5 in bf16) for a row
    of 320.
    """

    def __init__(self, size: int, epsilon: float, gain: Tensor | None = None) -> None:
        self.size = size
        self.epsilon = epsilon
        self.gain = None if gain is None else torch.cat((gain.detach(), gain.detach()))

    def mirror(self, x: Tensor) -> Tensor:
        """Return the negative of the norm, and after it the norm: (..., 2 size)."""
        return torch.layer_norm(
            torch.cat((x.neg(), x), -1), (2 * self.size,), self.gain, None, self.epsilon
        )

    def __call__(self, x: Tensor) -> Tensor:
        """Return the norm, (..., size)."""
        return self.mirror(x)[..., self.size :]


Pack = Callable[[Tensor], PackedLinear | HalfLinear]
"""Packs a weight (out, in)."""


class PackedLayer:
    """A layer's weights, packed by `pack`, and its gains in the dtype of the steps."""

    def __init__(self, layer: Layer, dtype: torch.dtype, pack: Pack) -> None:
        attention = layer.attention
        mixing = layer.feedforward
        assert isinstance(attention, Attention) and isinstance(mixing, FeedForward)
        config = attention.config
        dim = config.model_dim
        epsilon = config.norm_epsilon
        self.attention_norm = MirroredNorm(dim, epsilon, layer.attention_norm.to(dtype))
        self.feedforward_norm = MirroredNorm(dim, epsilon, layer.feedforward_norm.to(dtype))
        self.query_key_value = pack(attention.query_key_value)
        bias = attention.input_bias
        self.input_bias = None if bias is None else bias.detach().to(dtype)
        self.output = pack(attention.output)
        self.gate_up = pack(mixing.gate_up)
        self.down = pack(mixing.down)


class PackedStepper:
    """Reads the next tokens of texts into a cache, `num_rows` tokens in all at a time.

    It computes in the model's compute dtype, or with `in_half` with matrices in fp16 and all else
    in fp32, whatever the number of rows.
    """

    def __init__(self, model: Transformer, num_rows: int, *, in_half: bool = False) -> None:
        self.config = model.config
        self.dtype = torch.float32 if in_half else model.compute_dtype
        pack: Pack = HalfLinear if in_half else functools.partial(PackedLinear, batch_size=num_rows)
        layers = [layer for layer in model.layers if isinstance(layer, Layer)]
        self.embedding = model.embedding.detach()
        self.layers = [PackedLayer(layer, self.dtype, pack) for layer in layers]
        dim = model.config.model_dim
        epsilon = model.config.norm_epsilon
        self.norm = MirroredNorm(dim, epsilon, model.norm.to(self.dtype))
        self.mirror_heads = mirror
        if model.config.has_head_norms:
            self.mirror_heads = MirroredNorm(model.config.head_dim, epsilon).mirror
        # Gains of each layer's queries and keys, (L, H + K, D); and with the halves exchanged, as
        # rotate() does.
        self.head_gains = torch.stack([list_head_gains(layer) for layer in layers]).to(self.dtype)
        self.turned_gains = self.head_gains.roll(model.config.head_dim // 2, -1)
        self.head = pack(model.unembedding)
        positions = torch.arange(model.config.context_length)
        cosine, sine = rotary_table(model.config, positions)
        self.cosine = cosine.to(self.dtype)
        self.sine = sine.to(self.dtype)

    def step(self, tokens: B, cache: KVCache) -> BV:
        """Return the logits in fp32 after tokens that follow the cache's filled positions."""
        return self.read(tokens[:, None], cache)[:, 0]

    @torch.inference_mode()
    def read(self, tokens: BT, cache: KVCache) -> BTV:
        """Return the logits in fp32 after tokens that follow the cache's filled positions."""
        config = self.config
        heads = config.num_heads
        both = config.num_heads + config.num_kv_heads
        batch, length = tokens.shape
        dim = config.head_dim
        cosines, sines, visible = self._place(cache, length)
        at = cache.length
        end = cache.length + length
        is_grouped = heads != config.num_kv_heads
        x = self.embedding.index_select(0, tokens.flatten()).to(self.dtype)  # (B T, model_dim)

        for index, layer in enumerate(self.layers):
            # (B, T, H + 2 K, D)
            stacked = layer.query_key_value(layer.attention_norm(x))
            if layer.input_bias is not None:
                stacked = stacked + layer.input_bias
            stacked = stacked.view(batch, length, -1, dim)
            # (-n1, -n2, n1, n2) of halves: the norm is its end, and what rotate() turns it by,
            # (-n2, n1), its middle.
            mirrored = self.mirror_heads(stacked.narrow(2, 0, both))
            turned = mirrored[..., dim:] * cosines[index]
            turned.addcmul_(mirrored[..., dim // 2 : -dim // 2], sines[index])
            keys = cache.keys[index]
            values = cache.values[index]
            # narrow() and not slices: a third of the time, and there are seven a layer.
            keys.narrow(2, at, length).copy_(turned.narrow(2, heads, both - heads).transpose(1, 2))
            values.narrow(2, at, length).copy_(
                stacked.narrow(2, both, both - heads).transpose(1, 2)
            )
            gathered = functional.scaled_dot_product_attention(
                turned.narrow(2, 0, heads).transpose(1, 2).to(keys.dtype),
                keys.narrow(2, 0, end),
                values.narrow(2, 0, end),
                attn_mask=visible,
                enable_gqa=is_grouped,
            )
            x = layer.output.add(
                gathered.transpose(1, 2).reshape(batch * length, -1).to(x.dtype), x
            )
            gate, up = layer.gate_up(layer.feedforward_norm(x)).chunk(2, dim=-1)
            x = layer.down.add(functional.silu(gate).mul_(up), x)

        cache.length = end
        return self.head(self.norm(x)).float().view(batch, length, -1)

    def _place(
        self, cache: KVCache, length: int
    ) -> tuple[Sequence[Tensor], Sequence[Tensor], Tensor | None]:
        """Return what turns queries and keys of each text's next positions, and what these see or
        None for all.

        Cosines and sines with the gains in them, of each layer: (H + K, D), (T, H + K, D) or (B, T,
        H + K, D).
        """
        # the most frequent, and the one whose calls count
        if length == 1 and cache.padding is None:
            cosine = self.cosine[cache.length]
            sine = self.sine[cache.length]
            return (self.head_gains * cosine).unbind(), (self.turned_gains * sine).unbind(), None

        positions = torch.arange(cache.length, cache.length + length)
        visible = None
        filled = torch.arange(cache.length + length)
        if length > 1:
            visible = filled <= positions[:, None]  # (T, S)

        if cache.padding is not None:
            real = (filled >= cache.padding[:, None])[:, None, None]  # (B, 1, 1, S)
            visible = real if visible is None else visible & real
            positions = (positions - cache.padding[:, None]).clamp(min=0)  # (B, T)

        # of shape (..., T, 1, D)
        cosine = self.cosine[positions].unsqueeze(-2)
        sine = self.sine[positions].unsqueeze(-2)
        layered = (-1, *[1] * (cosine.dim() - 2), *self.head_gains.shape[1:])
        return (
            (self.head_gains.view(layered) * cosine).unbind(),
            (self.turned_gains.view(layered) * sine).unbind(),
            visible,
        )


def list_head_gains(layer: Layer) -> Tensor:
    """Return the gain of each query and key head of a layer, (H + K, D); ones without norms."""
    attention = layer.attention
    config = attention.config
    if attention.query_norm is None or attention.key_norm is None:
        both = config.num_heads + config.num_kv_heads
        return torch.ones(both, config.head_dim, device=attention.output.device)
    gains = [attention.query_norm] * config.num_heads + [attention.key_norm] * config.num_kv_heads
    return torch.stack([gain.detach() for gain in gains])

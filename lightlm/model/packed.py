"""Steps of a dense model on a CPU, of a token or a few: weights packed for them once, as few calls
as there can be.

Owns speed alone: the arithmetic is that of transformer.py, in the model's compute dtype, and the
cache is the same. Batch 1 reads every weight once a token, so memory bandwidth is the limit;
F.linear reached 15 GB/s of 35 GB/s that a copy moves (bf16 and fp32, one thread of an EPYC,
November 2026), oneDNN's packed layout 24 to 35 GB/s. Small models spend as much in oneDNN's own
preparation of each product (9 to 13 us, whatever its size). FBGEMM's takes 2 us and reads weights
in fp16 beside activations in fp32: at 17M parameters all products of a token took 1.3 ms instead of
4.9 in fp32 and 2.4 in bf16 (one thread of a busy Sapphire Rapids), as much as fp32 at batch 32, and
its error is a sixteenth of bf16's.
"""

import functools
import math
import time
import warnings
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from lightlm.model.attention import Attention, KVCache, rotary_table
from lightlm.model.feedforward import FeedForward
from lightlm.model.transformer import Layer, Transformer

CACHE_DTYPE = torch.float32
"""Of keys and values, whatever the weights are: attention of one query took 9 us in fp32 and 51 us
in bf16 over 100 positions of 6 heads, 30 us and 257 us over 500 (torch 2.13, one thread of an
EPYC).
"""

PACKED_DTYPES = (torch.float32, torch.bfloat16)

MANY_ROWS = 16

MAX_HALF = 65504.0
"""The largest fp16 number; FBGEMM would cut a larger weight down to it."""

ONE_THREAD_PARAMETERS = 20_000_000
"""Of models whose products are too short to be shared by threads; FBGEMM's are not."""


class PackedLinear:
    """x (B, in) to (B, out) by a weight (out, in), packed by oneDNN where this build of torch has
    it.
    """

    def __init__(self, weight: Tensor, batch_size: int) -> None:
        self.weight = weight
        self.packed = pack(weight, batch_size)

    def __call__(self, x: Tensor) -> Tensor:
        """Return the product."""
        if self.packed is None:
            return functional.linear(x, self.weight)
        return multiply(x, self.packed)

    def add(self, x: Tensor, to: Tensor) -> Tensor:
        """Return the product added to `to`, in one call."""
        if self.packed is None:
            return to + functional.linear(x, self.weight)
        return torch.ops.mkldnn._linear_pointwise.binary(x, to, self.packed, None, "add")


class HalfLinear:
    """x (B, in) to (B, out), both fp32, by a weight (out, in) that FBGEMM keeps in fp16."""

    def __init__(self, weight: Tensor) -> None:
        # torch's functions of these names and not torch.ops: a third of the time, and they warn by
        # `warnings`.
        self.packed = torch.fbgemm_pack_gemm_matrix_fp16(weight.detach().float().contiguous())

    def __call__(self, x: Tensor) -> Tensor:
        """Return the product."""
        return torch.fbgemm_linear_fp16_weight_fp32_activation(x, self.packed, None)  # pyright: ignore

    def add(self, x: Tensor, to: Tensor) -> Tensor:
        """Return the product added to `to`."""
        return self(x).add_(to)


def pack(weight: Tensor, batch_size: int) -> Tensor | None:
    """Return the weight in oneDNN's layout for `batch_size` rows; None where it has none for it."""
    if not is_packing_available(weight.dtype):
        return None
    num_rows = choose_num_rows(weight.dtype) if batch_size == 1 else batch_size
    return torch.ops.mkldnn._reorder_linear_weight(weight.detach(), num_rows)


@functools.cache
def choose_num_rows(dtype: torch.dtype) -> int:
    """Return for how many rows to pack a weight that is read one row at a time: the quicker here of
    1 and MANY_ROWS.

    At 135M parameters in fp32 a token took 19.9 ms in the layout for one row and 14.8 ms in that
    for sixteen (one thread of an EPYC, November 2026).
    """
    if not serves_fewer_rows(dtype):
        return 1

    weight = torch.ones(1024, 1024, dtype=dtype)
    x = torch.ones(1, 1024, dtype=dtype)
    seconds = {}

    for num_rows in (1, MANY_ROWS):
        packed = torch.ops.mkldnn._reorder_linear_weight(weight, num_rows)
        seconds[num_rows] = math.inf
        for _ in range(8):
            started = time.perf_counter()
            multiply(x, packed)
            seconds[num_rows] = min(seconds[num_rows], time.perf_counter() - started)

    return min(seconds, key=seconds.__getitem__)


@functools.cache
def serves_fewer_rows(dtype: torch.dtype) -> bool:
    """Return whether a weight packed for MANY_ROWS rows serves fewer as well; that of bf16 does
    not.
    """
    return is_packing_available(dtype) and is_product_right(dtype, MANY_ROWS, (1, 3))


@functools.cache
def is_packing_available(dtype: torch.dtype) -> bool:
    """Return whether products of this dtype can be packed on this machine."""
    return (
        dtype in PACKED_DTYPES
        and torch.backends.mkldnn.is_available()
        and is_product_right(dtype, 1, (1,))
    )


def is_product_right(dtype: torch.dtype, packed_for: int, used_for: tuple[int, ...]) -> bool:
    """Return whether a weight packed for some rows serves each number of rows: tried, and compared
    to the plain one.
    """
    weight = torch.arange(-32, 32, dtype=dtype).view(4, 16) / 16
    ones = [torch.ones(num_rows, 16, dtype=dtype) for num_rows in used_for]
    try:
        packed = torch.ops.mkldnn._reorder_linear_weight(weight, packed_for)
        found = [multiply(x, packed) for x in ones]
    except (RuntimeError, AttributeError, NotImplementedError):
        return False
    return all(
        torch.allclose(product.float(), functional.linear(x, weight).float(), atol=0.05)
        for product, x in zip(found, ones, strict=True)
    )


def multiply(x: Tensor, packed: Tensor) -> Tensor:
    """Return the product of x (B, in) and a weight in oneDNN's layout, (B, out)."""
    return torch.ops.mkldnn._linear_pointwise.default(x, packed, None, "none", [], "")


@functools.cache
def is_half_available() -> bool:
    """Return whether FBGEMM is in this build of torch and serves this machine: tried,
    and compared.
    """
    weight = torch.arange(-32, 32, dtype=torch.float32).view(4, 16) / 16
    x = torch.ones(1, 16)
    try:
        with warnings.catch_warnings():  # "deprecated", once a process: without it oneDNN serves
            warnings.simplefilter("ignore")
            found = HalfLinear(weight)(x)
    except (RuntimeError, AttributeError, NotImplementedError, TypeError):
        return False
    return torch.allclose(found, functional.linear(x, weight), atol=1e-3)


def can_halve(model: Transformer) -> bool:
    """Return whether steps with weights in fp16 serve this model: small, and no weight
    beyond fp16.
    """
    weights = list(model.parameters())
    is_small = sum(weight.numel() for weight in weights) < ONE_THREAD_PARAMETERS
    return (
        is_small
        and is_half_available()
        and all(float(weight.detach().abs().max()) <= MAX_HALF for weight in weights)
    )


def can_draft(model: Transformer) -> bool:
    """Return whether greedy text in fp32 can be drafted in fp16 and checked some tokens
    at a time.
    """
    return (
        model.compute_dtype == torch.float32
        and can_halve(model)
        and serves_fewer_rows(torch.float32)
    )


def halve_model(model: Transformer) -> Transformer:
    """Return a copy that computes in fp32 with weights rounded to fp16: what it reads at once, it
    reads as in steps.
    """
    return copy_model(model, torch.float32, lambda weight: weight.half().float())


def store_in_compute_dtype(model: Transformer) -> Transformer:
    """Return the model, or a copy whose weights are kept in what it computes in.

    The layers convert their weights at every call: nothing for a batch of training, three times the
    memory traffic for one token.
    """
    if model.embedding.dtype == model.compute_dtype:
        return model
    return copy_model(model, model.compute_dtype, lambda weight: weight.to(model.compute_dtype))


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
    """Return whether PackedStepper serves this model: dense, on the CPU, weights in its compute
    dtype.
    """
    return (
        model.embedding.device.type == "cpu"
        and not model.config.is_mixture_of_experts
        and model.embedding.dtype == model.compute_dtype
    )


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


Link = Callable[[Tensor], PackedLinear | HalfLinear]
"""Packs a weight (out, in)."""


class PackedLayer:
    """A layer's weights, packed by `link`, and its gains in the dtype of the steps."""

    def __init__(self, layer: Layer, dtype: torch.dtype, link: Link) -> None:
        attention = layer.attention
        mixing = layer.feedforward
        assert isinstance(attention, Attention) and isinstance(mixing, FeedForward)
        config = attention.config
        dim = config.model_dim
        epsilon = config.norm_epsilon
        self.attention_norm = MirroredNorm(dim, epsilon, layer.attention_norm.to(dtype))
        self.feedforward_norm = MirroredNorm(dim, epsilon, layer.feedforward_norm.to(dtype))
        self.query_key_value = link(attention.query_key_value)
        self.output = link(attention.output)
        self.gate_up = link(mixing.gate_up)
        self.down = link(mixing.down)


class PackedStepper:
    """Reads the next tokens of texts into a cache, `num_rows` tokens in all at a time; nothing else
    changes.

    In the model's compute dtype, or `in_half`: matrices in fp16 and all else in fp32, whatever the
    number of rows.
    """

    def __init__(self, model: Transformer, num_rows: int, *, in_half: bool = False) -> None:
        self.config = model.config
        self.dtype = torch.float32 if in_half else model.compute_dtype
        link: Link = HalfLinear if in_half else functools.partial(PackedLinear, batch_size=num_rows)
        layers = [layer for layer in model.layers if isinstance(layer, Layer)]
        self.embedding = model.embedding.detach()
        self.layers = [PackedLayer(layer, self.dtype, link) for layer in layers]
        dim = model.config.model_dim
        epsilon = model.config.norm_epsilon
        self.norm = MirroredNorm(dim, epsilon, model.norm.to(self.dtype))
        self.head_norm = MirroredNorm(model.config.head_dim, epsilon)
        # Of each layer's queries and keys, (L, H + K, D); and as rotate() exchanges the halves that
        # they belong to.
        self.head_gains = torch.stack([list_head_gains(layer) for layer in layers]).to(self.dtype)
        self.turned_gains = self.head_gains.roll(model.config.head_dim // 2, -1)
        self.head = link(model.unembedding)
        positions = torch.arange(model.config.context_length)
        cosine, sine = rotary_table(model.config, positions)
        self.cosine, self.sine = cosine.to(self.dtype), sine.to(self.dtype)

    def step(self, tokens: Tensor, cache: KVCache) -> Tensor:
        """Return the logits (B, V) in fp32 after tokens (B,), which follow the cache's filled
        positions.
        """
        return self.read(tokens[:, None], cache)[:, 0]

    @torch.inference_mode()
    def read(self, tokens: Tensor, cache: KVCache) -> Tensor:
        """Return the logits (B, T, V) in fp32 after tokens (B, T), which follow the cache's filled
        positions.
        """
        config = self.config
        heads = config.num_heads
        both = config.num_heads + config.num_kv_heads
        (batch, length), dim = tokens.shape, config.head_dim
        cosines, sines, visible = self._place(cache, length)
        at = cache.length
        end = cache.length + length
        is_grouped = heads != config.num_kv_heads
        x = self.embedding.index_select(0, tokens.flatten()).to(self.dtype)  # (B T, model_dim)

        for index, layer in enumerate(self.layers):
            # (B, T, H + 2 K, D)
            stacked = layer.query_key_value(layer.attention_norm(x)).view(batch, length, -1, dim)
            # (-n1, -n2, n1, n2) of halves: the norm is its end, and what rotate() turns it by,
            # (-n2, n1), its middle.
            mirrored = self.head_norm.mirror(stacked.narrow(2, 0, both))
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
    """Return the gain of each query and key head of a layer, (H + K, D)."""
    attention = layer.attention
    config = attention.config
    gains = [attention.query_norm] * config.num_heads + [attention.key_norm] * config.num_kv_heads
    return torch.stack([gain.detach() for gain in gains])

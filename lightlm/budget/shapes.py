"""The shapes that are considered: widths, depths, heads. Arithmetic, no torch."""

import math
from functools import cache

from lightlm.errors import ParameterError
from lightlm.model.config import ModelConfig
from lightlm.params import Params

DEFAULT_SHAPE = {"num_layers": 12, "model_dim": 768, "num_heads": 12, "context_length": 1024}
"""Shape of a manual configuration that gives none: that of GPT-2 small."""

HEAD_DIM = 64
"""Dimensions of a head: faster and better than 32 at every width measured."""

MAX_HEAD_DIM = 1024
"""Most dimensions of a head, as ModelConfig bounds them."""

WIDTHS = tuple(range(64, 513, 64)) + tuple(range(640, 1025, 128)) + tuple(range(1280, 4097, 256))
"""Model dimensions that are considered: multiples of a head's."""


LEAST_ASPECT = 24
MOST_ASPECT = 128
"""Dimensions per layer that are considered."""

WIDE = 384
MOST_ASPECT_OF_WIDE = 80
"""Width from which fewer are: GPT-2, nanochat and autoresearch's tuned runs have 57 to 77. Our own
measurements, of widths below, found up to 128 as good. The loss law does not see the depth.
"""


def depths_for(dim: int) -> list[int]:
    """Return the depths considered at a width, 64 layers at most."""
    most = MOST_ASPECT if dim < WIDE else MOST_ASPECT_OF_WIDE
    return [layers for layers in range(1, 65) if LEAST_ASPECT <= dim / layers <= most] or [
        1 if dim < MOST_ASPECT else 64
    ]


@cache
def choose_heads(dim: int) -> int:
    """Return the heads of a width: 64 dimensions each, or the nearest even divisor."""
    fitting = [size for size in range(2, 2 * HEAD_DIM + 1, 2) if dim % size == 0]
    return dim // min(fitting, key=lambda size: abs(math.log(size / HEAD_DIM))) if fitting else 1


def fits_heads(dim: int, num_heads: int, num_kv_heads: int | None) -> bool:
    """Return whether a width divides into even heads, and the heads into groups."""
    groups = num_kv_heads or num_heads
    return (
        dim % (2 * num_heads) == 0 and dim // num_heads <= MAX_HEAD_DIM and num_heads % groups == 0
    )


def check_shape(params: Params) -> None:
    """Refuse shapes that no width can have and no text can fill, by arithmetic, before any
    measuring.

    Raises:
        ParameterError: with what to give instead.
    """
    fixed = params.model
    context = fixed.context_length
    max_bytes = params.dataset.max_bytes

    if context is not None and max_bytes is not None and context >= max_bytes:
        raise ParameterError(
            f"model.context_length {context:,} is more tokens than dataset.max_bytes {max_bytes:,} "
            "bytes can make; give a smaller context_length, or more bytes"
        )

    if fixed.model_dim is not None:
        widths: tuple[int, ...] = (fixed.model_dim,)
    else:
        widths = (DEFAULT_SHAPE["model_dim"],) if params.budget.planner == "manual" else WIDTHS

    if any(
        fits_heads(dim, fixed.num_heads or choose_heads(dim), fixed.num_kv_heads) for dim in widths
    ):
        return

    names = ("model_dim", "num_heads", "num_kv_heads")
    given = ", ".join(
        f"model.{name} {getattr(fixed, name)}" for name in names if getattr(fixed, name) is not None
    )
    among = (
        f"the width {widths[0]:,}"
        if len(widths) == 1
        else f"a width of {WIDTHS[0]} to {WIDTHS[-1]:,}"
    )

    raise ParameterError(
        f"{given or 'the model section'}: {among} does not divide into such heads, of an even "
        f"number of dimensions and {MAX_HEAD_DIM:,} at most; give model.num_heads a divisor of "
        "model.model_dim, and model.num_kv_heads one of model.num_heads"
    )


def choose_ffn_dim(dim: int) -> int:
    """Return 8/3 of the width, rounded to 64: three matrices cost what two of 4x would."""
    return max(64, round(dim * 8 / 3 / 64) * 64)


def dense_shape(
    vocab_size: int, num_layers: int, model_dim: int, context_length: int
) -> ModelConfig:
    """Return a dense shape with the heads and the feed-forward that suit its width."""
    heads = choose_heads(model_dim)
    return ModelConfig(
        vocab_size=vocab_size,
        num_layers=num_layers,
        model_dim=model_dim,
        num_heads=heads,
        num_kv_heads=heads,
        head_dim=model_dim // heads,
        ffn_dim=choose_ffn_dim(model_dim),
        context_length=context_length,
    )


def build_shape(
    params: Params,
    *,
    vocab_size: int,
    num_layers: int,
    model_dim: int,
    num_heads: int,
    context_length: int,
) -> ModelConfig:
    """Return the model config of a shape, with what params fix.

    Raises:
        ParameterError: heads that do not divide the width.
    """
    fixed = params.model
    if not fits_heads(model_dim, num_heads, None):
        raise ParameterError(
            f"model.model_dim {model_dim} does not divide into {num_heads} heads of an even number "
            "of dimensions; give model.num_heads a divisor, or model.model_dim a multiple"
        )

    num_kv_heads = fixed.num_kv_heads or num_heads
    if num_heads % num_kv_heads:
        raise ParameterError(
            f"model.num_kv_heads {num_kv_heads} does not divide num_heads {num_heads}; give one "
            "that does"
        )

    ffn_dim = fixed.ffn_dim or choose_ffn_dim(model_dim)
    experts = fixed.mixture_of_experts
    active = min(fixed.num_active_experts, fixed.num_experts)
    return ModelConfig(
        vocab_size=vocab_size,
        num_layers=num_layers,
        model_dim=model_dim,
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        head_dim=model_dim // num_heads,
        ffn_dim=ffn_dim,
        context_length=context_length,
        tie_embeddings=bool(fixed.tie_embeddings),
        num_experts=fixed.num_experts if experts else 0,
        num_active_experts=active if experts else 0,
        # Active experts together cost what the dense feed-forward would; the grouped product wants
        # multiples of 8.
        expert_ffn_dim=max(8, ffn_dim // active // 8 * 8) if experts else 0,
    )


def has_same_layers(one: ModelConfig, other: ModelConfig) -> bool:
    """Return whether two shapes differ in their depth at most."""
    if one.model_dim != other.model_dim:  # of thousands that are compared, most
        return False
    return one.model_copy(update={"num_layers": other.num_layers}) == other

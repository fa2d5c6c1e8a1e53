"""The start of a retraining: the champion's weights or new ones, whichever is forecast to score
better.

Arithmetic over the loss law of budget.scaling; the champion's part is anchored at its measured
score. No torch.
"""

from pydantic import BaseModel

from lightlm.budget.scaling import predict_loss
from lightlm.model.accounting import count_matrix_parameters
from lightlm.model.config import ModelConfig
from lightlm.params import Params

CONTINUED_RATES = 0.5
"""Factor on the plan's peak learning rates: full rates cost annealed weights more than they learn
in a short run.
"""

REMEMBERED_SHARE = 0.5
"""Fraction of the bytes the champion has read that still counts once its rates are raised again:
1.904 forecast, 1.907 reached (0.7 M parameters, 1.1 MB of plays read 1.1 times more; two CPU cores,
November 2026).
"""


class ChampionPast(BaseModel, frozen=True):
    """A champion: its shape, the bytes it has read, and its score on the new held-out text."""

    version: str
    model: ModelConfig
    seen_bytes: float
    bits_per_byte: float


class Start(BaseModel, frozen=True):
    """The start of training, with the forecasts in bits per byte (None: there is none)."""

    version: str | None
    scratch_bits_per_byte: float | None
    continued_bits_per_byte: float | None
    reason: str

    @property
    def name(self) -> str:
        """Return "version 3" or "scratch"."""
        return "scratch" if self.version is None else f"version {self.version}"


def forecast_continuation(
    past: ChampionPast,
    new_bytes: float,
    unique_bytes: float,
    difficulty: float = 1.0,
    correction: float = 1.0,
) -> float:
    """Return the bits per byte that the champion is forecast to reach after `new_bytes` more.

    The law gives the factor by which more text lowers the loss of its size; its measured score is
    the base. The forecast is never below the law's, times `correction`, for a model that has read
    all of it in one go.
    """
    parameters = count_matrix_parameters(past.model)
    before = predict_loss(parameters, past.seen_bytes, unique_bytes, difficulty).bits_per_byte
    remembered = REMEMBERED_SHARE * past.seen_bytes
    after = predict_loss(parameters, remembered + new_bytes, unique_bytes, difficulty).bits_per_byte
    whole = predict_loss(
        parameters, past.seen_bytes + new_bytes, unique_bytes, difficulty
    ).bits_per_byte
    return max(past.bits_per_byte * after / before, correction * whole)


def choose_start(past: ChampionPast, continued: float, scratch: float) -> Start:
    """Return the start with the better forecast, and why."""
    is_continued = continued < scratch
    return Start(
        version=past.version if is_continued else None,
        scratch_bits_per_byte=scratch,
        continued_bits_per_byte=continued,
        reason=f"{scratch:.3f} bits per byte forecast from scratch, {continued:.3f} continued from "
        f"version {past.version}, which has {past.bits_per_byte:.3f} on all of the held-out text",
    )


def fix_shape(params: Params, model: ModelConfig, tokenizer: str) -> Params:
    """Return params that fix the shape of `model`, with a folder's tokenizer and lower rates."""
    names = set(type(params.model).model_fields)
    if not model.is_mixture_of_experts:
        names -= {"num_experts", "num_active_experts"}
    fixed = model.model_dump(include=names) | {"mixture_of_experts": model.is_mixture_of_experts}

    scale = CONTINUED_RATES * params.training.learning_rate_scale
    return params.model_copy(
        update={
            "model": params.model.model_copy(update=fixed),
            "tokenizer": params.tokenizer.model_copy(
                update={"source": tokenizer, "vocab_size": None}
            ),
            "training": params.training.model_copy(update={"learning_rate_scale": scale}),
        }
    )

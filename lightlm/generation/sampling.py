"""Which token is next: the values that a person gives, and the choice that they make of logits."""

from collections.abc import Mapping
from typing import Annotated, Any

import torch
from pydantic import Field, ValidationError
from torch import Tensor

from lightlm.errors import PromptError
from lightlm.model.tensors import BV, B
from lightlm.params import GenerationParams, describe_validation

MIN_TEMPERATURE = 1e-5
"""Temperature below which sampling is greedy: dividing by it would overflow fp32."""


class SamplingConfig(GenerationParams, frozen=True):
    """How the next token is chosen. Temperature 0 is greedy; top_k 0 and top_p 1 are off."""

    stop: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=1000)], ...], Field(max_length=16)
    ] = ()


def is_greedy(sampling: SamplingConfig) -> bool:
    """Return whether the likeliest token is always chosen."""
    return sampling.temperature < MIN_TEMPERATURE


def check_sampling(values: Mapping[str, Any]) -> SamplingConfig:
    """Return the sampling config of `values`.

    Raises:
        PromptError: names every value that is wrong, what was wanted and what was got.
    """
    try:
        return SamplingConfig.model_validate(dict(values))
    except ValidationError as error:
        raise PromptError(describe_validation(error)) from None


def choose_tokens(logits: BV, sampling: SamplingConfig, drawn: B, seen: BV | None = None) -> B:
    """Return the next id of each text, by the random numbers `drawn` in [0, 1).

    In transformers' order: repetition penalty of the ids `seen`, temperature, top_k, top_p.
    Source: penalty as CTRL, arXiv 1909.05858, section 4.1, with transformers' care for negative
    logits.
    """
    if seen is not None:
        penalty = sampling.repetition_penalty
        logits = torch.where(
            seen, torch.where(logits < 0, logits * penalty, logits / penalty), logits
        )

    if is_greedy(sampling):
        return logits.argmax(-1)

    # The largest becomes 0 first, so that no temperature makes it infinite.
    logits = (logits - logits.amax(-1, keepdim=True)) / sampling.temperature
    if sampling.top_k or sampling.top_p < 1:
        logits = logits.masked_fill(logits < _find_least(logits, sampling), float("-inf"))

    return _pick(logits.softmax(-1), drawn)


def _find_least(logits: BV, sampling: SamplingConfig) -> Tensor:
    """Return for each text the least logit, (B, 1), that top_k and then top_p leave."""
    likeliest = logits.topk(
        min(sampling.top_k or logits.shape[-1], logits.shape[-1]), dim=-1
    ).values
    probabilities = likeliest.softmax(-1)
    # of likelier ones; 0 for the first, which always stays
    before = probabilities.cumsum(-1) - probabilities
    kept = (before < sampling.top_p).sum(-1, keepdim=True).clamp(min=1)
    return likeliest.gather(-1, kept - 1)


def _pick(weights: BV, drawn: B) -> B:
    """Return for each row of weights (B, V) the place where its share `drawn` of the sum falls.

    In the order of ids, not of likelihood: two that are about as likely may change places by
    rounding alone.
    """
    sums = weights.cumsum(-1)
    # The factor keeps a share that rounds to the whole sum off the places of weight 0 after it.
    wanted = drawn.to(sums.device).unsqueeze(-1) * sums[:, -1:] * (1 - 1e-6)
    return torch.searchsorted(sums, wanted, right=True).squeeze(-1).clamp(max=weights.shape[-1] - 1)

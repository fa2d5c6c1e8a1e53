"""Tests of where a retraining starts: forecasts that move the right way, and params that fix the
champion's shape.
"""

import pytest

from lightlm.budget.continuation import (
    CONTINUED_RATES,
    ChampionPast,
    choose_start,
    fix_shape,
    forecast_continuation,
)
from lightlm.budget.scaling import predict_loss
from lightlm.budget.shapes import build_shape
from lightlm.model.accounting import count_matrix_parameters
from lightlm.model.config import ModelConfig
from lightlm.params import load_params

MODEL = ModelConfig(
    vocab_size=512, num_layers=3, model_dim=96, num_heads=6, num_kv_heads=3, head_dim=16, ffn_dim=192,
    context_length=64, tie_embeddings=True,
)  # fmt: skip
UNIQUE = 50e6


def past(seen_bytes: float, bits_per_byte: float | None = None) -> ChampionPast:
    """Return a champion that has read `seen_bytes`; by default it scores what the law says."""
    law = predict_loss(count_matrix_parameters(MODEL), seen_bytes, UNIQUE).bits_per_byte
    return ChampionPast(
        version="4", model=MODEL, seen_bytes=seen_bytes, bits_per_byte=bits_per_byte or law
    )


def test_more_text_is_forecast_to_be_better() -> None:
    forecasts = [forecast_continuation(past(5e6), new, UNIQUE) for new in (5e6, 10e6, 20e6)]
    assert forecasts == sorted(forecasts, reverse=True)
    assert len(set(forecasts)) == 3


def test_little_new_text_makes_a_champion_worse_as_raised_rates_forget() -> None:
    assert forecast_continuation(past(5e6), 1e4, UNIQUE) > past(5e6).bits_per_byte


def test_the_forecast_starts_from_the_measured_score() -> None:
    measured = [forecast_continuation(past(5e6, bits), 20e6, UNIQUE) for bits in (3.0, 6.0)]
    assert measured[1] == pytest.approx(2 * measured[0])


def test_no_champion_is_forecast_to_beat_one_that_read_all_in_one_go() -> None:
    whole = predict_loss(count_matrix_parameters(MODEL), 25e6, UNIQUE).bits_per_byte
    assert forecast_continuation(past(5e6, 0.1), 20e6, UNIQUE) == pytest.approx(whole)
    assert forecast_continuation(past(5e6, 0.1), 20e6, UNIQUE, correction=1.1) == pytest.approx(
        1.1 * whole
    )


def test_the_better_forecast_is_taken_and_both_are_said() -> None:
    kept = choose_start(past(5e6), 1.5, 1.6)
    fresh = choose_start(past(5e6), 1.7, 1.6)
    assert (kept.version, kept.name) == ("4", "version 4")
    assert (fresh.version, fresh.name) == (None, "scratch")
    assert "1.500" in kept.reason
    assert "1.600" in kept.reason


def test_under_the_fixed_params_only_the_champions_shape_can_be_built() -> None:
    params = load_params()
    fixed = fix_shape(params, MODEL, "/somewhere/model")
    built = build_shape(
        fixed,
        vocab_size=MODEL.vocab_size,
        num_layers=fixed.model.num_layers or 0,
        model_dim=fixed.model.model_dim or 0,
        num_heads=fixed.model.num_heads or 0,
        context_length=fixed.model.context_length or 0,
    )

    assert built == MODEL
    assert (fixed.tokenizer.source, fixed.tokenizer.vocab_size) == ("/somewhere/model", None)
    assert (
        fixed.training.learning_rate_scale == CONTINUED_RATES * params.training.learning_rate_scale
    )

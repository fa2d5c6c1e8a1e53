import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightlm.budget.calibration import load_calibration
from lightlm.budget.scaling import (
    best_size,
    choose_batch_tokens,
    choose_context_length,
    choose_context_ramp,
    choose_learning_rates,
    choose_regularization,
    difficulty_of,
    estimate_needed_bytes,
    near_powers_of_two,
    predict_loss,
    usable_flops,
    useful_epochs,
    useful_parameters,
    worth_of_repeats,
)

sizes = st.integers(10_000, 10**10)
amounts = st.floats(1e4, 1e12)
several = settings(deadline=None)


def is_power_of_two(number):
    return number > 0 and number & (number - 1) == 0


@several
@given(seen=amounts, more=st.floats(1.0, 10.0), unique=amounts)
def test_more_reading_is_never_worth_less_nor_more_than_fresh_text(seen, more, unique):
    worth = worth_of_repeats(seen, unique)
    assert worth <= seen * (1 + 1e-9)
    assert worth_of_repeats(seen * more, unique) >= worth * (1 - 1e-9)
    horizon = load_calibration().loss.repeats_worth
    assert worth <= unique * (1 + horizon) or seen <= unique


@several
@given(seen=amounts, unique=amounts, more=st.floats(1.0, 10.0))
def test_more_different_text_is_never_worth_less(seen, unique, more):
    assert worth_of_repeats(seen, unique * more) >= worth_of_repeats(seen, unique) * (1 - 1e-9)


def test_the_first_epoch_is_worth_all_of_it():
    assert worth_of_repeats(1e6, 1e6) == worth_of_repeats(1e6, 1e9) == 1e6
    assert worth_of_repeats(1.01e6, 1e6) == pytest.approx(1.01e6, rel=1e-4)


@several
@given(size=sizes, seen=amounts, unique=amounts, more=st.floats(1.0, 100.0))
def test_a_larger_model_and_more_text_never_predict_a_worse_loss(size, seen, unique, more):
    middle = predict_loss(size, seen, unique).bits_per_byte
    assert predict_loss(int(size * more), seen, unique).bits_per_byte <= middle
    assert predict_loss(size, seen * more, unique).bits_per_byte <= middle * (1 + 1e-9)
    assert predict_loss(size, seen, unique * more).bits_per_byte <= middle * (1 + 1e-9)


@several
@given(size=sizes, seen=st.floats(0, 1e13), unique=st.floats(1, 1e13))
def test_a_prediction_lies_in_its_interval_between_nothing_and_guessing(size, seen, unique):
    prediction = predict_loss(size, seen, unique)
    assert 0 < prediction.low < prediction.bits_per_byte < prediction.high
    assert prediction.bits_per_byte <= 8.0


@several
@given(wanted=st.floats(1.0, 1e12), wavering=st.floats(0.85, 1.18))
def test_a_run_finds_what_a_slightly_faster_or_slower_one_put_into_the_store(wanted, wavering):
    made = near_powers_of_two(wanted)[0]
    assert made in near_powers_of_two(wanted * wavering)


@several
@given(
    tokens=st.floats(0, 1e13),
    more=st.floats(1.0, 100.0),
    context=st.sampled_from([8, 100, 128, 1024, 2**20]),
)
def test_a_batch_holds_at_least_one_sequence_and_grows_with_the_tokens(tokens, more, context):
    size = choose_batch_tokens(tokens, context)
    assert size >= context
    assert is_power_of_two(size) or size == context
    assert choose_batch_tokens(tokens * more, context) >= size


@several
@given(tokens=st.floats(0, 1e13), text=st.integers(36, 10**10), more=st.floats(1.0, 100.0))
def test_a_sequence_is_at_most_a_quarter_of_the_text_and_grows_with_the_tokens(tokens, text, more):
    length = choose_context_length(tokens, text)
    assert 8 <= length <= max(8, text // 4)
    assert choose_context_length(tokens * more, text) >= length
    assert choose_context_length(tokens, int(text * more)) >= length


def test_rates_follow_the_root_of_the_batch_and_the_scale():
    rates = choose_learning_rates(2048, 192)
    assert choose_learning_rates(512, 192) == pytest.approx([rate / 2 for rate in rates])
    assert choose_learning_rates(2048, 192, scale=0.5) == pytest.approx(
        [rate / 2 for rate in rates]
    )


def test_the_rates_of_a_large_batch_are_those_of_published_runs_within_a_factor_of_two():
    # nanochat at 524,288 tokens and autoresearch at 262,144; their rates at a width of 768
    for batch, width, matrix, embedding, head in (
        (524_288, 768, 0.02, 0.3, 0.008),
        (262_144, 512, 0.04, 0.9 * (512 / 768) ** -0.5, 0.005 * (512 / 768) ** -0.5),
    ):
        rates = choose_learning_rates(batch, width)
        for ours, theirs in zip(rates, (matrix, embedding, head), strict=False):
            assert 1 / 2.2 < ours / theirs < 2.2


def test_the_batch_of_an_accelerator_is_that_of_published_runs_within_a_factor_of_four():
    for tokens, batch in (
        (62e6, 32_768),
        (458e6, 262_144),
        (495e6, 131_072),
        (1.3e9, 524_288),
        (8.8e9, 1_048_576),
    ):
        assert 1 / 4 <= choose_batch_tokens(tokens, 1024, "cuda") / batch <= 4
    assert choose_batch_tokens(4e6, 128, "cuda") == choose_batch_tokens(4e6, 128) == 2048


@several
@given(tokens=st.floats(1, 1e13), more=st.floats(1, 1e3), device=st.sampled_from(["cpu", "cuda"]))
def test_more_text_never_wants_a_smaller_batch(tokens, more, device):
    assert choose_batch_tokens(tokens * more, 128, device) >= choose_batch_tokens(
        tokens, 128, device
    )


@several
@given(flops=st.floats(1e10, 1e24))
def test_no_other_size_scores_better_with_the_same_operations(flops):
    best = best_size(flops, 4.0)
    if best < 1e4:
        return  # guessing bounds the law there

    def score(size: float) -> float:
        return predict_loss(round(size), 4.0 * flops / 6 / size, 1e30).bits_per_byte

    assert score(best) <= min(score(best * 2), score(best / 2)) + 1e-9


def test_the_best_size_grows_with_the_operations_as_published():
    growth = math.log10(best_size(1e20, 4.7) / best_size(1e18, 4.7)) / 2
    assert growth == pytest.approx(0.54, abs=0.05)  # nanochat, dev/LOG.md
    assert best_size(1e18, 4.7) == pytest.approx(110.7e6, rel=0.6)


PUBLISHED = Path(__file__).resolve().parents[2] / "benchmarks" / "published.jsonl"


def test_published_runs_of_the_fit_lie_on_the_law_but_for_a_factor_per_source():
    runs = [json.loads(line) for line in PUBLISHED.read_text(encoding="utf-8").splitlines()]
    assert all(run["url"].startswith("https://") for run in runs)
    errors: dict[str, list[float]] = {}
    for run in runs:
        if run["in_fit"]:
            seen = run["tokens"] * run["bytes_per_token"]
            law = predict_loss(run["matrix_parameters"], seen, seen).bits_per_byte
            errors.setdefault(run["source"], []).append(math.log(run["bits_per_byte"] / law))

    assert sum(len(found) for found in errors.values()) >= 15
    assert len(errors) >= 5
    for found in errors.values():
        assert max(found) - min(found) < 0.05
        assert abs(sum(found) / len(found)) < 0.3  # the text's factor


def test_an_interval_grows_with_the_distance_from_measured_runs():
    def width(size: int, seen: float) -> float:
        prediction = predict_loss(size, seen, 1e12)
        return (prediction.high - prediction.low) / prediction.bits_per_byte

    assert width(10**6, 1e7) == pytest.approx(0.08)
    assert width(10**6, 1e7) < width(10**7, 1e8) < width(10**8, 1e10) < 0.3


def test_the_text_to_fetch_is_what_a_run_can_read_and_not_a_hundred_times_as_much():
    assert estimate_needed_bytes(7e14, 300) == [2**32]  # an H100 for five minutes
    assert estimate_needed_bytes(7e14, 3600)[0] < 32e9
    assert estimate_needed_bytes(4e11, 360)[0] == 2**27  # as measured on two cores


def test_a_wider_model_learns_head_and_embedding_more_slowly_and_matrices_alike():
    narrow = choose_learning_rates(2048, 192)
    wide = choose_learning_rates(2048, 768)
    assert wide.matrix == narrow.matrix
    assert wide.head == pytest.approx(narrow.head / 2)
    assert wide.embedding < narrow.embedding


def test_the_more_often_a_text_is_read_the_more_is_forgotten_on_purpose():
    steps = [choose_regularization(epochs, 1.0) for epochs in (0.1, 2, 3, 5, 9, 1000)]
    assert [step.dropout for step in steps] == sorted(step.dropout for step in steps)
    assert steps[0] == steps[1] == (0.0, 0.0)
    assert 0.0 < steps[2].weight_decay < steps[3].weight_decay
    assert steps[2].dropout == steps[3].dropout == 0.0
    assert steps[-1] > steps[-2]
    assert steps[-2].dropout > 0.0
    sizes = [
        choose_regularization(10, parameters_per_token) for parameters_per_token in (0.1, 1.0, 10.0)
    ]

    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[-1]


def test_the_context_grows_in_training_where_nothing_is_compiled_for_one_length():
    assert (
        choose_context_ramp(128, is_compiled=False)
        == choose_context_ramp(1024, is_compiled=False)
        > 0
    )
    assert (
        choose_context_ramp(128, is_compiled=True)
        == choose_context_ramp(64, is_compiled=False)
        == 0
    )


def test_a_run_of_seconds_is_predicted_less_surely():
    widths = [
        (p.high - p.low) / p.bits_per_byte
        for p in (predict_loss(200_000, seen, 1e9) for seen in (3e5, 1e6, 1e7))
    ]
    assert widths[0] > widths[1] > widths[2] == pytest.approx(0.08)


def test_a_small_text_is_worth_fewer_epochs_and_a_smaller_model():
    assert 3 < useful_epochs(1e5) < useful_epochs(1e6) < 5 < useful_epochs(1e7) < useful_epochs(1e9)
    assert useful_parameters(1e5) < useful_parameters(1e6)


def test_a_text_as_hard_as_the_reference_is_as_hard_as_one():
    for size, bits in load_calibration().difficulty.reference_bits.items():
        assert difficulty_of(bits, size) == pytest.approx(1.0)
    assert difficulty_of(2.38, 600_000) == pytest.approx(1.146, abs=0.01)  # classic-books
    assert (
        predict_loss(10**6, 1e7, 1e7, difficulty=1.1).bits_per_byte
        > predict_loss(10**6, 1e7, 1e7).bits_per_byte
    )


@several
@given(rate=st.floats(1e9, 1e15), seconds=st.floats(0, 1e7), more=st.floats(1.0, 100.0))
def test_the_text_that_is_fetched_grows_with_the_time_in_powers_of_two(rate, seconds, more):
    needed = estimate_needed_bytes(rate, seconds)
    assert all(is_power_of_two(choice) for choice in needed)
    assert min(needed) >= 4 * 2**20
    assert estimate_needed_bytes(rate, seconds * more)[0] >= needed[0]
    assert usable_flops(rate, seconds) > 0


def list_constants(rules: dict[str, Any]) -> Iterator[tuple[str, float]]:
    for name, value in rules.items():
        if isinstance(value, dict):
            yield from list_constants(value)
        elif isinstance(value, int | float):
            yield name, value


def test_every_constant_of_the_rules_is_a_positive_number_but_an_exponent() -> None:
    constants = list(list_constants(load_calibration().model_dump()))
    assert len(constants) > 50
    assert all(math.isfinite(value) for _, value in constants)
    assert all(value > 0 for name, value in constants if "exponent" not in str(name))

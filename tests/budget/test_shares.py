"""Tests of the shares of several texts: what a person gave, or what the law for mixtures takes."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightlm.budget.candidate import OtherFacts, TextFacts
from lightlm.budget.plan import Plan
from lightlm.budget.shares import share_out
from lightlm.params import MOST_OTHERS

OTHER = OtherFacts("books", "auto", 0.1, 4_000_000, 12_000_000, 50_000)
OWN = TextFacts(1000, 100_000, 300_000, 5_000, 15_000, name="notes", others=(OTHER,))


def mix(*others: OtherFacts) -> TextFacts:
    return replace(OWN, others=others)


def test_a_text_that_is_not_repeated_is_not_mixed_with_others() -> None:
    assert share_out(OWN, 100_000).others[0].share == 0


def test_the_more_a_text_would_be_repeated_the_more_others_get() -> None:
    shares = [share_out(OWN, epochs * 100_000).others[0].share for epochs in (2, 4, 8, 16, 64)]
    assert shares == sorted(shares)
    assert shares[0] == 0
    assert shares[-1] > 0.9


def test_the_first_text_is_read_until_another_epoch_of_it_is_worth_less_than_the_other() -> None:
    # d/ds of the law: exp(1 - epochs) = 0.1, so that the own text is read 1 + ln 10 = 3.3 times.
    shared = share_out(OWN, 2_000_000)
    assert 20 * shared.own_share == pytest.approx(3.3, abs=0.2)


def test_a_text_that_is_worth_nothing_is_left_out() -> None:
    assert share_out(mix(replace(OTHER, worth=0.0)), 6_400_000).others[0].share == 0


def test_shares_are_the_ones_that_a_person_gave() -> None:
    shared = share_out(mix(replace(OTHER, weight=0.3), replace(OTHER, weight=0.2)), 1_000_000)
    assert [one.share for one in shared.others] == [0.3, 0.2]
    assert shared.own_share == pytest.approx(0.5)
    assert shared.epoch_tokens == pytest.approx(200_000, abs=1)


def test_all_of_it_once_is_what_the_text_has() -> None:
    once = replace(OTHER, weight="once", num_train_tokens=40_000)
    assert share_out(mix(once), 1_000_000).others[0].share == 0.04
    assert share_out(mix(once), 50_000).others[0].share == 0.5, "the first text keeps half"


def test_a_small_text_gets_no_more_than_it_can_be_read_with_gain() -> None:
    little = replace(OTHER, weight=0.5, num_train_tokens=10_000, num_train_bytes=30_000)
    share = share_out(mix(little), 1_000_000).others[0].share
    assert 0.01 < share < 0.06


def test_texts_of_free_shares_are_read_equally_often() -> None:
    shared = share_out(mix(OTHER, replace(OTHER, num_train_tokens=1_000_000)), 3_000_000)
    large, small = shared.others
    assert large.share == pytest.approx(4 * small.share, rel=1e-3)
    assert small.share > 0


@given(
    tokens=st.integers(1, 10**9),
    weights=st.lists(st.sampled_from(["auto", "once", 0.2]), min_size=1, max_size=4),
)
def test_the_first_text_keeps_a_share(tokens: int, weights: list[str | float]) -> None:
    others = [replace(OTHER, weight=weight) for weight in weights]
    shared = share_out(mix(*others), tokens)
    assert all(one.share >= 0 for one in shared.others)
    assert shared.own_share >= 1 - MOST_OTHERS - 1e-4


def test_a_plan_without_others_says_nothing_of_shares(make_plan) -> None:
    assert make_plan().texts == []


def test_a_plan_of_several_texts_says_what_each_gets(make_plan, text) -> None:
    other = replace(OTHER, weight=0.3)
    plan: Plan = make_plan(text=replace(text, name="notes", others=(other,)), hours=0.1)
    own, books = plan.texts
    assert (own.name, books.name, books.share) == ("notes", "books", 0.3)
    assert own.tokens == pytest.approx(0.7 * plan.expected_tokens, abs=1)
    assert plan.expected_epochs == pytest.approx(own.epochs, rel=1e-3)
    assert any("notes 70.0%" in reason and "books 30.0%" in reason for reason in plan.reasons)
    assert Plan.model_validate_json(plan.model_dump_json()) == plan


def test_time_that_is_too_long_for_the_first_text_goes_to_the_others(make_plan, text) -> None:
    little = replace(text, num_train_tokens=100_000, num_train_bytes=300_000, name="notes")
    alone: Plan = make_plan(text=little, hours=0.5)
    mixed: Plan = make_plan(text=replace(little, others=(OTHER,)), hours=0.5)
    assert alone.training_seconds < 0.5 * mixed.training_seconds
    assert mixed.texts[0].epochs == pytest.approx(alone.expected_epochs, rel=0.2)
    assert mixed.predicted_bits_per_byte < alone.predicted_bits_per_byte

    useless: Plan = make_plan(text=replace(little, others=(replace(OTHER, worth=0.0),)), hours=0.5)
    assert useless.texts[1].share == 0
    assert useless.expected_epochs == alone.expected_epochs

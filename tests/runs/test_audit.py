"""The sentences about what a model repeats and what it has forgotten."""

from lightlm.runs.audit import (
    NO_TEXT,
    Audit,
    describe_audit,
    describe_general,
    describe_memorization,
)
from lightlm.training.messages import Memorization

REPEATING = Memorization(
    num_prefixes=(200, 40),
    network=(3, 0),
    together=(10, 1),
    longest_copy="that the quick brown fox jumps over a lazy dog",
    sample_characters=1234,
)


def test_what_a_model_repeats_is_told_for_both_splits_and_for_its_samples() -> None:
    of_beginnings, of_samples = describe_memorization(REPEATING, is_private=True)
    assert "1.5% by the network alone, and for 5.0% with its count tables" in of_beginnings
    assert "40 beginnings of held-out documents" in of_beginnings
    assert "0.0% by the network alone, and for 2.5%" in of_beginnings
    assert 'has 46: "that the quick brown fox jumps over a lazy dog"' in of_samples


def test_without_count_tables_held_out_text_and_copies_the_rest_is_told() -> None:
    plain = REPEATING.model_copy(
        update={"num_prefixes": (200, 0), "together": None, "longest_copy": ""}
    )
    of_beginnings, of_samples = describe_memorization(plain, is_private=True)
    assert of_beginnings.endswith("verbatim for 1.5%.")
    assert of_samples == "No 40 bytes in a row of its samples stand in the training text."


def test_what_it_has_forgotten_is_a_change_against_its_base() -> None:
    assert describe_general(2.5, None, "scratch").endswith("2.500 bits per byte.")
    changed = describe_general(1.1, 1.0, "SmolLM2")
    assert changed.endswith("has 1.100 bits per byte; SmolLM2 had 1.000 before training: +10.0%.")


def test_what_others_may_read_says_how_long_a_copy_is_and_not_what_it_says() -> None:
    audit = Audit(memorization=REPEATING, general_bits_per_byte=2.5)
    assert REPEATING.longest_copy in " ".join(describe_audit(audit, "scratch", is_private=True))
    told = " ".join(describe_audit(audit, "scratch"))
    assert "stands in the training text has 46." in told
    assert "quick brown fox" not in told


def test_what_could_not_be_measured_is_told() -> None:
    (told,) = describe_audit(Audit(problem=NO_TEXT), "scratch")
    assert told == f"Not all could be measured: {NO_TEXT}."
    short = REPEATING.model_copy(update={"num_prefixes": (0, 0)})
    assert next(describe_memorization(short, is_private=True)) == (
        "No training document has the 64 tokens that a trial needs."
    )


def test_figures_in_mlflow_are_shares_of_what_was_tried() -> None:
    audit = Audit(memorization=REPEATING, general_bits_per_byte=2.5)
    assert audit.values == {
        "audit/general_bits_per_byte": 2.5,
        "audit/repeated_of_training": 0.05,
        "audit/repeated_of_held_out": 0.025,
        "audit/longest_copy": 46,
    }
    untried = REPEATING.model_copy(update={"num_prefixes": (0, 0), "sample_characters": 0})
    assert Audit(memorization=untried).values == {}

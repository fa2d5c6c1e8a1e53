"""The sentences about what a model repeats and what it has forgotten."""

from lightlm.runs.audit import Audit, describe_general, describe_memorization
from lightlm.training.messages import Memorization

REPEATING = Memorization(
    num_prefixes=(200, 40),
    network=(3, 0),
    together=(10, 1),
    longest_copy="that the quick brown fox jumps over a lazy dog",
    sample_characters=1234,
)


def test_what_a_model_repeats_is_told_for_both_splits_and_for_its_samples() -> None:
    of_beginnings, of_samples = describe_memorization(REPEATING)
    assert "1.5% by the network alone, and for 5.0% with its count tables" in of_beginnings
    assert "40 beginnings of held-out documents" in of_beginnings
    assert "0.0% by the network alone, and for 2.5%" in of_beginnings
    assert 'has 46: "that the quick brown fox jumps over a lazy dog"' in of_samples


def test_without_count_tables_held_out_text_and_copies_the_rest_is_told() -> None:
    plain = REPEATING.model_copy(
        update={"num_prefixes": (200, 0), "together": None, "longest_copy": ""}
    )
    of_beginnings, of_samples = describe_memorization(plain)
    assert of_beginnings.endswith("verbatim for 1.5%.")
    assert of_samples == "No 40 bytes in a row of its samples stand in the training text."


def test_what_it_has_forgotten_is_a_change_against_its_base() -> None:
    assert describe_general(Audit(REPEATING, 2.5), "scratch").endswith("2.500 bits per byte.")
    changed = describe_general(Audit(REPEATING, 1.1, 1.0), "SmolLM2")
    assert changed.endswith("has 1.100 bits per byte; SmolLM2 had 1.000 before training: +10.0%.")

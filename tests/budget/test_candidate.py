import pytest

from lightlm.budget.candidate import Candidate, TextFacts, list_runners_up
from lightlm.budget.scaling import Prediction


def make(model, bits, **change):
    return Candidate(
        model.model_copy(update=change),
        False,
        1000.0,
        10.0,
        Prediction(bits, bits - 0.1, bits + 0.1),
    )


def test_a_token_stands_for_the_training_texts_bytes_over_its_tokens(text):
    assert text.bytes_per_token == pytest.approx(10_800_000 / 3_050_000)
    assert TextFacts(300, 0, 0, 0, 0).bytes_per_token == 0.0


def test_the_tokens_are_speed_times_time(probe):
    assert make(probe.shapes[0].model, 1.7).tokens == 10_000


def test_a_summary_says_the_shape_and_whether_it_is_compiled(probe):
    model = probe.shapes[1].model
    candidate = make(model, 1.7)
    assert candidate.summary() == "3 layers x 192 dims, 3 heads, vocabulary 2,048, context 128"
    compiled = Candidate(model, True, 1.0, 1.0, candidate.prediction)
    assert compiled.summary() == candidate.summary() + ", compiled"


def test_the_runners_up_are_two_that_differ_from_the_best_and_each_other(probe):
    small, middle, large = (timed.model for timed in probe.shapes)
    best = make(small, 1.6)
    nearly = make(small, 1.61, rope_theta=2e4)
    others = [
        nearly,
        make(middle, 1.7),
        make(middle, 1.71, rope_theta=2e4),
        make(large, 1.8),
        make(large, 1.9),
    ]

    listed = list(list_runners_up(best, others))
    assert [one.predicted_bits_per_byte for one in listed] == [1.7, 1.8]
    assert (
        listed[0].summary
        == "3 layers x 192 dims, 3 heads, vocabulary 2,048, context 128, 10,000 tokens"
    )


def test_without_others_there_are_no_runners_up(probe):
    assert list(list_runners_up(make(probe.shapes[0].model, 1.7), [])) == []

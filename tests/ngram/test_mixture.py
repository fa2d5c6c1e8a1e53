"""The counting model and its mixture with a network, on small texts."""

import itertools

import numpy as np
import pytest

from lightlm.ngram.counts import count_grams
from lightlm.ngram.mixture import (
    FOLDER,
    NUM_CONTEXTS,
    NUM_FEATURES,
    Context,
    CountingModel,
    Mixture,
    open_mixture,
    read_counts,
    write_gate,
)
from tests.ngram.test_counts import VOCAB, make_text


@pytest.fixture(scope="module")
def model() -> CountingModel:
    return CountingModel(count_grams(make_text(3000), VOCAB))


def test_the_probabilities_after_any_context_sum_to_one(model: CountingModel) -> None:
    context: Context = ()
    for token in make_text(200, seed=1):
        context = model.advance(context, int(token))
        assert model.predict(context).sum() == pytest.approx(1, abs=1e-5)


def test_a_stream_is_scored_as_token_by_token(model: CountingModel) -> None:
    tokens = make_text(300, seed=2)
    likely, totals, backoffs = model.score(tokens)
    context: Context = ()
    for place, (token, wanted) in enumerate(itertools.pairwise(tokens)):
        context = model.advance(context, int(token))
        assert model.predict(context)[wanted] == pytest.approx(likely[place], rel=1e-4)
        described = model.describe(context)
        np.testing.assert_allclose(described[0], totals[place])
        np.testing.assert_allclose(described[1], backoffs[place], rtol=1e-6)


def test_what_was_counted_costs_less_than_chance(model: CountingModel) -> None:
    likely, _, _ = model.score(make_text(2000, seed=3))
    # Steps of 1, 2 and 5 with probabilities 3/5, 1/5 and 1/5: 0.95 nats; seven ids: 1.95 nats.
    assert 0.93 < -np.log(likely).mean() < 1.05


@pytest.mark.parametrize("num_tokens", [0, 1, 6, 20])
def test_little_text_gives_probabilities_all_the_same(num_tokens: int) -> None:
    model = CountingModel(count_grams(make_text(num_tokens), VOCAB))
    likely, _, _ = model.score(make_text(50, seed=4))
    assert ((likely > 0) & (likely <= 1)).all()


def test_a_share_of_one_leaves_the_logits_of_the_network(model: CountingModel) -> None:
    weights = np.zeros(NUM_FEATURES)
    weights[0] = 60.0
    logits = np.random.default_rng(0).normal(size=(3, VOCAB)).astype(np.float32)
    contexts = [(), model.advance((), 3), model.advance(model.advance((), 3), 4)]
    np.testing.assert_allclose(Mixture(model, weights).mix(logits, contexts), logits, atol=1e-5)


def test_a_share_of_none_gives_the_counts(model: CountingModel) -> None:
    weights = np.zeros(NUM_FEATURES)
    weights[0] = -60.0
    context = Mixture(model, weights).read([1, 2, 3, 4, 5, 6, 0])
    assert len(context) <= NUM_CONTEXTS
    mixed = Mixture(model, weights).mix(np.zeros((1, VOCAB), dtype=np.float32), [context])[0]
    likely = np.exp(mixed - mixed.max())
    np.testing.assert_allclose(likely / likely.sum(), model.predict(context), rtol=1e-4)


def test_tables_are_written_and_read_alike(model: CountingModel, tmp_path) -> None:
    assert open_mixture(tmp_path) is None
    folder = tmp_path / FOLDER
    folder.mkdir()
    model.counts.write(folder)
    write_gate(folder, np.arange(NUM_FEATURES) / 10)
    again = open_mixture(tmp_path)
    assert again is not None
    tokens = make_text(500, seed=5)
    np.testing.assert_array_equal(again.model.score(tokens)[0], model.score(tokens)[0])
    np.testing.assert_array_equal(again.weights, np.arange(NUM_FEATURES) / 10)
    assert read_counts(folder).levels[0].tokens.dtype == np.uint16


def test_tables_that_cannot_be_read_are_refused_with_what_to_do(tmp_path) -> None:
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / "gate.safetensors").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"cannot be read .*model\.ngram=off"):
        open_mixture(tmp_path)

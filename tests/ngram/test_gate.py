"""The gate: it trusts whichever of the two is right where its features show it."""

import numpy as np
import pytest

from lightlm.ngram.gate import fit_gate, mix_nats


def test_a_gate_learns_from_its_features_whom_to_trust() -> None:
    random = np.random.default_rng(0)
    is_counted = random.random(4000) < 0.5
    network = np.where(is_counted, 0.1, 0.8)
    counted = np.where(is_counted, 0.9, 0.2)
    hint = np.where(is_counted, 1.0, -1.0) + random.normal(size=4000) / 2
    features = np.column_stack([np.ones(4000), hint])
    weights = fit_gate(features, network, counted)
    share = 1 / (1 + np.exp(-(features @ weights)))
    assert share[is_counted].mean() < 0.1 < 0.9 < share[~is_counted].mean()
    together = mix_nats(share, network, counted).mean()
    best_alone = min(-np.log(network).mean(), -np.log(counted).mean())
    assert together < best_alone - 0.3


def test_a_gate_of_alike_tokens_finds_the_best_constant_share() -> None:
    network = np.tile([0.5, 0.1], 500)
    counted = np.tile([0.1, 0.2], 500)
    weights = fit_gate(np.ones((1000, 1)), network, counted)
    share = 1 / (1 + np.exp(-weights[0]))
    best = min(
        np.linspace(0.001, 0.999, 999), key=lambda one: mix_nats(one, network, counted).sum()
    )
    assert share == pytest.approx(best, abs=0.01)

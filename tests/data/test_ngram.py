import math
import random

import pytest

from lightlm.data.ngram import TRAIN_BYTES, measure_ngram_bits, score_bytes
from lightlm.data.subset import materialize_subset
from lightlm.params import load_params
from lightlm.store.home import find_home

WORDS = ["river", "stone", "walks", "under", "night", "glass", "ember", "field"]


def write(seed: int, count: int) -> bytes:
    return " ".join(random.Random(seed).choices(WORDS, k=count)).encode()


def test_random_bytes_cost_eight_bits_each_and_what_trusting_chance_costs():
    noise = random.Random(0)
    assert 8.0 < score_bytes(noise.randbytes(200_000), noise.randbytes(20_000)) < 9.5


def test_random_words_cost_what_choosing_them_costs():
    # A word of five letters and a space: three bits for six bytes.
    assert score_bytes(write(0, 40_000), write(1, 2_000)) == pytest.approx(3 / 6, abs=0.02)


def test_another_kind_of_text_costs_more():
    assert score_bytes(write(0, 10_000), write(1, 1_000)[::-1]) > 2 * score_bytes(
        write(0, 10_000), write(1, 1_000)
    )


def test_without_text_nothing_is_known():
    assert score_bytes(b"", b"some") == score_bytes(b"some text", b"") == 8.0


def test_the_probabilities_of_all_bytes_sum_to_one():
    train = write(0, 50)
    context = b"rive"
    total = sum(2 ** -score_bytes(train, context + bytes([byte])) for byte in range(256))
    assert math.isclose(total, 1.0, rel_tol=1e-9)


def test_a_subset_is_sampled_and_scored(tmp_path, monkeypatch):
    monkeypatch.setenv("LIGHTLM_HOME", str(tmp_path / "home"))
    paragraphs = "\n\n".join(write(number, 60).decode() for number in range(3000))
    (tmp_path / "text.txt").write_text(paragraphs, encoding="utf-8")
    subset = materialize_subset(
        find_home(), load_params(dataset=str(tmp_path / "text.txt")).dataset
    )
    bits, size = measure_ngram_bits(subset)
    assert 0.4 < bits < 0.7
    assert TRAIN_BYTES / 2 < size <= TRAIN_BYTES

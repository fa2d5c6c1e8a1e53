import math

import pytest

from lightlm.evaluation.score import DocumentScores, bits_per_byte


def test_uniform_probabilities_of_256_bytes_cost_8_bits_per_byte() -> None:
    assert bits_per_byte(1000 * math.log(256), 1000) == pytest.approx(8.0)


def test_the_score_of_documents_weighs_each_by_its_bytes() -> None:
    documents = DocumentScores(nats=[math.log(2), 3 * math.log(2)], num_bytes=[1, 7])
    assert documents.bits_per_byte == pytest.approx(0.5)

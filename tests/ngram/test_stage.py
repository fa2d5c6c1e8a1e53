"""Count tables of a text: the plan sees what they are worth on held-out text."""

import json
from pathlib import Path

import numpy as np
import pytest

from lightlm.data.shards import TokenShards, tokenize_subset
from lightlm.data.subset import materialize_subset
from lightlm.data.tokenization.tokenizer import prepare_tokenizer
from lightlm.ngram.held_back import read_held_back
from lightlm.ngram.mixture import NUM_CONTEXTS, CountingModel, read_counts
from lightlm.ngram.stage import count_shards
from lightlm.params import load_params


@pytest.fixture
def shards(home: Path) -> TokenShards:
    """Return the shards of documents that repeat a few words of their own."""
    choose = np.random.default_rng(0)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    rows = []
    for _ in range(300):
        words = ["".join(choose.choice(letters, 7)) for _ in range(12)]
        rows.append(json.dumps({"text": " ".join(choose.choice(words, 300))}) + "\n")
    (home / "rows.jsonl").write_text("".join(rows), encoding="utf-8")
    subset = materialize_subset(home, load_params(dataset=str(home / "rows.jsonl")).dataset)
    tokenizer = prepare_tokenizer(home, load_params().tokenizer, subset, [300])
    return tokenize_subset(home, subset, tokenizer)


def score(model: CountingModel, stretches: list[np.ndarray]) -> float:
    return float(
        np.concatenate([-np.log2(model.score(one)[0][NUM_CONTEXTS:]) for one in stretches]).mean()
    )


def test_the_score_that_the_plan_sees_is_that_of_the_held_out_documents(
    home: Path, shards: TokenShards
) -> None:
    counted = count_shards(home, shards, 4_000_000)
    model = CountingModel(read_counts(counted.folder))
    held_out = shards.tokens("validation")
    bytes_per_token = shards.num_validation_bytes / shards.num_validation_tokens
    reached = score(model, [held_out[0 : len(held_out)]]) / bytes_per_token
    assert counted.bits_per_byte == pytest.approx(reached, rel=0.03)
    # So is that of the text the gate is fitted to: of a part of a document, the words would be
    # known from the rest.
    held_back = score(model, read_held_back(shards.tokens("train"))) / bytes_per_token
    assert held_back == pytest.approx(reached, rel=0.03)

"""A tokenizer of 300 entries, and count tables of its text, for the tests of the generation room."""

import json

import numpy as np
import pytest
from tokenizers import Regex, decoders, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as Engine

from lightlm.data.tokenization.tokenizer import Tokenizer, load_tokenizer
from lightlm.ngram.counts import count_grams
from lightlm.ngram.mixture import NUM_FEATURES, CountingModel, Mixture


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    engine = Engine(models.BPE())
    split = pre_tokenizers.Split(Regex(r" ?\w+|\s+|[^\w\s]+"), behavior="isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    engine.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    engine.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )

    engine.train_from_iterator(
        ["the cat sat on the mat and the dog sat there with the other cats"] * 20, trainer
    )
    engine.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")

    return load_tokenizer(folder)


@pytest.fixture(scope="session")
def mixture(tokenizer) -> Mixture:
    """Return count tables of the tokenizer's text, and a gate that trusts either by half."""
    text = "the cat sat on the mat and the dog sat there with the other cats. " * 30
    ids = np.asarray(tokenizer.encode(text), dtype=np.uint16)
    weights = np.zeros(NUM_FEATURES)
    weights[1] = 0.1
    return Mixture(CountingModel(count_grams(ids, tokenizer.vocab_size)), weights)

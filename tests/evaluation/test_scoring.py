import hashlib
import itertools
import json
import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from lightlm.data.shards import TokenShards, tokenize_subset
from lightlm.data.subset import materialize_subset
from lightlm.data.tokenization.tokenizer import Tokenizer, prepare_tokenizer
from lightlm.errors import DatasetError
from lightlm.evaluation import scoring as scoring_module
from lightlm.evaluation.score import bits_per_byte
from lightlm.evaluation.scoring import (
    COUNTING,
    NETWORK,
    TOGETHER,
    evaluate_shards,
    evaluate_text,
    score_documents,
    score_mixture,
    score_texts,
    score_tokens,
    select_together,
    summarize_documents,
)
from lightlm.model.accounting import flops_per_token
from lightlm.model.config import ModelConfig
from lightlm.model.transformer import Transformer
from lightlm.ngram.counts import count_grams
from lightlm.ngram.mixture import NUM_FEATURES, CountingModel, Mixture
from lightlm.params import load_params
from lightlm.store.home import find_home

DOCUMENTS = [
    f"Document {n}: na\u00efve caf\u00e9 \U0001f600, {'more words ' * (n % 7)}the end."
    for n in range(60)
]


@pytest.fixture(scope="module")
def held_out(tmp_path_factory) -> tuple[TokenShards, Tokenizer]:
    folder = tmp_path_factory.mktemp("evaluation")
    rows = "".join(json.dumps({"text": document}) + "\n" for document in DOCUMENTS)
    (folder / "documents.jsonl").write_text(rows, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LIGHTLM_HOME", str(folder / "home"))
        changes = {"dataset.validation_fraction": 0.3}
        params = load_params(overrides=changes, dataset=str(folder / "documents.jsonl"))
        subset = materialize_subset(find_home(), params.dataset)
        tokenizer = prepare_tokenizer(find_home(), params.tokenizer, subset, [300])
        return tokenize_subset(find_home(), subset, tokenizer), tokenizer


@pytest.fixture
def model(held_out) -> Transformer:
    config = ModelConfig(
        vocab_size=held_out[1].vocab_size,
        num_layers=1,
        model_dim=32,
        num_heads=2,
        num_kv_heads=2,
        head_dim=16,
        ffn_dim=48,
        context_length=16,
    )

    built = Transformer(config)
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in built.parameters():
            weight.copy_(torch.randn(weight.shape, generator=draw) * 0.2)

    return built


def make_uniform(model: Transformer) -> Transformer:
    with torch.no_grad():
        model.unembedding.zero_()
    return model


def stop_after(calls: int):
    answers = itertools.chain([False] * calls, itertools.repeat(True))
    return lambda: next(answers)


def test_uniform_logits_cost_the_logarithm_of_the_vocabulary_a_token(model, held_out):
    shards, tokenizer = held_out
    score = evaluate_shards(make_uniform(model), shards)
    assert score.nats_per_token == pytest.approx(math.log(tokenizer.vocab_size), rel=1e-5)
    wanted = (
        math.log2(tokenizer.vocab_size)
        * (shards.num_validation_tokens - 1)
        / shards.num_validation_bytes
    )
    assert score.bits_per_byte == pytest.approx(wanted, rel=1e-5)


def test_the_whole_score_is_over_the_bytes_of_the_raw_text(model, held_out):
    shards, _ = held_out
    score = evaluate_shards(model, shards)
    text = shards.validation_text()
    assert score.is_whole
    assert score.num_bytes == len(text) > len(text.decode())
    assert score.text_sha256 == hashlib.sha256(text).hexdigest() == shards.validation_sha256
    assert score.num_documents == shards.num_validation_documents
    assert score.num_tokens == shards.num_validation_tokens - 1


def test_bits_per_byte_counted_token_by_token_are_those_of_the_score(model, held_out):
    shards, _ = held_out
    tokens = torch.from_numpy(shards.tokens("validation")[:].astype(np.int64))
    bits = 0.0
    with torch.no_grad():
        for index in range(1, len(tokens)):
            start = (index - 1) // 16 * 16
            logits = model(tokens[None, start:index])[0, -1]
            bits -= float(logits.double().log_softmax(-1)[tokens[index]]) / math.log(2)
    assert evaluate_shards(model, shards).bits_per_byte == pytest.approx(
        bits / len(shards.validation_text()), rel=1e-5
    )


@pytest.mark.parametrize("batch_tokens", [1, 16, 48, 10_000])
def test_the_nats_do_not_depend_on_the_batch(model, held_out, batch_tokens):
    tokens = held_out[0].tokens("validation")
    nats = score_tokens(model, tokens, batch_tokens=batch_tokens)
    assert nats.dtype == np.float32
    assert len(nats) == len(tokens) - 1
    np.testing.assert_allclose(nats, score_tokens(model, tokens[:]), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("length", [0, 1, 2, 16, 17, 18, 33])
def test_each_token_but_the_first_is_predicted_once(model, length):
    nats = score_tokens(model, np.arange(length, dtype=np.uint16))
    assert len(nats) == max(0, length - 1)
    if length > 1:
        logits = model(torch.arange(min(length - 1, 16))[None])[0]
        wanted = functional.cross_entropy(
            logits, torch.arange(1, len(logits) + 1), reduction="none"
        )
        np.testing.assert_allclose(nats[:16], wanted.detach().numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("training", [True, False])
def test_scoring_leaves_mode_and_gradients_as_they_were(model, training):
    model.train(training)
    score_tokens(model, np.arange(40, dtype=np.uint16))
    assert model.training == training
    assert all(weight.grad is None and not weight.is_inference() for weight in model.parameters())
    model.compute_loss(torch.zeros(1, 4).long(), torch.ones(1, 4).long())[0].backward()


def test_a_limit_of_bytes_cuts_after_the_last_complete_document(model, held_out):
    shards, _ = held_out
    ends = shards.validation_offsets()[1:, 1].astype(int)
    score = evaluate_shards(model, shards, max_bytes=int(ends[3]) + 1)
    assert (score.num_documents, score.num_bytes, score.is_whole) == (4, ends[3], False)
    assert score.text_sha256 == hashlib.sha256(shards.validation_text(4)).hexdigest()
    assert evaluate_shards(model, shards, max_bytes=int(ends[3])) == score
    assert evaluate_shards(model, shards, max_bytes=1).num_documents == 1


def test_asked_to_stop_the_score_is_that_of_the_documents_read_to_their_end(model, held_out):
    shards, _ = held_out
    stopped = evaluate_shards(model, shards, batch_tokens=16, should_stop=stop_after(10))
    ends = shards.validation_offsets()[1:, 0].astype(int)
    assert stopped.num_documents == np.searchsorted(ends, 161, side="right") > 1
    limit = int(shards.validation_offsets()[stopped.num_documents, 1])
    limited = evaluate_shards(model, shards, max_bytes=limit)
    assert limited.bits_per_byte == pytest.approx(stopped.bits_per_byte, rel=1e-6)
    assert limited.text_sha256 == stopped.text_sha256


def test_a_model_that_is_slow_is_asked_to_stop_more_often(model, held_out, monkeypatch):
    stream = np.arange(2000) % 300
    calls = []
    should_stop = lambda: bool(calls.append(1))  # noqa: E731
    score_tokens(model, stream, should_stop=should_stop)
    at_once = len(calls)
    cost = flops_per_token(model.config, training=False)
    monkeypatch.setattr(scoring_module, "BATCH_FLOPS", 5 * model.config.context_length * cost)
    score_tokens(model, stream, should_stop=should_stop)
    assert len(calls) - at_once >= 2000 / (5 * model.config.context_length) > at_once


@pytest.mark.parametrize("calls", [0, 1])
def test_asked_to_stop_at_once_one_document_is_scored_all_the_same(model, held_out, calls):
    shards, _ = held_out
    score = evaluate_shards(model, shards, batch_tokens=16, should_stop=stop_after(calls))
    whole = evaluate_shards(model, shards, max_bytes=1)
    assert score.num_documents == 1
    assert score.bits_per_byte == pytest.approx(whole.bits_per_byte, rel=1e-6)


def test_the_documents_nats_and_bytes_add_up_to_the_score(model, held_out):
    shards, _ = held_out
    nats, num_bytes = score_documents(model, shards)
    score = evaluate_shards(model, shards)
    assert len(nats) == len(num_bytes) == shards.num_validation_documents
    assert bits_per_byte(nats.sum(), num_bytes.sum()) == pytest.approx(
        score.bits_per_byte, rel=1e-9
    )

    assert (nats > 0).all()
    offsets = shards.validation_offsets().astype(int)
    third = score_tokens(model, shards.tokens("validation"))[offsets[2, 0] - 1 : offsets[3, 0] - 1]
    assert nats[2] == pytest.approx(third.sum(), rel=1e-5)
    assert num_bytes[2] == len(shards.validation_text(3)) - len(shards.validation_text(2))


def test_a_text_is_scored_after_an_end_of_text_token(model, held_out):
    _, tokenizer = held_out
    text = DOCUMENTS[5].encode()
    ids = np.array([tokenizer.end_of_text_id, *tokenizer.encode(DOCUMENTS[5])])
    score = evaluate_text(model, tokenizer, [text])
    assert score.bits_per_byte == pytest.approx(
        bits_per_byte(score_tokens(model, ids).sum(), len(text)), rel=1e-6
    )
    assert score.num_tokens == len(ids) - 1
    assert score.text_sha256 == hashlib.sha256(text).hexdigest()


@pytest.mark.parametrize(
    "text", [b"a", b"<|endoftext|>", b"\x00\r\n\t", "\u4e2d\u6587\U0001f600".encode()]
)
def test_special_and_odd_texts_are_charged_for_every_byte(model, held_out, text):
    _, tokenizer = held_out
    score = evaluate_text(make_uniform(model), tokenizer, [text])
    assert score.num_bytes == len(text)
    assert score.num_tokens == len(tokenizer.encode(text.decode()))
    assert score.bits_per_byte >= math.log2(tokenizer.vocab_size) / len(text) * 0.999


def test_an_empty_text_is_refused(model, held_out):
    with pytest.raises(DatasetError, match="empty"):
        evaluate_text(model, held_out[1], [])


def test_documents_are_scored_with_an_end_of_text_token_between_them(model, held_out):
    _, tokenizer = held_out
    texts = [text.encode() for text in DOCUMENTS[5:8]]
    ids = [tokenizer.end_of_text_id]
    for text in DOCUMENTS[5:8]:
        ids += [*tokenizer.encode(text), tokenizer.end_of_text_id]
    score = evaluate_text(model, tokenizer, texts)
    assert score.num_documents == 3
    assert score.num_tokens == len(ids) - 2
    nats = score_tokens(model, np.array(ids[:-1])).sum()
    assert score.bits_per_byte == pytest.approx(bits_per_byte(nats, sum(map(len, texts))), rel=1e-6)


@pytest.mark.parametrize("is_ended", [True, False])
def test_documents_given_as_texts_cost_what_they_cost_in_token_shards(model, held_out, is_ended):
    shards, tokenizer = held_out
    offsets = shards.validation_offsets()
    text = shards.validation_text()
    documents = [text[start:end] for start, end in itertools.pairwise(offsets[:, 1].tolist())]
    nats, num_bytes = score_texts(
        model, tokenizer, documents, ends=np.full(len(documents), is_ended)
    )

    wanted, sizes = score_documents(model, shards)
    assert num_bytes.tolist() == sizes.tolist() == [len(document) for document in documents]
    if not is_ended:
        assert nats.sum() < wanted.sum(), "no separators are paid for"
    else:
        assert nats == pytest.approx(wanted, rel=1e-5)
        assert summarize_documents(shards, nats).bits_per_byte == pytest.approx(
            evaluate_shards(model, shards).bits_per_byte, rel=1e-6
        )


def test_texts_are_scored_as_far_as_time_allows(model, held_out):
    shards, tokenizer = held_out
    offsets = shards.validation_offsets()
    text = shards.validation_text()
    documents = [text[start:end] for start, end in itertools.pairwise(offsets[:, 1].tolist())]
    nats, num_bytes = score_texts(
        model,
        tokenizer,
        documents,
        ends=np.ones(len(documents), np.bool_),
        batch_tokens=64,
        should_stop=stop_after(3),
    )

    assert 1 <= len(nats) == len(num_bytes) < len(documents)


def test_a_score_for_which_memory_is_short_reads_fewer_windows_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = ModelConfig(
        vocab_size=300, num_layers=1, model_dim=16, num_heads=2, num_kv_heads=2, head_dim=8, ffn_dim=32,
        context_length=8,
    )  # fmt: skip
    model = Transformer(config)
    model.initialize(0)
    tokens = np.arange(1, 260, dtype=np.int64)
    whole = score_tokens(model, tokens)
    forward = model.forward
    sizes = []

    def short_of_memory(ids: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        sizes.append(len(ids))
        if len(ids) > most:
            raise RuntimeError("could not create a primitive")
        return forward(ids, targets)

    monkeypatch.setattr(model, "forward", short_of_memory)
    most = 3
    np.testing.assert_allclose(score_tokens(model, tokens), whole, rtol=1e-5)
    assert sizes[:5] == [32, 16, 8, 4, 2]
    assert set(sizes[5:-1]) == {2}
    most = 0
    with pytest.raises(RuntimeError, match="primitive"):
        score_tokens(model, tokens)


def test_network_and_counts_are_scored_together_and_alone(model, held_out, monkeypatch):
    monkeypatch.setattr(scoring_module, "MIXED_TOKENS", 100)  # several looks at the counts
    shards, tokenizer = held_out
    tokens = shards.tokens("validation")[0:400]
    weights = np.zeros(NUM_FEATURES)
    weights[:3] = -0.5, 0.3, 0.2
    counting = CountingModel(count_grams(shards.tokens("train")[0:5000], tokenizer.vocab_size))
    mixture = Mixture(counting, weights)
    nats = score_mixture(model, mixture, tokens, batch_tokens=64)
    np.testing.assert_allclose(nats[:, NETWORK], score_tokens(model, tokens), rtol=1e-5)
    np.testing.assert_allclose(nats[:, COUNTING], -np.log(counting.score(tokens)[0]))

    length = model.config.context_length
    ids = torch.from_numpy(tokens[: length + 1].astype(np.int64))
    with torch.no_grad():
        logits = model(ids[None, :-1])[0].numpy()
    contexts = [mixture.read(ids[: place + 1].tolist()) for place in range(length)]
    mixed = torch.from_numpy(mixture.mix(logits, contexts)).log_softmax(-1)
    wanted = -mixed.gather(1, ids[1:, None])[:, 0]
    np.testing.assert_allclose(nats[:length, TOGETHER], wanted, rtol=1e-4)


def test_the_score_of_documents_with_counts_names_all_three(model, held_out):
    shards, tokenizer = held_out
    counting = CountingModel(count_grams(shards.tokens("train")[0:5000], tokenizer.vocab_size))
    mixture = Mixture(counting, np.zeros(NUM_FEATURES))
    nats, _ = score_documents(model, shards, mixture=mixture)
    score = summarize_documents(shards, nats)
    alone = evaluate_shards(model, shards)
    assert score.network_bits_per_byte == pytest.approx(alone.bits_per_byte, rel=1e-5)
    assert alone.network_alone == alone.bits_per_byte
    assert score.counting_bits_per_byte is not None
    assert score.bits_per_byte < max(score.network_alone, score.counting_bits_per_byte)
    assert select_together(nats).sum() == pytest.approx(nats[:, TOGETHER].sum())

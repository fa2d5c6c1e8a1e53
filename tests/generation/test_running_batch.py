"""Texts that join and leave a batch are those that each would be alone."""

import random

import pytest
import torch

from lightlm.data.tokenization.tokenizer import Tokenizer
from lightlm.generation.mixing import mix_logits
from lightlm.generation.running_batch import BatchedText, RunningBatch, Token
from lightlm.generation.sampling import SamplingConfig
from lightlm.generation.text import Generator
from lightlm.model.config import ModelConfig
from lightlm.model.packed import halve_model
from lightlm.model.transformer import Transformer
from lightlm.ngram.mixture import Mixture

SAMPLING = SamplingConfig(
    max_new_tokens=20, temperature=1.0, top_k=50, top_p=0.95, repetition_penalty=1.0, seed=3
)
PROMPTS = ("The", "a cat sat on the mat and looked at the other cats", "1", "mat mat")


def build_model(tokenizer: Tokenizer, context_length: int = 64, **shape: int) -> Transformer:
    config = ModelConfig(
        vocab_size=tokenizer.vocab_size,
        num_layers=2, model_dim=32, num_heads=4, num_kv_heads=2, head_dim=8, ffn_dim=64,
        context_length=context_length, **shape,
    )  # fmt: skip
    model = Transformer(config)
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.copy_(torch.randn(weight.shape, generator=draw) * 0.4)
    return model.eval()


def make_text(tokenizer: Tokenizer, prompt: str, **change: object) -> BatchedText:
    return BatchedText(tokenizer.encode(prompt), SAMPLING.model_copy(update=change))


def run(batch: RunningBatch, arrivals: list[list[BatchedText]]) -> dict[BatchedText, list[Token]]:
    """Write texts, some of which join at each step; return their tokens."""
    tokens: dict[BatchedText, list[Token]] = {text: [] for group in arrivals for text in group}
    pending = list(arrivals)
    while pending or batch.texts:
        written = batch.step()
        if pending:
            written = [*written, *batch.join(pending.pop(0))]
        for text, token in written:
            tokens[text].append(token)
    return tokens


def write_alone(
    model: Transformer, tokenizer: Tokenizer, text: BatchedText, mixture: Mixture | None = None
) -> list[int]:
    """Return the ids that `lightlm generate` writes with the weights of the batch."""
    generator = Generator(model, tokenizer, mixture)
    generator._halved = generator.model
    ids = []
    for row in generator.choose_ids([text.prompt], text.sampling):
        ids.append(row[0])
        if row[0] == tokenizer.end_of_text_id:
            break
    return ids


@pytest.mark.parametrize("seed", range(4))
def test_a_text_is_the_same_alone_and_among_others_that_come_and_go(
    tokenizer: Tokenizer, seed: int
) -> None:
    choose = random.Random(seed)
    model = build_model(tokenizer, context_length=48)
    batch = RunningBatch(model, tokenizer, max_rows=64)
    arrivals = []
    for _ in range(12):
        group = []
        for _ in range(choose.randrange(3)):
            change: dict[str, object] = {"seed": choose.randrange(9)}
            change["max_new_tokens"] = choose.choice([1, 5, 30, 90])
            change["temperature"] = choose.choice([0.0, 0.7, 1.0])
            change["repetition_penalty"] = choose.choice([1.0, 1.3])
            group.append(make_text(tokenizer, choose.choice(PROMPTS), **change))
        arrivals.append(group)

    tokens = run(batch, arrivals)
    weights = halve_model(model) if batch.is_half else model
    for text, written in tokens.items():
        assert [token.token_id for token in written] == write_alone(weights, tokenizer, text)
        assert written[-1].finish_reason is not None
        assert all(token.finish_reason is None for token in written[:-1])
    assert batch.num_free_rows == 64


def test_a_mixture_of_experts_is_served_by_the_model_itself(tokenizer: Tokenizer) -> None:
    model = build_model(tokenizer, num_experts=4, num_active_experts=2, expert_ffn_dim=16)
    batch = RunningBatch(model, tokenizer)
    texts = [make_text(tokenizer, prompt, seed=seed) for seed, prompt in enumerate(PROMPTS)]
    for text, written in run(batch, [texts[:2], [], texts[2:]]).items():
        assert [token.token_id for token in written] == write_alone(model, tokenizer, text)


def test_a_model_in_bfloat16_is_served_in_it(tokenizer: Tokenizer) -> None:
    model = build_model(tokenizer)
    model.compute_dtype = torch.bfloat16
    batch = RunningBatch(model, tokenizer)
    assert batch.model.embedding.dtype in (torch.bfloat16, torch.float32)
    texts = [make_text(tokenizer, prompt) for prompt in PROMPTS]
    for written in run(batch, [texts[:2], [], texts[2:]]).values():
        assert written[-1].finish_reason is not None


def test_a_text_beyond_the_context_is_read_again_while_others_go_on(tokenizer: Tokenizer) -> None:
    model = build_model(tokenizer, context_length=16)
    batch = RunningBatch(model, tokenizer)
    long = make_text(tokenizer, "the cat", max_new_tokens=100)
    short = make_text(tokenizer, "1", max_new_tokens=40)
    tokens = run(batch, [[long], [], [], [], [short]])
    weights = halve_model(model) if batch.is_half else model
    for text in (long, short):
        assert [t.token_id for t in tokens[text]] == write_alone(weights, tokenizer, text)


def test_a_text_that_leaves_early_changes_no_other(tokenizer: Tokenizer) -> None:
    batch = RunningBatch(build_model(tokenizer), tokenizer)
    texts = [make_text(tokenizer, prompt, seed=seed) for seed, prompt in enumerate(PROMPTS)]
    expected = run(batch, [texts])
    again = [make_text(tokenizer, prompt, seed=seed) for seed, prompt in enumerate(PROMPTS)]
    tokens: dict[BatchedText, list[Token]] = {text: [] for text in again}
    for text, token in batch.join(again):
        tokens[text].append(token)
    batch.leave(again[0])
    batch.leave(again[0])
    while batch.texts:
        for text, token in batch.step():
            tokens[text].append(token)
    for text, twin in list(zip(again, texts, strict=True))[1:]:
        assert tokens[text] == expected[twin]
    assert len(tokens[again[0]]) == 1


def test_scores_are_the_logarithms_of_the_models_probabilities(tokenizer: Tokenizer) -> None:
    model = build_model(tokenizer)
    batch = RunningBatch(model, tokenizer)
    text = make_text(tokenizer, PROMPTS[1], max_new_tokens=6)
    text.num_alternatives = 3
    text.is_prompt_scored = True
    written = run(batch, [[make_text(tokenizer, "1")], [text]])[text]

    ids = [*text.prompt, *(token.token_id or 0 for token in written)]
    weights = halve_model(model) if batch.is_half else model
    with torch.no_grad():
        expected = weights(torch.tensor([ids]))[0].log_softmax(-1)
    scores = [*written[0].prompt, *(token.score for token in written)]
    assert scores[0].logprob is None
    assert [score.token_id for score in scores] == ids
    for place, score in enumerate(scores[1:]):
        assert score.logprob == pytest.approx(float(expected[place, score.token_id]), abs=1e-4)
        best = [index for index, _ in score.alternatives]
        assert best == expected[place].topk(3).indices.tolist()
    assert all(token.prompt == () for token in written[1:])


def test_a_prompt_can_be_scored_and_not_continued(tokenizer: Tokenizer) -> None:
    batch = RunningBatch(build_model(tokenizer), tokenizer)
    text = make_text(tokenizer, PROMPTS[1])
    text.num_alternatives = 0
    text.is_prompt_scored = True
    text.is_continued = False
    ((_, token),) = batch.join([text])
    assert (token.token_id, token.piece, token.finish_reason) == (None, "", "length")
    assert [score.token_id for score in token.prompt] == text.prompt
    assert batch.texts == []


def test_an_id_of_the_request_ends_a_text(tokenizer: Tokenizer) -> None:
    batch = RunningBatch(build_model(tokenizer), tokenizer)
    plain = make_text(tokenizer, "The")
    ids = [token.token_id for token in run(batch, [[plain]])[plain]]
    ended = make_text(tokenizer, "The")
    ended.end_ids = frozenset({ids[4]})
    written = run(batch, [[ended]])[ended]
    assert len(written) == ids.index(ids[4]) + 1
    assert written[-1].finish_reason == "end_of_text"


def test_texts_with_count_tables_are_those_that_each_would_be_alone(
    tokenizer: Tokenizer, mixture: Mixture
) -> None:
    model = build_model(tokenizer)
    batch = RunningBatch(model, tokenizer, mixture=mixture)
    texts = [make_text(tokenizer, prompt, seed=place) for place, prompt in enumerate(PROMPTS)]
    texts[1].num_alternatives = 0
    texts[1].is_prompt_scored = True
    written = run(batch, [texts[:2], texts[2:]])
    for text in texts:
        ids = [token.token_id for token in written[text]]
        assert ids == write_alone(batch.model, tokenizer, text, mixture)
    scored = written[texts[1]][0].prompt
    assert len(scored) == len(texts[1].prompt)
    with torch.no_grad():
        logits = batch.model(torch.tensor([texts[1].prompt]))[0]
    mixed = mix_logits(mixture, logits, mixture.read_all(texts[1].prompt)).log_softmax(-1)
    for place, score in enumerate(scored[1:]):
        assert score.logprob == pytest.approx(float(mixed[place, score.token_id]), abs=1e-3)

import codecs

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from lightlm.data.tokenization.tokenizer import Tokenizer
from lightlm.errors import PromptError
from lightlm.generation.drafting import GreedyDrafter
from lightlm.generation.sampling import SamplingConfig, check_sampling, choose_tokens
from lightlm.generation.text import (
    LEAST_HALF_TOKENS,
    MAX_ROWS,
    Generator,
    TextWriter,
    load_generator,
)
from lightlm.model.config import ModelConfig
from lightlm.model.hugging_face import export_model
from lightlm.model.packed import (
    PackedStepper,
    store_in_compute_dtype,
)
from lightlm.model.packed_products import MANY_ROWS, is_half_available, serves_fewer_rows
from lightlm.model.transformer import Transformer
from lightlm.ngram.mixture import Mixture
from lightlm.params import load_params

GREEDY = SamplingConfig(
    max_new_tokens=20, temperature=0, top_k=0, top_p=1.0, repetition_penalty=1.0, seed=None
)
SAMPLED = GREEDY.model_copy(update={"temperature": 1.0, "top_k": 50, "top_p": 0.95, "seed": 7})
PROMPTS = ["The", "a cat sat on the mat", "1", "caf\u00e9 \U0001f600"]


def can_check_drafts() -> bool:
    return is_half_available() and serves_fewer_rows(torch.float32)


@pytest.fixture
def build(tokenizer):
    def build_model(context_length: int = 128, vocab_size: int | None = None) -> Transformer:
        config = ModelConfig(
            vocab_size=vocab_size or tokenizer.vocab_size,
            num_layers=2,
            model_dim=32,
            num_heads=4,
            num_kv_heads=2,
            head_dim=8,
            ffn_dim=48,
            context_length=context_length,
        )

        model = Transformer(config)
        draw = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for weight in model.parameters():
                weight.copy_(torch.randn(weight.shape, generator=draw) * 0.5)
            model.unembedding[tokenizer.end_of_text_id] = 0.0

        return model.eval()

    return build_model


def write_greedily(model: Transformer, ids: list[int], count: int, num_ids: int) -> list[int]:
    """Choose each token from a pass over the whole window, without a cache; half of it is kept when
    it is full.
    """
    window = list(ids)
    chosen = []
    with torch.no_grad():
        for _ in range(count):
            if len(window) > model.config.context_length:
                window = window[-(model.config.context_length // 2) :]
            chosen.append(int(model(torch.tensor([window]))[0, -1, :num_ids].argmax()))
            window.append(chosen[-1])
    return chosen


def choose(
    model: Transformer, tokenizer: Tokenizer, ids: list[int], sampling: SamplingConfig
) -> list[int]:
    return [row[0] for row in Generator(model, tokenizer).choose_ids([ids], sampling)]


@pytest.mark.parametrize(
    "length", [20, LEAST_HALF_TOKENS + 10], ids=["short", "long enough to be drafted"]
)
def test_greedy_text_is_that_of_transformers(build, tokenizer, tmp_path, length):
    sampling = GREEDY.model_copy(update={"max_new_tokens": length})
    export_model(build(), tokenizer.folder, tmp_path)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path)
    their_tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    generator = load_generator(tmp_path)

    for prompt in PROMPTS:
        ids = their_tokenizer(prompt)["input_ids"]
        written = theirs.generate(torch.tensor([ids]), do_sample=False, max_new_tokens=length)[
            0, len(ids) :
        ].tolist()
        assert choose(generator.model, tokenizer, tokenizer.encode(prompt), sampling) == written
        assert generator.generate([prompt], sampling)[0].text == codecs.getincrementaldecoder(
            "utf-8"
        )("replace").decode(tokenizer.decode_bytes(written))


@pytest.mark.parametrize("penalty", [0.5, 1.3])
def test_a_repetition_penalty_acts_as_in_transformers(build, tokenizer, tmp_path, penalty):
    export_model(build(), tokenizer.folder, tmp_path)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path)
    ids = tokenizer.encode(PROMPTS[1])
    wanted = theirs.generate(
        torch.tensor([ids]), do_sample=False, max_new_tokens=20, repetition_penalty=penalty
    )[0, len(ids) :].tolist()
    assert (
        choose(build(), tokenizer, ids, GREEDY.model_copy(update={"repetition_penalty": penalty}))
        == wanted
    )


def test_cached_tokens_are_the_uncached_ones(build, tokenizer):
    model = build()
    ids = tokenizer.encode(PROMPTS[1])
    greedy = GREEDY.model_copy(update={"max_new_tokens": LEAST_HALF_TOKENS + 20})
    assert choose(model, tokenizer, ids, greedy) == write_greedily(
        model, ids, 84, tokenizer.vocab_size
    )


@pytest.mark.parametrize("sampling", [GREEDY, SAMPLED], ids=["greedy", "sampled with a seed"])
@pytest.mark.parametrize(
    "context_length", [128, 16], ids=["within the context", "beyond the context"]
)
def test_each_prompt_of_a_batch_gets_what_it_gets_alone(build, tokenizer, sampling, context_length):
    generator = Generator(build(context_length), tokenizer)
    sampling = sampling.model_copy(update={"max_new_tokens": LEAST_HALF_TOKENS})
    together = generator.generate(PROMPTS, sampling)
    alone = [generator.generate([prompt], sampling)[0] for prompt in PROMPTS]
    assert [one.text for one in together] == [one.text for one in alone]
    assert [one.num_new_tokens for one in together] == [one.num_new_tokens for one in alone]


def test_more_prompts_than_are_computed_together_come_back_in_order(build, tokenizer):
    generator = Generator(build(), tokenizer)
    sampling = GREEDY.model_copy(update={"max_new_tokens": 2})
    prompts = [PROMPTS[index % 4] for index in range(MAX_ROWS + 3)]
    texts = [one.text for one in generator.generate(prompts, sampling)]
    assert texts == [texts[index % 4] for index in range(MAX_ROWS + 3)]
    assert len(set(texts)) == 4
    assert generator.generate([], sampling) == []


def test_beyond_the_context_the_newer_half_of_the_text_is_read(build, tokenizer):
    model = build(context_length=16)
    ids = tokenizer.encode("a cat sat")
    longer = GREEDY.model_copy(update={"max_new_tokens": 60})
    assert choose(model, tokenizer, ids, longer) == write_greedily(
        model, ids, 60, tokenizer.vocab_size
    )


def test_a_stream_is_the_text_in_pieces(build, tokenizer):
    generator = Generator(build(), tokenizer)
    for sampling in (GREEDY, SAMPLED):
        pieces = list(generator.stream(PROMPTS[1], sampling))
        assert len(pieces) > 1
        assert "".join(pieces) == generator.generate([PROMPTS[1]], sampling)[0].text


def test_between_two_pieces_of_a_stream_gradients_may_be_computed(build, tokenizer):
    model = build()
    stream = Generator(model, tokenizer).stream("The", GREEDY)
    next(stream)
    assert not torch.is_inference_mode_enabled()
    tokens = torch.zeros(1, 4, dtype=torch.int64)
    model.compute_loss(tokens, tokens)[0].backward()
    assert model.embedding.grad is not None


@pytest.mark.parametrize("training", [True, False])
def test_writing_leaves_the_mode_as_it_was(build, tokenizer, training):
    model = build().train(training)
    Generator(model, tokenizer).generate(["The"], GREEDY)
    assert model.training == training


def test_the_same_seed_writes_the_same_text_and_another_another(build, tokenizer):
    generator = Generator(build(), tokenizer)
    sampling = SAMPLED.model_copy(update={"max_new_tokens": 60})
    one, same = (generator.generate(["The"], sampling)[0].text for _ in range(2))
    other = generator.generate(["The"], sampling.model_copy(update={"seed": 8}))[0].text
    assert one == same != other


def test_without_a_seed_the_prompts_of_a_batch_are_sampled_independently(build, tokenizer):
    sampling = SAMPLED.model_copy(
        update={"seed": None, "max_new_tokens": 40, "top_k": 0, "top_p": 1.0}
    )
    texts = [one.text for one in Generator(build(), tokenizer).generate(["The"] * 4, sampling)]
    assert len(set(texts)) == 4


@pytest.mark.skipif(not is_half_available(), reason="this build of torch has no FBGEMM")
def test_only_what_chance_chooses_is_computed_by_weights_in_fp16(build, tokenizer):
    generator = Generator(build(), tokenizer)
    longer = {"max_new_tokens": LEAST_HALF_TOKENS}
    for sampling, in_half in (
        (SAMPLED, False),
        (GREEDY, False),
        (SAMPLED.model_copy(update=longer), True),
    ):
        generator.generate(["The", "a cat"], sampling)
        assert [key[1] for key in generator._steppers] == [in_half]

    packed = dict(generator._steppers)
    generator.generate(["The"], SAMPLED.model_copy(update=longer))
    assert generator._steppers == packed
    generator.generate(["The", "a cat"], GREEDY.model_copy(update=longer))
    assert [key[1] for key in generator._steppers] == [False]


@pytest.mark.skipif(
    not can_check_drafts(), reason="this build of torch lacks FBGEMM, or oneDNN's packing"
)
@pytest.mark.parametrize(
    "context_length", [128, 24], ids=["within the context", "beyond the context"]
)
def test_whoever_drafts_the_text_is_the_models_own(build, tokenizer, context_length, monkeypatch):
    model = build(context_length)
    other = build(context_length)
    with torch.no_grad():
        for name, weight in other.named_parameters():
            weight.mul_(1.0 if name == "embedding" else 0.8)

    generator = Generator(model, tokenizer)
    proposed = []
    check = PackedStepper(model, MANY_ROWS)
    generator._drafter = GreedyDrafter(PackedStepper(other, 1), check, tokenizer.vocab_size)
    read = check.read
    monkeypatch.setattr(
        check,
        "read",
        lambda tokens, cache: (proposed.append(tokens.shape[1]), read(tokens, cache))[1],
    )

    ids = tokenizer.encode(PROMPTS[1])
    sampling = GREEDY.model_copy(update={"max_new_tokens": 2 * LEAST_HALF_TOKENS})
    written = [row[0] for row in generator.choose_ids([ids], sampling)]
    assert written == write_greedily(model, ids, 2 * LEAST_HALF_TOKENS, tokenizer.vocab_size)
    assert sum(proposed) > len(written)  # some drafts were wrong and thrown away
    assert len(proposed) < len(written)  # and some were right


def test_in_bfloat16_the_weights_are_kept_so_and_the_text_is_the_models(build, tokenizer):
    model = build()
    model.compute_dtype = torch.bfloat16
    stored = store_in_compute_dtype(model)
    assert {weight.dtype for weight in stored.parameters()} == {torch.bfloat16}
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    tokens = torch.arange(40).view(2, 20)
    with torch.no_grad():
        torch.testing.assert_close(stored(tokens), model(tokens))
    assert Generator(model, tokenizer).generate(["The"], GREEDY)[0].num_new_tokens == 20


def test_a_model_in_fp32_is_not_copied(build, tokenizer):
    model = build()
    assert Generator(model, tokenizer).model is model


def test_ids_that_stand_for_no_text_are_never_chosen(build, tokenizer):
    model = build(vocab_size=tokenizer.vocab_size + 20)
    with torch.no_grad():
        model.unembedding[tokenizer.vocab_size :] *= 100
    assert max(choose(model, tokenizer, [5, 6], GREEDY)) < tokenizer.vocab_size


def test_it_ends_at_the_end_of_text(build, tokenizer):
    model = build()
    with torch.no_grad():
        model.unembedding.zero_()
    # All logits are equal: the lowest id wins, which is the end-of-text token.
    assert tokenizer.end_of_text_id == 0
    written = Generator(model, tokenizer).generate(["The"], GREEDY)[0]
    assert (written.text, written.num_new_tokens, written.finish_reason) == ("", 1, "end_of_text")


@pytest.mark.parametrize(
    "prompt", ["<|endoftext|>", "\x00", "\ud800", "\x1b[31m", "\r\n\t", "\u202e", "\U0001f600"]
)
def test_odd_prompts_are_text(build, tokenizer, prompt):
    written = Generator(build(), tokenizer).generate([prompt], GREEDY)[0]
    assert written.num_new_tokens == 20
    assert written.finish_reason == "length"


def test_an_empty_prompt_is_refused_before_anything_is_written(build, tokenizer):
    generator = Generator(build(), tokenizer)
    with pytest.raises(PromptError, match="the prompt is empty"):
        generator.generate(["The", ""], GREEDY)
    with pytest.raises(PromptError, match="the prompt is empty"):
        generator.stream("", GREEDY)


def test_a_prompt_longer_than_the_context_is_refused_with_both_numbers(build, tokenizer):
    generator = Generator(build(context_length=16), tokenizer)
    with pytest.raises(PromptError, match="has 1,700 tokens, the model reads at most 16"):
        generator.generate(["7" * 1700], GREEDY)
    assert generator.generate(["7" * 16], GREEDY)[0].num_new_tokens == 20


def test_the_params_defaults_are_a_sampling(tokenizer):
    sampling = check_sampling(load_params().generation.model_dump())
    assert sampling.stop == ()
    assert check_sampling(sampling.model_dump()) == sampling


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"temperature": -1}, "temperature is -1"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"temperature": float("inf")}, "temperature is inf"),
        ({"top_k": -1}, "top_k is -1"),
        ({"top_p": 0}, "top_p is 0"),
        ({"top_p": 1.5}, r"top_p is 1\.5"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
        ({"max_new_tokens": 10**9}, "max_new_tokens is 1000000000"),
        ({"repetition_penalty": 0}, "repetition_penalty is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"stop": ("",)}, r"stop\.0 is ''"),
        ({"stop": "end"}, "stop is 'end'"),
        ({"temprature": 1}, "temprature is 1"),
    ],
)
def test_a_sampling_value_out_of_bounds_is_refused_by_name(change, words):
    with pytest.raises(PromptError, match=words):
        check_sampling(GREEDY.model_dump() | change)


def test_a_share_of_the_sum_picks_the_token_where_it_falls():
    logits = torch.tensor([0.1, 0.6, 0.0, 0.3]).log().expand(6, 4)
    plain = SAMPLED.model_copy(update={"top_k": 0, "top_p": 1.0})
    drawn = torch.tensor([0.0, 0.09, 0.11, 0.69, 0.71, 1 - 2**-24])
    assert choose_tokens(logits, plain, drawn).tolist() == [0, 0, 1, 1, 3, 3]


def test_shares_spread_evenly_pick_each_token_as_often_as_it_is_likely():
    probabilities = torch.tensor([0.05, 0.4, 0.15, 0.1, 0.3])
    drawn = (torch.arange(1000) + 0.5) / 1000
    for top_k, top_p in ((0, 1.0), (5, 1.0), (0, 0.9999)):
        sampling = SAMPLED.model_copy(update={"top_k": top_k, "top_p": top_p})
        chosen = choose_tokens(probabilities.log().expand(1000, 5), sampling, drawn)
        assert torch.bincount(chosen, minlength=5).tolist() == pytest.approx(
            [50, 400, 150, 100, 300], abs=1
        )


def test_top_k_and_top_p_leave_the_likeliest_tokens_only():
    logits = torch.tensor([0.05, 0.4, 0.15, 0.1, 0.3]).log().expand(500, 5)
    drawn = (torch.arange(500) + 0.5) / 500

    def kept(top_k: int, top_p: float) -> set[int]:
        sampling = SAMPLED.model_copy(update={"top_k": top_k, "top_p": top_p})
        return set(choose_tokens(logits, sampling, drawn).tolist())

    assert kept(1, 1.0) == {1}
    assert kept(2, 1.0) == {1, 4}
    assert kept(0, 0.69) == {1, 4}
    assert kept(0, 0.71) == {1, 2, 4}
    assert kept(0, 1e-9) == {1}
    assert kept(3, 0.5) == {1, 4}
    assert kept(10**6, 1.0) == {0, 1, 2, 3, 4}


@pytest.mark.parametrize("temperature", [1e-30, 1e-5, 1e-3, 100.0])
def test_no_temperature_makes_a_choice_that_is_no_token(temperature):
    logits = torch.tensor([[3e38, -3e38, 1.0, 0.0]])
    for drawn in (0.0, 0.5, 1 - 2**-24):
        sampling = SAMPLED.model_copy(update={"temperature": temperature, "top_k": 0})
        assert choose_tokens(logits, sampling, torch.tensor([drawn])).tolist() == [0]


def write(tokenizer: Tokenizer, text: bytes, **change) -> tuple[list[str], TextWriter]:
    """Give a writer one byte a token."""
    sampling = GREEDY.model_copy(update={"max_new_tokens": 1000} | change)
    writer = TextWriter(tokenizer, sampling)
    ids = [tokenizer.encode(chr(byte))[0] for byte in range(128)]
    by_byte = {tokenizer.decode_bytes([index]): index for index in range(tokenizer.vocab_size)}
    assert by_byte[b"a"] == ids[97]
    pieces = []
    for byte in text:
        pieces.append(writer.add(by_byte[bytes([byte])]))
        if writer.finish_reason:
            break
    return pieces, writer


def test_a_character_is_given_when_its_last_byte_is_there(tokenizer):
    pieces, _ = write(tokenizer, "a\u00e9\U0001f600b".encode())
    assert pieces == ["a", "", "\u00e9", "", "", "", "\U0001f600", "b"]


def test_bytes_that_are_no_character_are_shown_as_such_and_a_cut_one_at_the_end_is_left_out(
    tokenizer,
):
    assert "".join(write(tokenizer, b"a\xffb\xe4\xb8")[0]) == "a\ufffdb"


def test_a_stop_text_ends_the_text_before_itself_and_never_shows_in_part(tokenizer):
    pieces, writer = write(tokenizer, b"one END two", stop=(" END",))
    assert "".join(pieces) == "one"
    assert writer.finish_reason == "stop"
    assert "".join(write(tokenizer, b"one EN", stop=(" END",), max_new_tokens=6)[0]) == "one EN"


def test_of_several_stop_texts_the_first_in_the_text_counts(tokenizer):
    pieces, _ = write(tokenizer, b"a short story", stop=("story", "short"))
    assert "".join(pieces) == "a "


def write_mixed(model: Transformer, mixture: Mixture, ids: list[int], count: int) -> list[int]:
    """Choose each token by both together from a pass over the whole text, without a cache."""
    window = list(ids)
    with torch.no_grad():
        for _ in range(count):
            logits = model(torch.tensor([window]))[0, -1:].numpy()
            context = mixture.read(window)
            window.append(int(mixture.mix(logits, [context])[0].argmax()))
    return window[len(ids) :]


@pytest.mark.parametrize("length", [20, LEAST_HALF_TOKENS + 10], ids=["short", "drafted"])
def test_greedy_text_with_count_tables_is_the_likeliest_of_both(build, tokenizer, mixture, length):
    model = build()
    ids = tokenizer.encode(PROMPTS[1])
    sampling = GREEDY.model_copy(update={"max_new_tokens": length})
    generator = Generator(model, tokenizer, mixture)
    written = [row[0] for row in generator.choose_ids([ids], sampling)]
    assert written == write_mixed(model, mixture, ids, length)
    assert written != choose(model, tokenizer, ids, sampling)


def test_texts_with_count_tables_do_not_depend_on_their_batch(build, tokenizer, mixture):
    generator = Generator(build(), tokenizer, mixture)
    together = generator.generate(PROMPTS[:3], SAMPLED)
    alone = [generator.generate([prompt], SAMPLED)[0] for prompt in PROMPTS[:3]]
    assert [one.text for one in together] == [one.text for one in alone]

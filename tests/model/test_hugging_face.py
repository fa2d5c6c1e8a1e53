import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from lightlm.errors import ModelVersionError
from lightlm.model.hugging_face import (
    describe_generation,
    export_model,
    list_weights,
    load_model,
    read_config,
)

END_OF_TEXT = 3


@pytest.fixture
def tokenizer_folder(tmp_path):
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    symbols = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {
        token: index
        for index, token in enumerate([*symbols[:END_OF_TEXT], "<end>", *symbols[END_OF_TEXT:]])
    }

    engine = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    engine.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    engine.decoder = decoders.ByteLevel()
    engine.add_special_tokens(["<end>"])
    engine.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<end>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")

    return folder


@pytest.fixture
def exported(build, tokenizer_folder, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    export_model(build(num_kv_heads=2), tokenizer_folder, folder)
    return folder


def change_config(folder, **values):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values), encoding="utf-8")


def test_transformers_computes_the_same_logits_from_the_folder(
    build, variant, tokenizer_folder, tmp_path
):
    model = build(**variant, norm_epsilon=1e-5, rope_theta=5000.0)
    export_model(model, tokenizer_folder, tmp_path)
    theirs, report = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    tokens = torch.randint(0, 300, (2, 64), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        difference = (theirs.eval()(tokens).logits - model(tokens)).abs().max()
    assert difference < 1e-4
    assert not any(report.values())
    assert theirs.dtype == torch.float32


def test_a_model_comes_back_as_it_was(build, variant, tokenizer_folder, tmp_path):
    model = build(**variant, rope_theta=5000.0, norm_epsilon=1e-5)
    export_model(model, tokenizer_folder, tmp_path)
    back = load_model(tmp_path, kernel="matmul")
    assert back.config == model.config
    assert not back.training
    ours = dict(model.named_parameters())
    theirs = dict(back.named_parameters())
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_every_parameter_stands_under_one_name(build, variant):
    model = build(**variant)
    names = [name for name, _ in list_weights(model)]
    assert len(names) == len(set(names))
    assert sum(view.numel() for _, view in list_weights(model)) == sum(
        p.numel() for p in model.parameters()
    )


def test_transformers_opens_the_tokenizer_and_finds_the_end_of_text(exported):
    tokenizer = AutoTokenizer.from_pretrained(exported)
    assert tokenizer.eos_token_id == END_OF_TEXT
    assert GenerationConfig.from_pretrained(exported).eos_token_id == END_OF_TEXT
    assert (
        tokenizer.decode(tokenizer("a word, \u00e9\U0001f600")["input_ids"])
        == "a word, \u00e9\U0001f600"
    )


def test_transformers_samples_as_the_params_say(build, tokenizer_folder, tmp_path):
    generation = {
        "max_new_tokens": 7,
        "temperature": 0.7,
        "top_k": 0,
        "top_p": 0.9,
        "repetition_penalty": 1.1,
        "seed": 3,
    }

    export_model(build(), tokenizer_folder, tmp_path, generation=generation)
    read = GenerationConfig.from_pretrained(tmp_path)
    assert read.do_sample
    assert [
        read.max_new_tokens,
        read.temperature,
        read.top_k,
        read.top_p,
        read.repetition_penalty,
    ] == [
        7,
        0.7,
        0,
        0.9,
        1.1,
    ]


def test_temperature_zero_is_greedy_for_transformers():
    values = describe_generation({"temperature": 0, "top_k": 50, "top_p": 0.9}, END_OF_TEXT)
    assert values["do_sample"] is False
    assert not {"temperature", "top_k", "top_p"} & values.keys()
    GenerationConfig(**values).validate(strict=True)


def test_the_weights_may_be_read_by_other_users(exported):
    assert (exported / "model.safetensors").stat().st_mode & 0o044 == 0o044


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(ModelVersionError, match=r"holds no config\.json"):
        load_model(tmp_path)


def test_weights_that_could_run_code_are_not_looked_at(exported):
    (exported / "model.safetensors").rename(exported / "pytorch_model.bin")
    with pytest.raises(ModelVersionError, match=r"model\.safetensors cannot be read"):
        load_model(exported)


def test_cut_weights_are_refused(exported):
    path = exported / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ModelVersionError, match="cannot be read"):
        load_model(exported)


def test_a_config_of_another_shape_is_refused_before_its_memory_is_asked_for(exported):
    change_config(exported, hidden_size=65_536, intermediate_size=262_144, num_hidden_layers=512)
    with pytest.raises(ModelVersionError, match="larger model"):
        load_model(exported)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"architectures": ["GPT2LMHeadModel"]}, "wanted architectures"),
        ({"architectures": None}, "wanted architectures"),
        ({"attention_bias": True}, "attention_bias is True"),
        ({"use_sliding_window": True}, "use_sliding_window is True"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}}, "rope_parameters is"),
        ({"rope_parameters": "yarn"}, "rope_parameters is"),
        ({"num_hidden_layers": "many"}, "num_layers is 'many'"),
        ({"head_dim": None}, "head_dim is None"),
        ({"num_hidden_layers": 3}, r"layers\.2\..* has shape None"),
        ({"tie_word_embeddings": True}, r"lm_head\.weight has shape"),
        ({"intermediate_size": 40}, "gate_proj.weight has shape"),
    ],
)
def test_a_config_that_would_compute_something_else_is_refused_by_name(exported, change, words):
    change_config(exported, **change)
    with pytest.raises(ModelVersionError, match=words):
        load_model(exported)


def test_unnormalised_expert_weights_are_refused(build, tokenizer_folder, tmp_path):
    model = build(num_experts=4, num_active_experts=2, expert_ffn_dim=24)
    export_model(model, tokenizer_folder, tmp_path)
    change_config(tmp_path, norm_topk_prob=False)
    with pytest.raises(ModelVersionError, match="norm_topk_prob"):
        load_model(tmp_path)


def test_weights_in_bfloat16_are_read_as_fp32(exported):
    path = exported / "model.safetensors"
    save_file(
        {name: weight.bfloat16() for name, weight in load_file(path).items()},
        path,
        metadata={"format": "pt"},
    )
    assert {weight.dtype for weight in load_model(exported).parameters()} == {torch.float32}


def test_an_older_config_with_the_rotary_base_outside_is_read(exported):
    change_config(exported, rope_parameters=None, rope_theta=2000.0)
    assert read_config(exported).rope_theta == 2000.0


def test_a_tokenizer_without_an_end_of_text_is_refused(build, tokenizer_folder, tmp_path):
    (tokenizer_folder / "tokenizer_config.json").unlink()
    with pytest.raises(ModelVersionError, match=r"no token '<\|endoftext\|>'"):
        export_model(build(), tokenizer_folder, tmp_path)

"""Small models of each family, made by transformers on the spot: ours computes what theirs does."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, LlamaConfig, PretrainedConfig, Qwen2Config

from lightlm.data.tokenization.tokenizer import load_tokenizer
from lightlm.errors import ModelVersionError
from lightlm.generation.sampling import SamplingConfig
from lightlm.generation.text import Generator
from lightlm.model.accounting import count_parameters
from lightlm.model.config import ModelConfig
from lightlm.model.families import list_shapes, read_config
from lightlm.model.hugging_face import export_model, list_weights, load_model
from lightlm.model.transformer import Transformer
from tests import hugging_face_shape

SHAPE = hugging_face_shape.SHAPE | {"vocab_size": 257, "bos_token_id": 0, "eos_token_id": 0}
GREEDY = {
    "max_new_tokens": 24,
    "temperature": 0,
    "top_k": 0,
    "top_p": 1,
    "repetition_penalty": 1,
    "seed": 0,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 5000.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
FAMILIES: dict[str, PretrainedConfig] = {
    "llama": LlamaConfig(**SHAPE),
    "llama, tied": LlamaConfig(**SHAPE, tie_word_embeddings=True),
    "llama, wide heads": LlamaConfig(**SHAPE, head_dim=12),
    "llama 3": LlamaConfig(**SHAPE, rope_parameters=LLAMA3),
    "llama, linear": LlamaConfig(
        **SHAPE, rope_parameters={"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0}
    ),
    "qwen2": Qwen2Config(**SHAPE),
    "qwen2, tied": Qwen2Config(**SHAPE, tie_word_embeddings=True),
}


@pytest.fixture(params=FAMILIES.values(), ids=list(FAMILIES))
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Return the folder of a small model whose every weight matters, as transformers writes it."""
    model = AutoModelForCausalLM.from_config(request.param)
    draw = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.randn(weight.shape, generator=draw) * 0.2 + (weight.dim() == 1))
    model.save_pretrained(tmp_path / "theirs")
    return tmp_path / "theirs"


@pytest.fixture
def tokenizer_folder(tmp_path: Path) -> Path:
    """Return a byte-level tokenizer of 257 entries."""
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    vocab = {"<end>": 0} | {
        symbol: index + 1
        for index, symbol in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))
    }
    engine = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    engine.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # pyright: ignore[reportAttributeAccessIssue]
    engine.decoder = decoders.ByteLevel()  # pyright: ignore[reportAttributeAccessIssue]
    engine.add_special_tokens(["<end>"])
    engine.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<end>"}), "utf-8")
    return folder


def compute_logits(folder: Path, tokens: torch.Tensor) -> torch.Tensor:
    """Return what transformers computes from a folder."""
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        return theirs(tokens).logits


@pytest.mark.parametrize("kernel", ["sdpa", "matmul"])
def test_logits_are_those_of_transformers(folder: Path, kernel: str) -> None:
    tokens = torch.randint(0, 257, (2, 96), generator=torch.Generator().manual_seed(0))
    ours = load_model(folder, kernel=kernel)
    with torch.no_grad():
        difference = (ours(tokens) - compute_logits(folder, tokens)).abs().max()
    assert difference < 1e-4


def test_greedy_text_is_that_of_transformers_token_for_token(
    folder: Path, tokenizer_folder: Path
) -> None:
    prompt = [7, 100, 31, 250, 9]
    generator = Generator(load_model(folder), load_tokenizer(tokenizer_folder))
    sampling = SamplingConfig.model_validate(GREEDY)
    ours = [chosen[0] for chosen in generator.choose_ids([prompt], sampling)]

    theirs: Any = AutoModelForCausalLM.from_pretrained(folder).eval()
    theirs.generation_config.eos_token_id = None
    ids = theirs.generate(torch.tensor([prompt]), do_sample=False, max_new_tokens=24)
    assert ours == ids[0, len(prompt) :].tolist()


def test_a_model_goes_back_into_its_own_layout(
    folder: Path, tokenizer_folder: Path, tmp_path: Path
) -> None:
    back = tmp_path / "back"
    back.mkdir()
    export_model(load_model(folder), tokenizer_folder, back)
    tokens = torch.randint(0, 257, (1, 96), generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(compute_logits(back, tokens), compute_logits(folder, tokens))
    kept = json.loads((folder / "config.json").read_text())
    found = json.loads((back / "config.json").read_text())
    for name in ("architectures", "model_type", "rope_parameters", "tie_word_embeddings"):
        assert found[name] == kept[name], name


def test_a_shorter_own_context_keeps_the_longest_one(
    folder: Path, tokenizer_folder: Path, tmp_path: Path
) -> None:
    config = read_config(folder)
    shorter = config.model_copy(update={"context_length": 32, "longest_context": 96})
    model = Transformer(shorter)
    model.load_state_dict(load_model(folder).state_dict())
    back = tmp_path / "back"
    back.mkdir()
    export_model(model, tokenizer_folder, back)
    assert read_config(back) == shorter
    assert json.loads((back / "config.json").read_text())["max_position_embeddings"] == 96


def test_shapes_and_parameters_are_counted_as_they_are(folder: Path) -> None:
    model = load_model(folder)
    found = {name: tuple(weight.shape) for name, weight in list_weights(model)}
    assert list_shapes(model.config) == found
    assert count_parameters(model.config) == sum(one.numel() for one in model.parameters())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architectures": ["GPT2LMHeadModel"]}, "families Qwen3, Llama or Qwen2"),
        ({"architectures": [["LlamaForCausalLM"]]}, "families Qwen3, Llama or Qwen2"),
        ({"attention_bias": True}, "attention_bias is True"),
        ({"mlp_bias": True}, "mlp_bias is True"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "rope_scaling is .*yarn"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 4.0}}, "low_frequency_factor is None"),
        ({"rope_scaling": [4.0]}, "rope_scaling is"),
        ({"layer_types": ["sliding_attention", "full_attention"]}, "layer_types is"),
        ({"hidden_size": 10**9}, "model_dim is 1000000000"),
    ],
)
def test_what_would_be_computed_otherwise_is_refused(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    values = FAMILIES["llama"].to_dict() | {"architectures": ["LlamaForCausalLM"]} | change
    (tmp_path / "config.json").write_text(json.dumps(values), "utf-8")
    with pytest.raises(ModelVersionError, match=message):
        read_config(tmp_path)


def test_experts_belong_to_qwen3_alone() -> None:
    with pytest.raises(ValueError, match="family llama has no experts"):
        ModelConfig.model_validate(
            {
                "vocab_size": 300,
                "num_layers": 1,
                "model_dim": 16,
                "num_heads": 2,
                "num_kv_heads": 2,
                "head_dim": 8,
                "ffn_dim": 32,
                "context_length": 16,
                "num_experts": 2,
                "num_active_experts": 1,
                "expert_ffn_dim": 8,
                "family": "llama",
            }
        )

import numpy as np
import pytest
import torch

from lightlm.errors import ModelVersionError
from lightlm.model.config import ModelConfig
from lightlm.model.onnx import OnnxModel, name_cache, write_onnx
from lightlm.model.transformer import Transformer
from tests.model.conftest import SHAPE


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    """Return a model of Qwen3's layout with grouped queries, and its graph's path; once for all."""
    return write_graph(tmp_path_factory.mktemp("graph") / "model.onnx", num_kv_heads=2)


def write_graph(path, **change):
    model = Transformer(ModelConfig(**(SHAPE | change)))
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.randn(weight.shape, generator=draw) * 0.2 + (weight.dim() == 1))
    write_onnx(model.eval(), path)
    return model, path


def sample(model, batch, length, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, model.config.vocab_size, (batch, length), generator=generator)


@torch.inference_mode()
def compute(model, tokens):
    return model(tokens).numpy()


def test_the_graph_computes_our_logits_at_any_batch_and_length_read_in_any_pieces(graph):
    model, path = graph
    for batch, pieces in (
        (1, [1]),
        (3, [7]),
        (2, [model.config.context_length]),
        (2, [5, 1, 1, 9]),
    ):
        tokens = sample(model, batch, sum(pieces))
        read = OnnxModel(path, model.config)
        parts = np.split(tokens.numpy(), np.cumsum(pieces)[:-1], axis=1)
        logits = np.concatenate([read.read(part) for part in parts], axis=1)
        np.testing.assert_allclose(logits, compute(model, tokens), atol=1e-4)


def test_padding_on_the_left_changes_nothing(graph):
    model, path = graph
    tokens = sample(model, 1, 6)
    padded = np.concatenate((np.zeros((1, 3), dtype=np.int64), tokens.numpy()), axis=1)
    both = np.concatenate((padded, sample(model, 1, 9, seed=2).numpy()))
    mask = np.ones_like(both)
    mask[0, :3] = 0
    read = OnnxModel(path, model.config)
    logits = np.concatenate((read.read(both[:, :7], mask[:, :7]), read.read(both[:, 7:])), axis=1)
    np.testing.assert_allclose(logits[:1, 3:], compute(model, tokens), atol=1e-4)
    np.testing.assert_allclose(logits[1:], compute(model, torch.from_numpy(both[1:])), atol=1e-4)


def test_inputs_and_outputs_have_optimums_names_and_free_axes(graph):
    model, path = graph
    session = OnnxModel(path, model.config).session
    inputs = {one.name: one.shape for one in session.get_inputs()}
    past = name_cache(model.config, "past_key_values")
    assert past[:2] == ["past_key_values.0.key", "past_key_values.0.value"]
    assert [*inputs] == ["input_ids", "attention_mask", "position_ids", *past]
    outputs = [one.name for one in session.get_outputs()]
    assert outputs == ["logits", *name_cache(model.config, "present")]
    config = model.config
    assert [inputs[past[0]][axis] for axis in (1, 3)] == [config.num_kv_heads, config.head_dim]
    free = [*inputs["input_ids"], inputs["attention_mask"][1], inputs[past[0]][2]]
    assert all(isinstance(axis, str) for axis in free)


@pytest.mark.slow
def test_a_graph_of_another_family_with_tied_embeddings_computes_its_logits(tmp_path):
    model, path = write_graph(
        tmp_path / "model.onnx", family="qwen2", tie_embeddings=True, num_layers=1, head_dim=12
    )
    tokens = sample(model, 2, 9)
    read = OnnxModel(path, model.config)
    logits = np.concatenate((read.read(tokens[:, :5].numpy()), read.read(tokens[:, 5:].numpy())), 1)
    np.testing.assert_allclose(logits, compute(model, tokens), atol=1e-4)


def test_experts_are_refused_with_what_to_do(build, tmp_path):
    model = build(num_experts=4, num_active_experts=2, expert_ffn_dim=24)
    with pytest.raises(ModelVersionError, match="hf or gguf"):
        write_onnx(model, tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()

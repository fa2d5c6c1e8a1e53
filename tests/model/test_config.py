import pytest
from pydantic import ValidationError

from lightlm.model.config import ModelConfig

SHAPE = {
    "vocab_size": 300,
    "num_layers": 2,
    "model_dim": 32,
    "num_heads": 4,
    "num_kv_heads": 2,
    "head_dim": 8,
    "ffn_dim": 48,
    "context_length": 64,
}


def test_a_shape_survives_json():
    config = ModelConfig(**SHAPE, num_experts=4, num_active_experts=2, expert_ffn_dim=24)
    assert ModelConfig.model_validate_json(config.model_dump_json()) == config


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"num_kv_heads": 3}, "num_heads 4 is not a multiple of num_kv_heads 3"),
        ({"head_dim": 7}, "head_dim 7 is odd"),
        (
            {"num_experts": 4, "num_active_experts": 5, "expert_ffn_dim": 24},
            "num_active_experts in 1..4",
        ),
        ({"num_experts": 4, "num_active_experts": 2}, "expert_ffn_dim >= 8"),
        ({"vocab_size": 256}, "greater than or equal to 257"),
        ({"num_layer": 2}, "Extra inputs are not permitted"),
    ],
)
def test_a_shape_that_does_not_fit_together_is_refused_by_name(change, words):
    with pytest.raises(ValidationError, match=words):
        ModelConfig(**(SHAPE | change))


def test_a_dense_shape_has_no_experts():
    assert not ModelConfig(**SHAPE).is_mixture_of_experts

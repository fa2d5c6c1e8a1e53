"""The smallest shape of tests' models, under the names that transformers' configs use."""

from typing import Any

SHAPE: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 96,
    "rms_norm_eps": 1e-5,
}
"""A config also wants vocab_size, bos_token_id and eos_token_id."""

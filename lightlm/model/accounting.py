"""What a shape costs: parameters, floating-point operations a token, bytes of memory. Arithmetic, no torch."""

from lightlm.model.config import ModelConfig

FORWARD_AND_BACKWARD = 3
"""A training step does the forward pass's products once, and twice again for both gradients."""


def count_parameters(config: ModelConfig) -> int:
    """Return all parameters, embeddings and gains included."""
    dim, layers = config.model_dim, config.num_layers
    gains = layers * (2 * dim + 2 * config.head_dim) + dim
    matrices = layers * (_attention_matrices(config) + _feedforward_matrices(config, config.num_experts))
    tables = config.vocab_size * dim * (1 if config.tie_embeddings else 2)
    return matrices + gains + tables


def count_active_parameters(config: ModelConfig) -> int:
    """Return the parameters that one token meets: of the experts, the active ones."""
    idle = config.num_experts - config.num_active_experts
    return count_parameters(config) - config.num_layers * max(0, idle) * 3 * config.model_dim * config.expert_ffn_dim


def count_matrix_parameters(config: ModelConfig) -> int:
    """Return the parameters that a token is multiplied by: layers' matrices and the head, no lookup, no gains."""
    layer = _attention_matrices(config) + _feedforward_matrices(config, config.num_active_experts)
    return config.num_layers * layer + config.vocab_size * config.model_dim


def flops_per_token(config: ModelConfig, context_length: int | None = None, *, training: bool = True) -> float:
    """Return floating-point operations a token: 2 a matrix parameter, and the causal half of QK^T and of PV.

    Both are tripled in training (forward and backward). `context_length` defaults to the config's.
    """
    length = config.context_length if context_length is None else context_length
    attended = length / 2
    attention = 2 * 2 * config.num_layers * config.num_heads * config.head_dim * attended
    forward = 2.0 * count_matrix_parameters(config) + attention
    return forward * (FORWARD_AND_BACKWARD if training else 1)


def model_bytes(config: ModelConfig, bytes_per_parameter: int = 4) -> int:
    """Return the bytes of the weights."""
    return count_parameters(config) * bytes_per_parameter


def training_memory_bytes(config: ModelConfig, micro_batch_size: int, optimizer: str) -> int:
    """Return about the bytes that training needs: weights, gradients, optimizer state, activations of a micro-batch.

    fp32 weights and gradients; one fp32 moment a matrix with Muon, two with AdamW. Activations are counted as
    saved by autograd in bf16 or fp32 alike at 4 bytes, which errs on the safe side.
    """
    total = count_parameters(config)
    embeddings = config.vocab_size * config.model_dim * (1 if config.tie_embeddings else 2)
    moments = total + embeddings if optimizer == "muon" else 2 * total
    tokens = micro_batch_size * config.context_length
    wide = config.ffn_dim if not config.num_experts else config.num_active_experts * config.expert_ffn_dim
    saved = config.num_layers * (10 * config.model_dim + 5 * wide)
    scores = config.num_layers * config.num_heads * config.context_length
    logits = 2 * 1024 * 1024 * 4
    return 4 * (2 * total + moments) + 4 * tokens * (saved + scores + 4 * config.model_dim) + logits


def _attention_matrices(config: ModelConfig) -> int:
    return 2 * config.model_dim * config.head_dim * (config.num_heads + config.num_kv_heads)


def _feedforward_matrices(config: ModelConfig, experts: int) -> int:
    if not config.num_experts:
        return 3 * config.model_dim * config.ffn_dim
    return experts * 3 * config.model_dim * config.expert_ffn_dim + config.num_experts * config.model_dim

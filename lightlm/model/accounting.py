"""What a shape costs: parameters, floating-point operations a token, bytes of memory. Arithmetic, no torch."""

from lightlm.model.config import ModelConfig

PROCESS_BYTES = 400_000_000
"""Resident in the training process without a model: Python, torch, the kernels' libraries (Linux, torch 2.13 CPU)."""

COMPILER_BYTES = 350_000_000
"""What compiling adds to it: inductor's modules and caches."""

CHUNK_LOGITS = 2 * 1024 * 1024
"""Logits that the head holds at a time (model.cross_entropy)."""

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


def process_bytes(device: str, *, is_compiled: bool = False) -> int:
    """Return what the training process holds before it has a model: of a CPU's memory, torch and its libraries."""
    if device != "cpu":
        return 0
    return PROCESS_BYTES + (COMPILER_BYTES if is_compiled else 0)


def training_memory_bytes(
    config: ModelConfig,
    micro_batch_size: int,
    optimizer: str,
    *,
    dtype: str = "float32",
    attention: str = "sdpa",
    is_recomputed: bool = False,
    num_shards: int = 1,
    keep_best: bool = False,
) -> int:
    """Return the bytes that training needs at its peak: weights, gradients, moments, and what a micro-batch keeps.

    fp32 weights and gradients; one fp32 moment a matrix with Muon, two with AdamW. The peak is in the backward pass,
    or while Muon works on the matrices of one shape, or while a checkpoint's tensors are written as bytes.
    """
    total = count_parameters(config)
    embeddings = config.vocab_size * config.model_dim * (1 if config.tie_embeddings else 2)
    moments = total + embeddings if optimizer == "muon" else 2 * total
    kept = 4 * (2 * total + moments + (total if keep_best else 0)) // num_shards
    size = 2 if dtype == "bfloat16" else 4
    layer = (total - embeddings) // config.num_layers
    whole = 0 if num_shards == 1 else 4 * embeddings + 2 * (size + 4) * layer
    passing = _activation_bytes(config, micro_batch_size, size, attention, is_recomputed) + (
        0 if size == 4 else size * (layer if is_recomputed else total - embeddings)
    )
    updating = 0 if optimizer != "muon" else (4 + 5 * size) * (total - embeddings) // 2 // num_shards
    saving = 4 * max(total, moments) // num_shards
    return int(kept + whole + max(passing, updating, saving))


def _activation_bytes(
    config: ModelConfig, micro_batch_size: int, size: int, attention: str, is_recomputed: bool
) -> int:
    """Return what autograd keeps of a micro-batch until the backward pass has used it, and the head's chunk."""
    tokens = micro_batch_size * config.context_length
    wide = config.ffn_dim if not config.num_experts else config.num_active_experts * config.expert_ffn_dim
    of_layer = size * tokens * (10 * config.model_dim + 4 * wide)
    if attention == "matmul":
        # Probabilities in fp32 for the softmax, and in the compute dtype for the product.
        of_layer += (4 + (size if size == 2 else 0)) * tokens * config.num_heads * config.context_length
    if config.num_experts:
        of_layer += size * tokens * config.num_active_experts * 3 * config.model_dim
    inputs = size * tokens * config.model_dim
    layers = inputs * config.num_layers + of_layer if is_recomputed else of_layer * config.num_layers
    head = 4 * config.vocab_size * config.model_dim + 3 * size * CHUNK_LOGITS + 3 * inputs
    return layers + head


def _attention_matrices(config: ModelConfig) -> int:
    return 2 * config.model_dim * config.head_dim * (config.num_heads + config.num_kv_heads)


def _feedforward_matrices(config: ModelConfig, experts: int) -> int:
    if not config.num_experts:
        return 3 * config.model_dim * config.ffn_dim
    return experts * 3 * config.model_dim * config.expert_ffn_dim + config.num_experts * config.model_dim

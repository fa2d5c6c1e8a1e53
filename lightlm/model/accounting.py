"""The cost of a shape: parameters, operations per token, bytes of memory. Arithmetic, no torch."""

from lightlm.model.config import ModelConfig

CHUNK_LOGITS = 2 * 1024 * 1024
"""Logits that the head holds at a time: 4 MB in bfloat16, inside the last-level cache of the CPUs
measured. With a large vocabulary, those of the fewest rows.
"""

FEWEST_ROWS = 256
"""Rows that go through the head at a time at least: each chunk reads the whole head. 42 and 64 rows
took 1.6 to 2.2 times as long as 256 with 49,173 and 32,768 ids, 128 rows 1.1 to 1.3 times (fp32,
AMD EPYC, two cores).
"""

FEWEST_GPU_ROWS = 1024
"""Rows at least on a GPU, where fewer leave the product bound by memory. By arithmetic: not
measured.
"""

PROCESS_BYTES = 400_000_000
"""Bytes resident in a training process without a model: Python, torch, the libraries of its kernels
once they have run.
"""

COMPILER_BYTES = 70_000_000
"""Bytes that compiling adds: inductor and its code. 50 MB from its cache, 90 without."""

FRAGMENTED = 1.35
"""Factor on the bytes of activations that a CPU's memory allocator takes, from layer to layer and
step to step.

Ten shapes of 1 to 23M parameters, 2,048 and 8,192 tokens at a time, fp32 and bf16 (glibc 2.36,
torch 2.13).
"""

BACKWARD_LAYERS = 0.22
"""Fraction of a layer's activations that its backward pass holds in addition."""

MAPPED_BYTES = 32 * 1024 * 1024
"""Bytes from which glibc maps memory by itself, and frees it (DEFAULT_MMAP_THRESHOLD_MAX)."""

UPDATED_BESIDES = 0.5
"""Fraction of Muon's memory in such pieces that does not fit into what the backward pass freed: 0
to 0.7 in measurements.
"""

FORWARD_AND_BACKWARD = 3
"""Passes of products in a training step: one forward, two for both gradients."""


def choose_chunk_rows(
    num_rows: int, vocab_size: int, most: int = CHUNK_LOGITS, *, is_gpu: bool = False
) -> int:
    """Return how many rows' logits are computed at a time: at most `most` logits, but a good
    product's rows.
    """
    fewest = FEWEST_GPU_ROWS if is_gpu else FEWEST_ROWS
    return min(num_rows, max(fewest, most // vocab_size))


def count_parameters(config: ModelConfig) -> int:
    """Return all parameters, embeddings and gains included."""
    dim = config.model_dim
    layers = config.num_layers
    of_heads = 2 * config.head_dim if config.has_head_norms else 0
    bias = config.head_dim * (config.num_heads + 2 * config.num_kv_heads) if config.has_bias else 0
    gains = layers * (2 * dim + of_heads + bias) + dim
    matrices = layers * (
        _attention_matrices(config) + _feedforward_matrices(config, config.num_experts)
    )
    tables = config.vocab_size * dim * (1 if config.tie_embeddings else 2)
    return matrices + gains + tables


def count_matrix_parameters(config: ModelConfig) -> int:
    """Return the parameters that multiply a token: matrices of layers and head."""
    layer = _attention_matrices(config) + _feedforward_matrices(config, config.num_active_experts)
    return config.num_layers * layer + config.vocab_size * config.model_dim


def flops_per_token(
    config: ModelConfig, context_length: int | None = None, *, training: bool = True
) -> float:
    """Return floating-point operations per token: 2 per matrix parameter, and the causal half of
    QK^T and of PV.

    Both are tripled in training (forward and backward). `context_length` defaults to the config's.
    """
    length = config.context_length if context_length is None else context_length
    attended = length / 2
    attention = 2 * 2 * config.num_layers * config.num_heads * config.head_dim * attended
    forward = 2.0 * count_matrix_parameters(config) + attention
    return forward * (FORWARD_AND_BACKWARD if training else 1)


def process_bytes(device: str, *, is_compiled: bool = False) -> int:
    """Return the bytes of a training process without a model: on a CPU torch's, on a GPU none."""
    if device != "cpu":
        return 0
    return PROCESS_BYTES + (COMPILER_BYTES if is_compiled else 0)


def training_memory_bytes(
    config: ModelConfig,
    micro_batch_size: int,
    optimizer: str,
    *,
    device: str = "cpu",
    dtype: str = "float32",
    attention: str = "sdpa",
    is_compiled: bool = False,
    is_recomputed: bool = False,
    num_shards: int = 1,
    keep_best: bool = False,
) -> int:
    """Return the bytes that training adds to the process at its peak: weights, gradients, moments,
    activations.

    fp32 weights and gradients; one fp32 moment per matrix with Muon, two with AdamW; and the larger
    of a micro-batch's saved activations and Muon's working memory for the matrices of one shape.
    """
    total = count_parameters(config)
    embeddings = config.vocab_size * config.model_dim * (1 if config.tie_embeddings else 2)
    matrices = total - embeddings
    moments = total + embeddings if optimizer == "muon" else 2 * total
    kept = 4 * (2 * total + moments + (total if keep_best else 0)) // num_shards
    size = 4 if dtype == "float32" else 2
    tokens = micro_batch_size * config.context_length
    fragmented = FRAGMENTED if device == "cpu" else 1.0
    layer = fragmented * tokens * _kept_by_layer(config, size, device, is_compiled)
    inputs = size * tokens * config.model_dim

    if attention == "matmul":
        is_mapped = 4 * tokens * config.num_heads * config.context_length >= MAPPED_BYTES
        layer += (
            (1.0 if is_mapped else fragmented) * tokens * _kept_by_matmul(config, size, is_compiled)
        )

    # Two of them where layers are computed again: what one held on its way forward, and another on
    # its way back.
    held = (
        2 * layer + fragmented * inputs * config.num_layers
        if is_recomputed
        else layer * config.num_layers
    )
    rows = choose_chunk_rows(tokens, config.vocab_size, is_gpu=device != "cpu")
    logits = max(CHUNK_LOGITS, rows * config.vocab_size)
    passing = held + BACKWARD_LAYERS * layer + 3 * inputs + 3 * size * logits
    if size == 2:  # a copy of the weights in the dtype that is computed in
        passing += size * (matrices // config.num_layers if is_recomputed else matrices)

    if num_shards > 1:  # a layer, the embedding and the head are whole while they compute
        passing += 2 * 4 * matrices // config.num_layers + 2 * 4 * embeddings

    # Two thirds, most often, of the matrices of one shape: three stacks in the compute dtype, and
    # smaller products.
    stack = matrices * 2 // 3 // num_shards
    updating = 3.75 * size * stack if optimizer == "muon" else 0.0
    # What the backward pass freed is used again, but by glibc for no piece of more than 32 MB.
    besides = UPDATED_BESIDES * updating if device == "cpu" and 4 * stack > MAPPED_BYTES else 0.0
    saving = 4 * max(total, moments) // num_shards if device == "cpu" else 0

    return int(kept + max(passing + besides, updating, saving))


def _kept_by_layer(config: ModelConfig, size: int, device: str, is_compiled: bool) -> int:
    """Return the bytes per token that autograd saves of a layer, with `size` bytes per number.

    Counted by torch's hooks for saved tensors: inputs of the products, and of the norms, which a
    CPU keeps twice in fp32 (torch 2.13). Compiled code keeps no norms, and recomputes part of the
    gated product.
    """
    active = config.num_active_experts
    wide = config.ffn_dim if not config.num_experts else active * config.expert_ffn_dim
    if is_compiled:
        a_token = 10 * size * config.model_dim + 3 * size * wide
    else:
        norms = 8 * 4 if device == "cpu" else 4 * size
        a_token = (norms + 6 * size) * config.model_dim + 4 * size * wide
    if config.num_experts:
        a_token += 2 * size * active * config.model_dim
    return a_token


def _kept_by_matmul(config: ModelConfig, size: int, is_compiled: bool) -> int:
    """Return the bytes per token that plain attention saves in addition: probabilities in fp32 and
    in the compute dtype.

    Compiled code keeps them once in fp32, or twice in bf16, and the queries as they were scaled.
    """
    if is_compiled:
        return (
            4 * config.num_heads * config.context_length + size * config.num_heads * config.head_dim
        )
    return (4 if size == 4 else 4 + size) * config.num_heads * config.context_length


def _attention_matrices(config: ModelConfig) -> int:
    return 2 * config.model_dim * config.head_dim * (config.num_heads + config.num_kv_heads)


def _feedforward_matrices(config: ModelConfig, experts: int) -> int:
    if not config.num_experts:
        return 3 * config.model_dim * config.ffn_dim
    return (
        experts * 3 * config.model_dim * config.expert_ffn_dim
        + config.num_experts * config.model_dim
    )

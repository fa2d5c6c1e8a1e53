"""The vocabulary: which sizes of a tokenizer suit a machine, a time and a text, by the loss that is
predicted of each.

A larger one makes the text shorter, but costs arithmetic in the head and needs text to learn its
entries from.
"""

import math

from lightlm.budget.calibration import load_calibration
from lightlm.budget.probe import MachineRate
from lightlm.budget.scaling import expected_efficiency, guess_context_length, predict_loss
from lightlm.budget.shapes import WIDTHS, choose_ffn_dim, choose_heads, depths_for
from lightlm.model.accounting import count_matrix_parameters, flops_per_token
from lightlm.model.config import ModelConfig

HOPELESS = 1.5
"""Factor on the least loss found from which still deeper shapes are not tried."""


def bytes_per_token_at(vocab_size: int, difficulty: float = 1.0) -> float:
    """Return the bytes that a token of a byte-level BPE of this size stands for, in a text of this
    difficulty.
    """
    rule = load_calibration().vocabulary
    length = rule.bytes_at_1024 + rule.bytes_per_doubling * math.log2(vocab_size / 1024)
    return max(1.0, length / difficulty)


def choose_vocab_sizes(
    machine: MachineRate, seconds: float, text_bytes: int, difficulty: float = 1.0
) -> list[int]:
    """Return the powers of two that suit, the best first; end-of-text token included.

    `seconds` are left of the budget; `text_bytes` are there to train on.
    """
    rule = load_calibration().vocabulary
    most = min(rule.largest, max(rule.smallest, text_bytes / rule.bytes_per_entry))
    sizes = [2**k for k in range(int(math.log2(rule.smallest)), int(math.log2(most)) + 1)]
    flops = machine.trained_flops * max(1.0, load_calibration().speed.training_fraction * seconds)
    losses = {size: _best_loss(size, flops, max(1, text_bytes), difficulty) for size in sizes}
    ranked = sorted(sizes, key=lambda size: losses[size])
    return [size for size in ranked if losses[size] <= losses[ranked[0]] * (1 + rule.as_good)][:2]


def _best_loss(vocab_size: int, flops: float, text_bytes: int, difficulty: float) -> float:
    """Return the least loss that any shape reaches with a vocabulary."""
    length = bytes_per_token_at(vocab_size, difficulty)
    speed = load_calibration().speed
    context = guess_context_length(flops * speed.efficiency, int(text_bytes / length))
    losses = []

    for dim in WIDTHS:
        for layers in depths_for(dim):
            heads = choose_heads(dim)
            model = ModelConfig(
                vocab_size=vocab_size,
                num_layers=layers,
                model_dim=dim,
                num_heads=heads,
                num_kv_heads=heads,
                head_dim=dim // heads,
                ffn_dim=choose_ffn_dim(dim),
                context_length=context,
            )
            seen = flops * expected_efficiency(dim) / flops_per_token(model) * length
            losses.append(
                predict_loss(
                    count_matrix_parameters(model), seen, text_bytes, difficulty
                ).bits_per_byte
            )
            if len(losses) > 1 and losses[-1] > HOPELESS * min(losses):
                break  # deeper ones are further off

    return min(losses)

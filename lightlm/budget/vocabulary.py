"""The vocabulary: sizes of a tokenizer that suit a machine, a time and a text, by predicted loss.

A larger one shortens the text, but costs arithmetic in the head and needs text to learn its
entries.
"""

import math

from lightlm.budget.calibration import load_calibration
from lightlm.budget.probe import MachineRate
from lightlm.budget.scaling import expected_efficiency, guess_context_length, predict_loss
from lightlm.budget.shapes import WIDTHS, dense_shape, depths_for
from lightlm.model.accounting import count_matrix_parameters, flops_per_token

HOPELESS = 1.5
"""Factor on the least loss found beyond which deeper shapes are not tried."""


def bytes_per_token_at(vocab_size: int, difficulty: float = 1.0) -> float:
    """Return the bytes per token of a byte-level BPE of this size, on a text of this difficulty."""
    rule = load_calibration().vocabulary
    small = min(vocab_size, rule.large)
    length = rule.bytes_at_1024 + rule.bytes_per_doubling * math.log2(small / 1024)
    length += rule.bytes_per_doubling_of_large * math.log2(vocab_size / small)
    return max(1.0, length / difficulty)


def choose_vocab_sizes(
    machine: MachineRate,
    seconds: float,
    text_bytes: int,
    difficulty: float = 1.0,
    *,
    is_counted: bool = False,
) -> list[int]:
    """Return the powers of two that suit, the best first; end-of-text token included.

    `seconds` are left of the budget; `text_bytes` are there to train on. `is_counted`: the network
    is to be mixed with counts of the tokens.
    """
    rule = load_calibration().vocabulary
    most = min(rule.largest, max(rule.smallest, text_bytes / rule.bytes_per_entry))
    least = min(most, rule.counted_smallest if is_counted else rule.smallest)
    sizes = [2**k for k in range(int(math.log2(least)), int(math.log2(most)) + 1)]
    flops = machine.trained_flops * max(1.0, load_calibration().speed.training_fraction * seconds)
    losses = {size: _best_loss(size, flops, max(1, text_bytes), difficulty) for size in sizes}
    least = min(losses.values())
    large = [size for size in sizes if size >= rule.doubted_above]
    enough = next(
        (size for size in large if losses[size] <= least * (1 + rule.doubt)), rule.largest
    )
    sizes = [size for size in sizes if size <= enough]
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
            model = dense_shape(vocab_size, layers, dim, context)
            seen = flops * expected_efficiency(dim) / flops_per_token(model) * length
            losses.append(
                predict_loss(
                    count_matrix_parameters(model), seen, text_bytes, difficulty
                ).bits_per_byte
            )
            if len(losses) > 1 and losses[-1] > HOPELESS * min(losses):
                break  # deeper ones are further off

    return min(losses)

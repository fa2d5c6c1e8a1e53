"""Rules of scale: the loss that a size and an amount of text reach, and which batch, context, rates
and regularization suit them.

Pure arithmetic over the constants of budget/calibration.py, which names the papers. No torch.
"""

import math
from itertools import pairwise
from typing import NamedTuple

from lightlm.budget.calibration import load_calibration


def useful_epochs(unique_bytes: float) -> float:
    """Return how often a text of `unique_bytes` can be read before a model memorizes it."""
    rule = load_calibration().repeats
    megabytes = max(unique_bytes, 1.0) / 1e6
    exponent = rule.epochs_exponent_below if megabytes < 1 else rule.epochs_exponent_above
    return max(1.0, rule.epochs_at_1MB * megabytes**exponent)


def useful_parameters(unique_bytes: float) -> float:
    """Return the matrix parameters beyond which a larger model of a text does not score better."""
    return load_calibration().repeats.parameters_per_byte * unique_bytes


class Prediction(NamedTuple):
    """Bits per byte: the middle and an interval that holds about nine of ten runs."""

    bits_per_byte: float
    low: float
    high: float

    def corrected(self, factor: float, relative_error: float | None) -> "Prediction":
        """Return it times `factor`; with an error of its own, the interval is that wide."""
        bits = min(self.bits_per_byte * factor, load_calibration().loss.most_bits_per_byte)
        if relative_error is None:
            return Prediction(bits, self.low * factor, self.high * factor)
        return Prediction(bits, bits * (1 - relative_error), bits * (1 + relative_error))


def worth_of_repeats(seen: float, unique: float) -> float:
    """Return the bytes of fresh text that `seen` bytes are worth if only `unique` differ.

    Each further epoch is worth less; all repeats together at most `repeats_worth` times the unique
    text.
    """
    if seen <= unique:
        return seen
    horizon = load_calibration().loss.repeats_worth
    repeats = seen / unique - 1.0
    return unique * (1.0 + horizon * (1.0 - math.exp(-repeats / horizon)))


def difficulty_of(ngram_bits_per_byte: float, sample_bytes: int) -> float:
    """Return a text's difficulty (WikiText-2 is 1) by an n-gram model's score on a sample."""
    rule = load_calibration().difficulty
    points = list(rule.reference_bits.items())
    size = min(max(float(sample_bytes), points[0][0]), points[-1][0])

    for (left, low), (right, high) in pairwise(points):
        if size <= right:
            share = math.log(size / left) / math.log(right / left)
            ratio = ngram_bits_per_byte / (low + share * (high - low))
            return min(max(ratio, rule.least), rule.most)

    raise AssertionError("the sizes are clamped to the points")


def predict_loss(
    matrix_parameters: int, seen_bytes: float, unique_bytes: float, difficulty: float = 1.0
) -> Prediction:
    """Return the held-out bits per byte after `seen_bytes` of a text of `unique_bytes`."""
    law = load_calibration().loss
    data = max(1.0, worth_of_repeats(seen_bytes, unique_bytes))
    bits = (
        law.floor
        + law.size_scale * matrix_parameters**-law.size_exponent
        + law.data_scale * data**-law.data_exponent
    )

    bits = min(bits * difficulty, law.most_bits_per_byte)
    widened = max((law.little_bytes / data) ** law.little_exponent, 1.0)
    distance = max(1.0, matrix_parameters / law.far_parameters, data / law.far_bytes)
    widened *= 1 + law.far_error * math.log(distance)
    error = law.relative_error * min(widened, law.most_error_factor)

    return Prediction(bits, bits * (1 - error), bits * (1 + error))


def near_powers_of_two(wanted: float) -> list[int]:
    """Return the powers of two that are about `wanted`, nearest first; one or two."""
    octave = math.log2(wanted)
    most = load_calibration().text.octaves
    near = [k for k in (math.floor(octave), math.ceil(octave)) if abs(octave - k) < most]
    return [2**k for k in sorted(set(near), key=lambda k: abs(octave - k))]


def choose_batch_tokens(expected_tokens: float, context_length: int, device: str = "cpu") -> int:
    """Return the tokens of an optimizer step: a power of two, at least one sequence."""
    rule = load_calibration().batch
    tokens = max(expected_tokens, 1.0)
    wanted = rule.tokens * (tokens / rule.at_tokens) ** rule.exponent

    if device != "cpu":
        ratio = tokens / rule.accelerator_at_tokens
        is_below = ratio < 1
        exponent = rule.accelerator_exponent_below if is_below else rule.accelerator_exponent_above
        wanted = max(wanted if is_below else 0.0, rule.accelerator_tokens * ratio**exponent)

    wanted = min(max(wanted, rule.smallest), rule.largest)
    return max(context_length, 2 ** round(math.log2(wanted)))


def choose_context_length(expected_tokens: float, train_tokens: int) -> int:
    """Return the tokens of a sequence: longer with more training, bounded by the text."""
    rule = load_calibration().context
    wanted = rule.tokens
    threshold = rule.long_from_tokens

    while expected_tokens >= threshold and wanted < rule.longest:
        wanted *= 2
        threshold *= rule.tokens_per_doubling
    while wanted > rule.shortest and wanted * rule.sequences_in_text > train_tokens:
        wanted //= 2

    return wanted


def guess_context_length(
    training_flops: float, train_tokens: int, most_tokens: float = math.inf
) -> int:
    """Return the context length before a shape is chosen, by the operations of training."""
    size = best_size(training_flops, load_calibration().text.bytes_per_token)
    flops = max(load_calibration().context.guessed_flops_per_token, 6 * size)
    tokens = training_flops / flops
    return choose_context_length(min(tokens, most_tokens), train_tokens)


class LearningRates(NamedTuple):
    """Peak learning rates of the four kinds of parameters."""

    matrix: float
    embedding: float
    head: float
    gain: float


def choose_learning_rates(batch_tokens: int, model_dim: int, scale: float = 1.0) -> LearningRates:
    """Return peak rates: by the root of the batch; those of embedding and head by the width."""
    rule = load_calibration().rates
    by_batch = (batch_tokens / rule.at_batch_tokens) ** rule.batch_exponent
    by_width = scale * (model_dim / rule.at_model_dim) ** rule.head_dim_exponent
    by_matrix = scale * min(by_batch, rule.most_matrix_factor)
    return LearningRates(
        matrix=rule.matrix * by_matrix,
        embedding=rule.embedding * by_width * min(by_batch, rule.most_embedding_factor),
        head=rule.head * by_width * min(by_batch, rule.most_head_factor),
        gain=rule.gain * by_matrix,
    )


class Regularization(NamedTuple):
    """Weight decay and dropout, which keep a model from memorizing a repeated text."""

    weight_decay: float
    dropout: float


def is_repeated(epochs: float) -> bool:
    """Return whether a text is read so often that a model begins to memorize it."""
    return epochs > load_calibration().regularization.fresh_epochs


def choose_regularization(epochs: float, parameters_per_token: float) -> Regularization:
    """Return weight decay and dropout for a text read `epochs` times, with `parameters_per_token`
    matrix parameters per token of it (measurements: docs/results.md).
    """
    rule = load_calibration().regularization
    if not is_repeated(epochs):
        return Regularization(0.0, 0.0)
    if epochs <= rule.few_epochs:
        share = rule.few_epochs_weight_decay * (epochs - 1) / (rule.few_epochs - 1)
        return Regularization(share, 0.0)

    pressure = epochs * parameters_per_token
    level = next(
        one for one in rule.levels if one.most_pressure is None or pressure <= one.most_pressure
    )
    return Regularization(level.weight_decay, level.dropout)


def choose_context_ramp(context_length: int, *, is_compiled: bool) -> float:
    """Return the fraction of training, at its start, that uses half the context.

    0 where layers are compiled: they would have to be compiled for the half, too.
    """
    rule = load_calibration().context
    return 0.0 if is_compiled or context_length < rule.least_ramped else rule.ramp_fraction


def expected_efficiency(model_dim: int) -> float:
    """Return the fraction of the matrix rate that training reaches at a width, untimed."""
    rule = load_calibration().speed
    by_width = (model_dim / rule.at_model_dim) ** rule.width_exponent
    return min(rule.most_efficiency, rule.efficiency * by_width)


def usable_flops(flops_per_second: float, seconds: float) -> float:
    """Return the operations that training can spend in the seconds left, untimed."""
    rule = load_calibration().speed
    return flops_per_second * rule.efficiency * max(1.0, seconds * rule.training_fraction)


def best_size(training_flops: float, bytes_per_token: float) -> float:
    """Return the matrix parameters that score best with so many operations, by the loss law.

    6 operations per parameter and token; the speed of all sizes alike.
    """
    law = load_calibration().loss
    # a A N^-a = b B D^-b with D = bytes_per_token x C / 6N, solved for N
    by_size = law.size_exponent * law.size_scale
    by_data = law.data_exponent * law.data_scale
    data_at_one = max(1.0, training_flops) * bytes_per_token / 6
    power = 1 / (law.size_exponent + law.data_exponent)
    return max(1.0, (by_size / by_data * data_at_one**law.data_exponent) ** power)


def estimate_needed_bytes(
    flops_per_second: float, seconds: float, least_bytes: float = 0.0
) -> list[int]:
    """Return the bytes that the best size could read, with a margin, and at least `least_bytes`:
    powers of two, the best first.
    """
    rule = load_calibration().text
    flops = usable_flops(flops_per_second, seconds)
    size = max(rule.parameters, best_size(flops, rule.bytes_per_token))
    tokens = flops / (6 * size)
    needed = rule.margin * tokens * rule.bytes_per_token
    return near_powers_of_two(max(least_bytes, rule.least_bytes, needed))

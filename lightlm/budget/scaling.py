"""Rules of scale: what loss a size and an amount of text reach, and which vocabulary, batch and
rates suit them.

Pure arithmetic over the constants of calibration.json, which benchmarks/calibrate.py measures anew.
No torch. Source: the parametric law of Hoffmann et al. (arXiv 2203.15556) with the value of
repeated text of Muennighoff et al. (arXiv 2305.16264), in bits per byte instead of nats a token.
"""

import json
import math
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

CALIBRATION = Path(__file__).parent / "calibration.json"


@lru_cache(maxsize=1)
def load_calibration() -> dict[str, dict[str, float]]:
    """Return the constants of all rules."""
    return json.loads(CALIBRATION.read_text(encoding="utf-8"))


def useful_epochs(unique_bytes: float) -> float:
    """Return how often a text of `unique_bytes` can be read with gain; beyond it a model learns the
    text by heart.
    """
    rule = load_calibration()["repeats"]
    megabytes = max(unique_bytes, 1.0) / 1e6
    exponent = rule["epochs_exponent_below"] if megabytes < 1 else rule["epochs_exponent_above"]
    return max(1.0, rule["epochs_at_1MB"] * megabytes**exponent)


def useful_parameters(unique_bytes: float) -> float:
    """Return the matrix parameters beyond which a model of `unique_bytes` of text gains nothing by
    being larger.
    """
    rule = load_calibration()["repeats"]
    return rule["parameters_per_byte"] * unique_bytes


class Prediction(NamedTuple):
    """Bits per byte: the middle and an interval that holds about nine of ten runs."""

    bits_per_byte: float
    low: float
    high: float

    def corrected(self, factor: float, relative_error: float | None) -> "Prediction":
        """Return it times `factor`; with an error of its own, the interval is that wide."""
        bits = min(self.bits_per_byte * factor, 8.0)
        if relative_error is None:
            return Prediction(bits, self.low * factor, self.high * factor)
        return Prediction(bits, bits * (1 - relative_error), bits * (1 + relative_error))


def worth_of_repeats(seen: float, unique: float) -> float:
    """Return how much fresh text `seen` bytes are worth when only `unique` bytes are different.

    Each further epoch is worth less; all repeats together at most `repeats_worth` times the unique
    text.
    """
    if seen <= unique:
        return seen
    horizon = load_calibration()["loss"]["repeats_worth"]
    repeats = seen / unique - 1.0
    return unique * (1.0 + horizon * (1.0 - math.exp(-repeats / horizon)))


def difficulty_of(ngram_bits_per_byte: float, sample_bytes: int) -> float:
    """Return how hard a text is, WikiText-2 = 1, by an n-gram model's bits per byte after
    `sample_bytes` of it.
    """
    points = [(float(size), bits) for size, bits in load_calibration()["reference_text"].items()]
    size = min(max(float(sample_bytes), points[0][0]), points[-1][0])
    for (left, low), (right, high) in pairwise(points):
        if size <= right:
            share = math.log(size / left) / math.log(right / left)
            return min(max(ngram_bits_per_byte / (low + share * (high - low)), 0.3), 2.0)
    raise AssertionError("the sizes are clamped to the points")


LITTLE_BYTES = 3e6
LITTLE_EXPONENT = 0.6
LITTLE_MOST = 3.5
"""A run of seconds, which reads less, is foreseen worse: its speed is timed while the machine is
still starting.
"""


def predict_loss(
    matrix_parameters: int, seen_bytes: float, unique_bytes: float, difficulty: float = 1.0
) -> Prediction:
    """Return the held-out bits per byte of a model that read `seen_bytes` of a text of
    `unique_bytes`.
    """
    law = load_calibration()["loss"]
    data = max(1.0, worth_of_repeats(seen_bytes, unique_bytes))
    bits = (
        law["floor"]
        + law["size_scale"] * matrix_parameters ** -law["size_exponent"]
        + law["data_scale"] * data ** -law["data_exponent"]
    )

    bits = min(bits * difficulty, 8.0)
    error = law["relative_error"] * min(
        max((LITTLE_BYTES / data) ** LITTLE_EXPONENT, 1.0), LITTLE_MOST
    )

    return Prediction(bits, bits * (1 - error), bits * (1 + error))


NEAR = 0.75
"""Octaves within which a power of two is as good as the best one. Measured speeds waver, and a run
should find what an earlier run with a slightly other speed has put into the store.
"""


def near_powers_of_two(wanted: float) -> list[int]:
    """Return the powers of two that are about `wanted`, nearest first; one or two."""
    octave = math.log2(wanted)
    near = [k for k in (math.floor(octave), math.ceil(octave)) if abs(octave - k) < NEAR]
    return [2**k for k in sorted(set(near), key=lambda k: abs(octave - k))]


def choose_batch_tokens(expected_tokens: float, context_length: int) -> int:
    """Return the tokens of an optimizer step: a power of two, at least one sequence."""
    rule = load_calibration()["batch"]
    wanted = rule["tokens"] * (max(expected_tokens, 1.0) / rule["at_tokens"]) ** rule["exponent"]
    wanted = min(max(wanted, rule["smallest"]), rule["largest"])
    return max(context_length, 2 ** round(math.log2(wanted)))


def choose_context_length(expected_tokens: float, train_tokens: int) -> int:
    """Return the tokens of a sequence: longer when there is time to learn from far back, never
    above the text.
    """
    rule = load_calibration()["context"]
    wanted = int(rule["tokens"])
    threshold = rule["long_from_tokens"]
    while expected_tokens >= threshold and wanted < rule["longest"]:
        wanted *= 2
        threshold *= 8
    while wanted > 8 and wanted * 4 > train_tokens:
        wanted //= 2
    return wanted


class LearningRates(NamedTuple):
    """Peak learning rates of the four kinds of parameters."""

    matrix: float
    embedding: float
    head: float
    gain: float


def choose_learning_rates(batch_tokens: int, model_dim: int, scale: float = 1.0) -> LearningRates:
    """Return peak rates: by the square root of the batch, the head's also by the width.

    Source of the exponents: nanochat, scripts/base_train.py; the values are our own sweep's.
    """
    rule = load_calibration()["rates"]
    by_batch = scale * (batch_tokens / rule["at_batch_tokens"]) ** rule["batch_exponent"]
    by_width = (model_dim / rule["at_model_dim"]) ** rule["head_dim_exponent"]
    return LearningRates(
        matrix=rule["matrix"] * by_batch,
        embedding=rule["embedding"] * by_batch * by_width,
        head=rule["head"] * by_batch * by_width,
        gain=rule["gain"] * by_batch,
    )


FEW_EPOCHS = 5.0
"""Readings up to which a text is learnt better without dropout."""


class Regularization(NamedTuple):
    """What keeps a model from learning a repeated text by heart."""

    weight_decay: float
    dropout: float


def choose_regularization(epochs: float, parameters_per_token: float) -> Regularization:
    """Return weight decay and dropout by how often the text is read, by a model of how many
    parameters a token of it.

    Measured with 2 layers x 128: 100 kB read 30 times (10 parameters a token) 3.13 bits per byte
    with 0.3 and 0.1, 2.36 with 1.0 and 0.2; 1 MB read 10 times (1 a token) 1.87 with the former,
    1.98 with the latter. With 4 layers x 256, 1 MB read 3 times (10 a token) 1.836 with the former;
    with the latter, read 5 times, 1.885. Read 6 times, 1.874 without dropout and 1.826 with it.
    Read 2.5 times (8.5 a token), in as many steps, 1.829, 1.826, 1.833 and 1.843 with a decay of
    0.05, 0.1, 0.2 and 0.3, and 1.833 with 0.1 and dropout 0.1; read 5 times, 1.870 with 0.1 and
    1.809 with 0.3. With 2 layers x 192 (2.7 a token), 5 times, 1.844, 1.840, and with 0.1 and
    dropout 0.1 1.837.
    """
    if epochs <= 2:
        return Regularization(0.0, 0.0)
    if epochs <= FEW_EPOCHS:
        return Regularization(0.3 * (epochs - 1) / (FEW_EPOCHS - 1), 0.0)
    pressure = epochs * parameters_per_token
    if pressure <= 5:
        return Regularization(0.1, 0.05)
    if pressure <= 100:
        return Regularization(0.3, 0.1)
    return Regularization(1.0, 0.2)


CONTEXT_RAMP = 0.6
"""Of the budget. 1,000 steps of 2 layers x 192, pairs of runs of the same CPU time
(benchmarks/ablations.py): with 0.4, 0.26 to 0.63 % fewer bits per byte in four on two texts with a
context of 128, and 0.99 % with 256; with 0.6, 0.38, 0.68 and 1.29 % in three of them; with 0.8, 0.2
and 0.9 %. After 3,000 steps, 0.17 % with 0.4.
"""

LEAST_RAMPED_CONTEXT = 128
"""Tokens; half of it was tried and no less."""


def choose_context_ramp(context_length: int, *, is_compiled: bool) -> float:
    """Return the share of the budget, at its start, that is trained with half the context.

    None where layers are compiled: for a second shape they would be compiled again.
    """
    return 0.0 if is_compiled or context_length < LEAST_RAMPED_CONTEXT else CONTEXT_RAMP


def expected_efficiency(model_dim: int) -> float:
    """Return the share of the matrix rate that training reaches at a width before anything is
    timed.
    """
    rule = load_calibration()["speed"]
    return min(
        rule["most_efficiency"], rule["efficiency"] * (model_dim / 192) ** rule["width_exponent"]
    )


def usable_flops(flops_per_second: float, seconds: float) -> float:
    """Return the operations that training can spend, by the usual efficiency, before anything is
    timed.
    """
    return flops_per_second * load_calibration()["speed"]["efficiency"] * max(1.0, seconds * 0.8)


GENEROUS_BYTES_PER_TOKEN = 8.0
"""Twice what a token of a small vocabulary stands for: reading text is cheap, missing it costs
quality.
"""


def estimate_needed_bytes(flops_per_second: float, seconds: float) -> list[int]:
    """Return the bytes of text that a small model could read in the time: powers of two, >= 4 MiB,
    the best first.
    """
    tokens = usable_flops(flops_per_second, seconds) / (6 * 300_000)
    return near_powers_of_two(max(4.0 * 2**20, tokens * GENEROUS_BYTES_PER_TOKEN))

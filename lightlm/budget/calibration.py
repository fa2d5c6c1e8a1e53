"""The constants of the rules of scale: one frozen class per law, with units, papers and doubts.

The values are in calibration.json. `benchmarks/calibrate.py fit --write` fits those of the loss law
again. What no run has measured is called an assumption here.
"""

from functools import lru_cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict

CALIBRATION = Path(__file__).parent / "calibration.json"


class Law(BaseModel):
    """Constants of one law. Positive, but for exponents."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class LossLaw(Law):
    """bits per byte = difficulty x (floor + size_scale x N^-a + data_scale x D^-b).

    1) Law: Hoffmann et al. (arXiv 2203.15556), in bits per byte instead of nats per token.
    2) Exponents: of the fits within 10 % of the best, the nearest to Besiroglu et al.
       (arXiv 2404.10102). Our runs span one decade of sizes and cannot tell exponents apart.
    3) Repeated text: Muennighoff et al. (arXiv 2305.16264).
    """

    floor: float
    """Bits per byte of an infinite model after infinite text."""
    size_scale: float
    """Bits per byte of a model of one matrix parameter."""
    size_exponent: float
    data_scale: float
    """Bits per byte after one byte of text."""
    data_exponent: float
    repeats_worth: float
    """Multiple of the unique text that all its repeats together are worth at most."""
    relative_error: float
    """Half the width of the interval that holds about nine of ten runs, relative."""
    little_bytes: float
    """Bytes of text below which the interval widens: the speed of so short a run was timed while
    the machine was still starting. From runs of seconds on two cores; no fit is recorded.
    """
    little_exponent: float
    """Exponent by which it widens; no fit is recorded."""
    most_error_factor: float
    """Factor by which it widens at most. Assumption, not measured."""
    most_bits_per_byte: float
    """Bits per byte of guessing: no model scores worse."""


class Repeats(Law):
    """Epochs and parameters beyond which a small text is memorized instead of learned.

    Measured on 100 kB and 1 MB (docs/results.md); larger texts follow Muennighoff et al.
    (arXiv 2305.16264), who find four epochs almost as good as fresh text.
    """

    epochs_at_1MB: float
    """Epochs that help on a text of 1 MB."""
    epochs_exponent_below: float
    """Exponent of the size of a smaller text."""
    epochs_exponent_above: float
    """Exponent of the size of a larger text. Assumption, not measured."""
    parameters_per_byte: float
    """Matrix parameters per byte of text beyond which a larger model does not score better."""


class Difficulty(Law):
    """Text difficulty: bits per byte of a byte n-gram model, relative to WikiText-2."""

    reference_bits: dict[int, float]
    """Bytes of sample -> bits per byte of the n-gram model on as much of WikiText-2. Measured."""
    least: float
    most: float
    """Bounds of the difficulty; beyond them the law was fitted to no text. Assumption."""


class Vocabulary(Law):
    """Bytes per token of a byte-level BPE: linear in the logarithm of its entries."""

    bytes_at_1024: float
    """Bytes per token with 1,024 entries, of a text of difficulty 1. Measured on WikiText-2."""
    bytes_per_doubling: float
    """Bytes per token that twice the entries add. Measured on WikiText-2."""
    smallest: int
    largest: int
    """Entries that are considered."""
    bytes_per_entry: float
    """Bytes of text that an entry needs to be learned. Assumption, not measured."""
    as_good: float
    """Relative loss within which another size is as good: the store may have it already."""


class Batch(Law):
    """Tokens per optimizer step: a power of the tokens that training will read.

    It grows with the data: Bergsma et al. (arXiv 2505.13738) find the exponent 0.383, as nanochat
    uses. The value at `at_tokens` is ours; no fit of it is recorded.
    """

    tokens: int
    """Tokens per step when training reads `at_tokens`."""
    at_tokens: float
    exponent: float
    smallest: int
    largest: int
    """Tokens per step that are considered."""


class Context(Law):
    """Tokens per sequence, and the share of training that uses half of them.

    The ramp is measured (benchmarks/ablations.py, docs/results.md): 0.3 to 1.3 % fewer bits per
    byte after 1,000 steps. When the context grows is an assumption, not measured on GPUs.
    """

    tokens: int
    """Tokens per sequence of a short run."""
    long_from_tokens: float
    """Tokens of training from which the context doubles for the first time."""
    tokens_per_doubling: float
    """Factor on the tokens of training for each further doubling."""
    shortest: int
    longest: int
    """Tokens per sequence that are considered."""
    sequences_in_text: int
    """Sequences that the training text has to hold at least."""
    ramp_fraction: float
    """Fraction of the training time, at its start, that uses half the context."""
    least_ramped: int
    """Tokens of the shortest context that is halved; no half below 64 was tried."""
    guessed_flops_per_token: float
    """Operations per token of the shape that is guessed before one is chosen. Assumption."""


class Rates(Law):
    """Peak learning rates of the four kinds of parameters.

    Exponents: nanochat (scripts/base_train.py): square root of the batch, and head and embedding by
    the inverse square root of the width. Values: our own sweep at `at_batch_tokens` and
    `at_model_dim`. Transfer to widths above 512 is an assumption.
    """

    matrix: float
    embedding: float
    head: float
    gain: float
    at_batch_tokens: int
    at_model_dim: int
    batch_exponent: float
    head_dim_exponent: float


class RegularizationLevel(Law):
    """Weight decay and dropout up to a pressure: epochs x matrix parameters per token of text."""

    most_pressure: float | None
    """None: unbounded, the last level."""
    weight_decay: float
    dropout: float


class RegularizationRule(Law):
    """Weight decay and dropout of a text that is read more than once.

    Measured with 0.4 to 3 M parameters on 100 kB and 1 MB (table in docs/results.md). That epochs
    and parameters per token matter as their product is an assumption.
    """

    fresh_epochs: float
    """Epochs up to which nothing is memorized, so that neither is used."""
    few_epochs: float
    """Epochs up to which weight decay alone scores better than with dropout."""
    few_epochs_weight_decay: float
    """Weight decay at `few_epochs`; linear below, from one epoch on."""
    levels: tuple[RegularizationLevel, ...]
    """Beyond `few_epochs`, by rising pressure."""


class Speed(Law):
    """Speed of training before a shape is timed, and the price of compiling. Two EPYC cores."""

    efficiency: float
    """Fraction of the rate of matrix products that training reaches at `at_model_dim`."""
    at_model_dim: int
    width_exponent: float
    most_efficiency: float
    """Fraction of the rate of matrix products that no width exceeds."""
    training_fraction: float
    """Fraction of the time left that training gets; the rest is timing, scoring, registration."""
    scoring_speedup: float
    """Tokens per second of scoring over those of training: one pass instead of three."""
    compile_speedup: float
    """Steps per second of compiled layers over eager ones."""
    compile_seconds: float
    """Seconds that compiling takes the first time."""
    warm_compile_seconds: float
    """Seconds that it takes when the compiler's cache has the layer."""
    least_compile_gain: float
    """Factor on a run's steps from which compiling is tried. Assumption, not measured."""


class NeededText(Law):
    """Text to fetch: reading is cheap and missing text costs quality, so it is too much."""

    parameters: int
    """Matrix parameters of a small model, which reads the most text in a given time."""
    bytes_per_token: float
    """Bytes per token: twice what a small vocabulary has. Assumption, on the safe side."""
    least_bytes: float
    octaves: float
    """Octaves within which a power of two is as good as the best one: measured speeds waver, and a
    run should find what an earlier one put into the store.
    """


class Calibration(BaseModel):
    """All constants of the rules of scale."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str
    loss: LossLaw
    repeats: Repeats
    difficulty: Difficulty
    vocabulary: Vocabulary
    batch: Batch
    context: Context
    rates: Rates
    regularization: RegularizationRule
    speed: Speed
    text: NeededText


@lru_cache(maxsize=1)
def load_calibration() -> Calibration:
    """Return the constants of all rules."""
    return Calibration.model_validate_json(CALIBRATION.read_bytes())

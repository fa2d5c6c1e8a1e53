"""The constants of the rules of scale: one frozen class per law, with units, papers and doubts.

The values are in calibration.json. `benchmarks/calibrate.py fit --write` fits those of the loss law
again. What no run has measured is called an assumption.
"""

from functools import lru_cache
from pathlib import Path

from pydantic import BaseModel

CALIBRATION = Path(__file__).parent / "calibration.json"


class Law(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """Constants of one law. Positive, but for exponents."""


class LossLaw(Law, frozen=True):
    """bits per byte = difficulty x (floor + size_scale x N^-a + data_scale x D^-b).

    Law: Hoffmann et al. (arXiv 2203.15556), in bits per byte instead of nats per token.
    Exponents and floor: 18 runs of ours (0.3 to 3.7 M parameters) and 18 published ones (29 to
    918 M), each published source with a factor of its own (benchmarks/law_fit.py). The best size
    grows with the operations to the power 0.56; nanochat measured 0.54.
    Doubt: a lower floor with smaller exponents fits as well; the floor is no entropy of text.
    Repeated text: Muennighoff et al. (arXiv 2305.16264).
    """

    floor: float  # bits per byte of an infinite model after infinite text
    size_scale: float  # bits per byte of a model of one matrix parameter
    size_exponent: float
    data_scale: float  # bits per byte after one byte of text
    data_exponent: float
    repeats_worth: float  # multiple of the unique text that all its repeats are worth at most
    relative_error: float  # half of the interval that holds about nine of ten runs
    # Below `little_bytes` of text the interval widens: so short a run was timed while the machine
    # still started. From runs of seconds on two cores; no fit is recorded.
    little_bytes: float
    little_exponent: float
    most_error_factor: float  # factor by which it widens at most; assumption
    most_bits_per_byte: float  # guessing; no model scores worse
    # Beyond the sizes and the text of our own runs, the interval widens by the fraction `far_error`
    # with each e-fold. Recipes of other sources on one text differ by 8 to 11 %.
    far_parameters: float
    far_bytes: float
    far_error: float


class Repeats(Law, frozen=True):
    """Epochs and parameters beyond which a small text is memorized instead of learned.

    Measured on 100 kB and 1 MB (docs/results.md); larger texts follow Muennighoff et al.
    (arXiv 2305.16264), who find four epochs almost as good as fresh text.
    """

    epochs_at_1MB: float  # epochs that help on a text of 1 MB
    epochs_exponent_below: float  # exponent of the size of a smaller text
    epochs_exponent_above: float  # exponent of the size of a larger text; assumption
    parameters_per_byte: float  # matrix parameters per byte of text that still help


class Difficulty(Law, frozen=True):
    """Text difficulty: bits per byte of a byte n-gram model, relative to WikiText-2."""

    reference_bits: dict[int, float]  # bytes of sample -> bits per byte on WikiText-2; measured
    least: float  # bounds; beyond them the law was fitted to no text
    most: float


class Vocabulary(Law, frozen=True):
    """Bytes per token of a byte-level BPE: linear in the logarithm of its entries (WikiText-2).

    Measured to 8,192 entries. nanochat's tokenizers of 65,536 have 4.9 bytes per token of web text,
    0.2 more than those of 32,768. Where counts of tokens are mixed in, 4,096 and 8,192 entries
    scored alike (docs/results.md).
    """

    bytes_at_1024: float  # bytes per token with 1,024 entries, of a text of difficulty 1
    bytes_per_doubling: float  # bytes per token that twice the entries add
    large: int  # entries from which another doubling adds less
    bytes_per_doubling_of_large: float
    smallest: int  # entries that are considered
    largest: int
    counted_smallest: int  # entries that are considered where counts are mixed in
    bytes_per_entry: float  # bytes of text that an entry needs to be learned; assumption
    as_good: float  # relative loss within which another size is as good: the store may have it
    # Above `doubted_above`, a size has to beat a smaller one by the relative loss `doubt`: the law
    # counts the head's parameters like any others, and no run of ours has so many entries.
    doubted_above: int
    doubt: float


class Batch(Law, frozen=True):
    """Tokens per optimizer step: a power of the tokens that training will read.

    Exponents: Bergsma et al. (arXiv 2505.13738) find 0.383, as nanochat uses. The value at
    `at_tokens` is ours, for a CPU, where a small batch costs no speed; no fit of it is recorded.
    Accelerators: autoresearch's 126 experiments on an H100 end at 262,144 tokens per step of 458 M
    tokens, 25 on an M5 Max at 32,768 of 62 M. Between such runs the batch grows with the tokens
    themselves, because a smaller one leaves the device idle; above, by 0.383 (nanochat: 524,288 at
    1.3 B, 1,048,576 at 7.6 B). Doubt: no GPU ran our trainer.
    """

    tokens: int  # tokens per step when training reads `at_tokens`
    at_tokens: float
    exponent: float
    accelerator_tokens: int  # tokens per step on a GPU when training reads `accelerator_at_tokens`
    accelerator_at_tokens: float
    accelerator_exponent_below: float
    accelerator_exponent_above: float
    smallest: int  # tokens per step that are considered
    largest: int


class Context(Law, frozen=True):
    """Tokens per sequence, and the fraction of training that uses half of them.

    The ramp is measured (benchmarks/ablations.py, docs/results.md): 0.3 to 1.3 % fewer bits per
    byte after 1,000 steps. When the context grows is an assumption, not measured on GPUs.
    """

    tokens: int  # tokens per sequence of a short run
    long_from_tokens: float  # tokens of training from which the context doubles first
    tokens_per_doubling: float  # factor on them for each further doubling
    shortest: int  # tokens per sequence that are considered
    longest: int
    sequences_in_text: int  # sequences that the training text has to hold at least
    ramp_fraction: float  # fraction of the training time, at its start, with half the context
    least_ramped: int  # tokens of the shortest context that is halved; no half below 64 was tried
    guessed_flops_per_token: (
        float  # of a small shape that is guessed before one is chosen; assumption
    )


class Rates(Law, frozen=True):
    """Peak learning rates of the four kinds of parameters.

    Exponents: nanochat (scripts/base_train.py): square root of the batch, and head and embedding by
    the inverse square root of the width. Values: our own sweep at `at_batch_tokens` and
    `at_model_dim`. Transfer to widths above 512 is an assumption.
    Large batches: published runs at 262,144 to 524,288 tokens have Muon's rate at 0.02 to 0.04, the
    head's at our own, and the embedding's at six times ours, once converted by width. So the root
    of the batch holds up to a factor each, and not beyond. Doubt: their models differ from ours.
    """

    matrix: float
    embedding: float
    head: float
    gain: float
    at_batch_tokens: int
    at_model_dim: int
    batch_exponent: float
    head_dim_exponent: float
    most_matrix_factor: float  # factors by a large batch at most; gains follow the matrices
    most_embedding_factor: float
    most_head_factor: float


class RegularizationLevel(Law, frozen=True):
    """Weight decay and dropout up to a pressure: epochs x matrix parameters per token of text."""

    most_pressure: float | None  # None: unbounded, the last level
    weight_decay: float
    dropout: float


class RegularizationRule(Law, frozen=True):
    """Weight decay and dropout of a text that is read more than once.

    Measured with 0.4 to 3 M parameters on 100 kB and 1 MB (table in docs/results.md). That epochs
    and parameters per token matter as their product is an assumption.
    """

    fresh_epochs: float  # epochs up to which nothing is memorized, so that neither is used
    few_epochs: float  # epochs up to which weight decay alone scores better than with dropout
    few_epochs_weight_decay: float  # at `few_epochs`; linear below, from one epoch on
    levels: tuple[RegularizationLevel, ...]  # beyond `few_epochs`, by rising pressure


class Speed(Law, frozen=True):
    """Speed of training before a shape is timed, and the price of compiling. Two EPYC cores."""

    efficiency: float  # fraction of the rate of matrix products reached at `at_model_dim`
    at_model_dim: int
    width_exponent: float
    most_efficiency: float  # fraction of that rate that no width exceeds
    training_fraction: float  # of the time left; the rest is timing, scoring, registration
    scoring_speedup: float  # tokens per second of scoring over training: one pass instead of three
    compile_speedup: float  # steps per second of compiled layers over eager ones
    compile_seconds: float  # seconds that compiling takes the first time
    warm_compile_seconds: float  # seconds that it takes when the compiler's cache has the layer
    least_compile_gain: float  # factor on a run's steps from which it is tried; assumption


class NeededText(Law, frozen=True):
    """Text to fetch: what the best size for the operations reads, by the loss law, and a margin.

    Reading is cheap and missing text costs quality, so the margin is on the safe side.
    """

    margin: float  # factor on what the best size reads; narrower shapes read more
    parameters: int  # matrix parameters of a small model; smaller ones waste a machine's speed
    bytes_per_token: float
    least_bytes: float
    # Octaves within which a power of two is as good as the best one: measured speeds waver, and a
    # run should find what an earlier one put into the store.
    octaves: float


class Calibration(BaseModel, frozen=True, extra="forbid"):
    """All constants of the rules of scale."""

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

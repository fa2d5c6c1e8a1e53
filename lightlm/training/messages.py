"""The request and the result of the worker's training job. No torch: both sides read it."""

from pathlib import Path

from pydantic import BaseModel

from lightlm.errors import StoreError
from lightlm.json_object import JsonObject
from lightlm.model.config import ModelConfig
from lightlm.store.commit import open_commit
from lightlm.training.config import TrainerConfig, Tuned

MODEL_FOLDER = "model"
"""Name of a run's committed Hugging Face folder."""


class SharedText(BaseModel, frozen=True):
    """The shards of a further text, and its share of the sequences that are read."""

    folder: Path
    share: float


class TrainRequest(BaseModel, frozen=True):
    """A training job. `deadline`: seconds of time.monotonic(), for the loop's end."""

    run_folder: Path
    shards_folder: Path
    cache_bytes: int = 1 << 30
    """Bytes of training tokens that lie elsewhere which are kept on this machine."""
    others: tuple[SharedText, ...] = ()
    tokenizer_folder: Path
    model: ModelConfig
    trainer: TrainerConfig
    deadline: float
    validation_tokens: int
    sample_tokens: int
    scoring_tokens: int = 0
    """Tokens of the held-out text that are scored after training."""
    scoring_seconds: float = 0.0
    """Seconds that `deadline` reserves for that score; validations correct them."""
    keep_best: bool = False
    generation: dict[str, float | int] = {}
    start_folder: Path | None = None
    """The Hugging Face folder whose weights training goes on from; None: from scratch."""
    keep_start: bool = False
    """Whether the start's weights are the result where training did not improve on them."""
    least_seconds: float = 0.0
    """Seconds to `deadline` below which a start that is kept is not trained at all."""
    counts_folder: Path | None = None
    """The count tables that the model is mixed with; a part of the text is held back for that."""
    gate_seconds: float = 1.0
    """Seconds that the network may read the text held back."""


class TrainResult(BaseModel, frozen=True):
    """The result of a run. `folder` is the committed Hugging Face folder."""

    folder: Path
    step: int
    total_tokens: int
    training_seconds: float
    final_learning_rate_factor: float
    tokens_per_second: float
    micro_batch_size: int
    memory_bytes: int
    is_stopped: bool
    used_best_checkpoint: bool
    num_rollbacks: int = 0
    start_bits_per_byte: float | None = None
    """Score of the validation sample before the first step, where the run guards its start."""
    final_bits_per_byte: float | None = None
    """Score of the same sample with the weights that were kept."""
    kept_start: bool = False
    """Whether training did not improve on the start, whose weights are the result."""
    ended_at: float = 0.0
    """Seconds of time.monotonic() at the end of the last step."""
    gate_seconds: float = 0.0
    """Seconds that fitting the gate took."""


class TunedTiming(BaseModel, frozen=True):
    """Seconds of training with some weights tuned: per token, and per update of the weights."""

    tuned: Tuned
    num_layers: int = 0
    """Layers that are trained, where `tuned` is last."""
    token_seconds: float
    update_seconds: float
    frozen_bytes: int = 4
    """Bytes in which a frozen weight is kept."""


class BaseProbe(BaseModel, frozen=True):
    """Figures of a base on this text and machine, before anything is trained.

    `bits_per_byte`: untouched, on `num_bytes` that are spread over the held-out text, in windows of
    the context that training has. Where those take too long, estimated from shorter ones.
    """

    bits_per_byte: float
    num_doublings: float = 0.0
    """Doublings of the window that was scored to the one that `bits_per_byte` is of."""
    num_bytes: int
    num_tokens: int
    score_tokens_per_second: float
    timings: tuple[TunedTiming, ...]

    @property
    def bytes_per_token(self) -> float:
        """Bytes of raw text that a token of the base stands for."""
        return self.num_bytes / max(1, self.num_tokens)

    def describe(self) -> str:
        """Return "1.234 bits per byte on 5,678 bytes of the held-out text"."""
        text = f"{self.bits_per_byte:.3f} bits per byte on {self.num_bytes:,} bytes"
        short = ", estimated from short windows" if self.num_doublings else ""
        return f"{text} of the held-out text{short}"


class Memorization(BaseModel, frozen=True):
    """What a model repeats: how many prefixes of the training and of the held-out text were tried,
    and how many of them it continues verbatim, the network alone and with its count tables.
    """

    num_prefixes: tuple[int, int]
    network: tuple[int, int]
    together: tuple[int, int] | None
    longest_copy: str
    """The longest piece of the samples that stands in the training text."""
    sample_characters: int


def read_result(run_folder: Path) -> tuple[TrainResult, list[JsonObject]] | None:
    """Return the result and newest events of a run that trained to its end.

    None if its model is missing, damaged or incomplete.
    """
    try:
        meta = open_commit(run_folder / MODEL_FOLDER, "model").meta
    except StoreError:
        return None
    result = meta.get("result")
    if result is None or result["is_stopped"]:
        return None
    return TrainResult.model_validate(result), meta.get("events", [])

"""The request and the result of the worker's training job. No torch: both sides read it."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from lightlm.errors import StoreError
from lightlm.json_object import JsonObject
from lightlm.model.config import ModelConfig
from lightlm.store.commit import open_commit
from lightlm.training.config import TrainerConfig

MODEL_FOLDER = "model"
"""Name of a run's committed Hugging Face folder."""


class TrainRequest(BaseModel):
    """A training job. `deadline`: seconds of time.monotonic(), for the loop's end."""

    model_config = ConfigDict(frozen=True, protected_namespaces=())

    run_folder: Path
    shards_folder: Path
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


class TrainResult(BaseModel):
    """The result of a run. `folder` is the committed Hugging Face folder."""

    model_config = ConfigDict(frozen=True)

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
    ended_at: float = 0.0
    """Seconds of time.monotonic() at the end of the last step."""


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

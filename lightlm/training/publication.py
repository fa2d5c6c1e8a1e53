"""What a run leaves: the committed Hugging Face folder with its result beside it, written and found again."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightlm.errors import StoreError, TrainingError
from lightlm.model.hugging_face import export_model
from lightlm.model.transformer import Transformer
from lightlm.store.commit import commit_folder, open_commit, remove_folder
from lightlm.training.checkpoint import is_finite
from lightlm.training.messages import TrainRequest, TrainResult

MODEL_FOLDER = "model"


def read_result(run_folder: Path) -> tuple[TrainResult, list[dict[str, Any]]] | None:
    """Return the result and newest events of a run that trained to its end.

    None where its model is missing, damaged or half-way.
    """
    try:
        meta = open_commit(run_folder / MODEL_FOLDER, "model").meta
    except StoreError:
        return None
    result = meta.get("result")
    if result is None or result["is_stopped"]:
        return None
    return TrainResult.model_validate(result), meta.get("events", [])


def publish(
    model: Transformer, request: TrainRequest, result: TrainResult, events: Sequence[dict[str, Any]] = ()
) -> None:
    """Commit the model's Hugging Face folder with the result and events beside it; an earlier one gives way.

    Raises:
        TrainingError: a weight is not finite; nothing is committed.
    """
    if not is_finite(dict(model.named_parameters())):
        raise TrainingError("the weights are not finite and there is no earlier state; give a smaller learning rate")
    if result.folder.exists():
        remove_folder(result.folder)

    def write(temporary: Path) -> dict[str, object]:
        export_model(model, request.tokenizer_folder, temporary, generation=request.generation)
        return {
            "step": result.step,
            "total_tokens": result.total_tokens,
            "result": result.model_dump(mode="json"),
            "events": list(events),
        }

    commit_folder(result.folder, "model", write)

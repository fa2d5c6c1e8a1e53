"""The result of a run: the committed Hugging Face folder with its figures next to it."""

from collections.abc import Sequence
from pathlib import Path

from lightlm.errors import TrainingError
from lightlm.json_object import JsonObject
from lightlm.model.hugging_face import export_model
from lightlm.model.transformer import Transformer
from lightlm.store.commit import commit_folder, remove_folder
from lightlm.training.checkpoint import is_finite
from lightlm.training.messages import TrainRequest, TrainResult


def publish(
    model: Transformer,
    request: TrainRequest,
    result: TrainResult,
    events: Sequence[JsonObject] = (),
) -> None:
    """Commit the model's Hugging Face folder with result and events; it replaces an earlier one.

    Raises:
        TrainingError: a weight is not finite; nothing is committed.
    """
    if not is_finite(dict(model.named_parameters())):
        raise TrainingError(
            "the weights are not finite and there is no earlier state; give a smaller learning rate"
        )

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

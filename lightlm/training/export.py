"""The result of a run: the committed Hugging Face folder with its figures next to it."""

import json
import time
from collections.abc import Sequence
from pathlib import Path

from lightlm.data.shards import TokenShards
from lightlm.data.tokenization.tokenizer import BASE_FILE
from lightlm.errors import TrainingError
from lightlm.json_object import JsonObject
from lightlm.model.adapters import copy_merged, has_adapters, save_adapters
from lightlm.model.hugging_face import export_model
from lightlm.model.transformer import Transformer
from lightlm.store.commit import commit_folder, remove_folder
from lightlm.training.checkpoint import is_finite
from lightlm.training.messages import MODEL_FOLDER, TrainRequest, TrainResult
from lightlm.training.mixing import add_tables, fit_gate_for
from lightlm.training.ranks import ALONE, Ranks
from lightlm.training.sharding import gather_model
from lightlm.training.timing import used_memory

ADAPTER_FOLDER = "adapter"
"""Folder within the model's with the adapters in PEFT's format: below it, so that no library
takes them for a part of the model.
"""


def publish(
    model: Transformer,
    request: TrainRequest,
    result: TrainResult,
    events: Sequence[JsonObject] = (),
    shards: TokenShards | None = None,
) -> TrainResult:
    """Commit the model's Hugging Face folder with result and events; it replaces an earlier one.

    With `shards`, the request's count tables go with it, if they gain on the text held back for
    that. Return the result, with the seconds that this took.

    Raises:
        TrainingError: a weight is not finite; nothing is committed.
    """
    if not is_finite(dict(model.named_parameters())):
        raise TrainingError(
            "the weights are not finite and there is no earlier state; give a smaller learning rate"
        )

    if result.folder.exists():
        remove_folder(result.folder)

    started = time.monotonic()
    gate = None if shards is None or result.is_stopped else fit_gate_for(request, model, shards)
    result = result.model_copy(update={"gate_seconds": time.monotonic() - started})

    start = request.start_folder
    is_from_base = start is not None and (start / BASE_FILE).is_file()
    merged = copy_merged(model) if has_adapters(model) else model

    def write(temporary: Path) -> dict[str, object]:
        export_model(
            merged,
            request.tokenizer_folder,
            temporary,
            generation=request.generation,
            base_folder=start if is_from_base else None,
        )
        if merged is not model:
            save_adapters(model, temporary / ADAPTER_FOLDER, name_base(start))
        if gate is not None and request.counts_folder is not None:
            add_tables(temporary, request.counts_folder, gate)
        return {
            "step": result.step,
            "total_tokens": result.total_tokens,
            "result": result.model_dump(mode="json"),
            "events": list(events),
        }

    commit_folder(result.folder, "model", write)
    return result


def publish_untouched(
    model: Transformer, request: TrainRequest, ranks: Ranks = ALONE
) -> TrainResult:
    """Commit the weights that a run started from as its result; nothing was trained."""
    trainer = request.trainer
    result = TrainResult(
        folder=request.run_folder / MODEL_FOLDER,
        step=0,
        total_tokens=0,
        training_seconds=0.0,
        final_learning_rate_factor=0.0,
        tokens_per_second=0.0,
        micro_batch_size=trainer.micro_batch_size,
        memory_bytes=used_memory(trainer.device),
        is_stopped=False,
        used_best_checkpoint=False,
        kept_start=True,
        ended_at=time.monotonic(),
    )
    whole = gather_model(model, ranks.is_first)
    if whole is not None:
        return publish(whole, request, result)
    return result


def name_base(folder: Path | None) -> str:
    """Return the id of the base in a folder; "" where it names none."""
    path = None if folder is None else folder / BASE_FILE
    if path is None or not path.is_file():
        return ""
    return str(json.loads(path.read_text(encoding="utf-8")).get("id", ""))

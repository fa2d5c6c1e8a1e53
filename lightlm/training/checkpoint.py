"""Checkpoints: complete, durable states of training in immutable folders; the newest that verifies
is the latest.

Weights and optimizer state as safetensors, the rest as JSON in the commit's meta. Nothing here can
run code.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from lightlm.errors import CorruptError, ParameterError, TrainingError
from lightlm.json_object import JsonObject
from lightlm.model.config import ModelConfig
from lightlm.model.families import read_config
from lightlm.model.hugging_face import fill_model, load_model
from lightlm.model.transformer import Transformer
from lightlm.store.commit import commit_folder, open_commit, remove_folder
from lightlm.store.stage import set_aside
from lightlm.training.optimizer import Optimizer, list_trained
from lightlm.training.ranks import ALONE, Ranks
from lightlm.training.sharding import gather, is_sharded, like, local, put, send

BEST = "best.safetensors"
"""The weights of the best validation, in the checkpoint of a run that keeps them."""

KEPT = 2
"""Newest checkpoints kept: the last, and the one before it in case the last does not verify."""

_NAME = re.compile(r"^step-(\d{9})$")


RENAMED = {"learning_rate_share": "learning_rate_scale", "usual_loss": "loss_ema"}
"""Fields of the state that had another name in checkpoints of version 0.1."""


@dataclass(frozen=True)
class TrainingState:
    """Where training is. The position in the data is the step: order is a pure function of it."""

    step: int = 0
    total_tokens: int = 0
    spent_seconds: float = 0.0
    micro_batch_size: int | None = None
    best_bits_per_byte: float | None = None
    training_seconds: float = 0.0
    learning_rate_factor: float = 1.0
    learning_rate_scale: float = 1.0
    loss_ema: float | None = None
    rollbacks: int = 0
    start_bits_per_byte: float | None = None
    """Score of the validation sample before the first step, where a run starts from weights."""
    events: list[JsonObject] = field(default_factory=list)
    """The newest ones, as a RecentEvents dumps them."""


def save_checkpoint(
    parent: Path,
    model: Transformer,
    optimizer: Optimizer,
    state: TrainingState,
    best_weights: Mapping[str, Tensor] | None = None,
    ranks: Ranks = ALONE,
) -> Path:
    """Commit the whole state under `parent` and drop checkpoints older than the last two; return
    the folder.

    `best_weights` are those of the best validation so far, where a run keeps them. The first of
    `ranks` writes, whole tensors also where each holds a shard; the others check, and send their
    shards.

    Raises:
        TrainingError: a weight or the optimizer's state is not finite; nothing is saved.
        StoreError: the disk refused.
    """
    parts = {
        "model.safetensors": list_trained(model),
        "optimizer.safetensors": optimizer.state_tensors(),
    }

    if ranks.any(not all(map(is_finite, parts.values()))):
        raise TrainingError(
            f"after step {state.step} the weights are not finite; no checkpoint is made of them"
        )

    if best_weights is not None:
        parts[BEST] = dict(best_weights)

    path = parent / f"step-{state.step:09d}"
    if not ranks.is_first:
        for tensors in parts.values():
            send(tensors)
        return path

    # Not in `write`, which is not called where the step is saved already: the other ranks send all
    # the same.
    whole = {name: dict(gather(tensors)) for name, tensors in parts.items()}

    def write(folder: Path) -> dict[str, object]:
        for name, tensors in whole.items():
            save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, folder / name)
        return {"state": vars(state), "model": model.config.model_dump()}

    parent.mkdir(parents=True, exist_ok=True)
    folder = commit_folder(path, "checkpoint", write).folder
    for old in list_checkpoints(parent)[KEPT:]:
        remove_folder(old)

    return folder


@torch.no_grad()
def is_finite(tensors: Mapping[str, Tensor]) -> bool:
    """Return whether every number in every tensor is finite; one wait for the device in all."""
    floats = [local(tensor) for tensor in tensors.values() if tensor.is_floating_point()]
    checks = [torch.isfinite(tensor).all() for tensor in floats]
    return all(bool(torch.stack(same).all()) for same in _group_by_device(checks))


def load_best(folder: Path, model: Transformer) -> dict[str, Tensor] | None:
    """Return the best weights of a verified checkpoint, cut as `model` is; None if it has none."""
    path = folder / BEST
    if not path.exists():
        return None
    with open_tensors(path) as tensors:
        return {
            name: like(parameter, tensors[name]) for name, parameter in list_trained(model).items()
        }


def list_checkpoints(parent: Path) -> list[Path]:
    """Return the checkpoint folders under `parent`, newest first, not yet verified."""
    if not parent.is_dir():
        return []
    return sorted((p for p in parent.iterdir() if _NAME.match(p.name)), reverse=True)


def load_latest(
    home: Path,
    parent: Path,
    model: Transformer,
    optimizer: Optimizer,
    report: Callable[[Path, Path, CorruptError], None] = lambda folder, aside, error: None,
) -> TrainingState | None:
    """Load the newest checkpoint that verifies into model and optimizer; None where there is none.

    Those that do not verify are set aside, since a later checkpoint of the same step takes their
    name; `report` gets where it was, where it is now, and what is wrong with it.

    Raises:
        ParameterError: the newest that verifies belongs to a model of another shape.
        StoreError: one cannot be read at present; it stays.
    """
    for folder in list_checkpoints(parent):
        try:
            return load_checkpoint(folder, model, optimizer)
        except CorruptError as error:
            report(folder, set_aside(home, folder, "checkpoint"), error)
    return None


def load_checkpoint(folder: Path, model: Transformer, optimizer: Optimizer) -> TrainingState:
    """Load one checkpoint, its digests verified first.

    Raises:
        StoreError: it is no checkpoint, or a file does not have the digest of the manifest.
        ParameterError: it belongs to a model of another shape.
    """
    commit = open_commit(folder, "checkpoint")
    if ModelConfig.model_validate(commit.meta["model"]) != model.config:
        raise ParameterError(
            f"{folder} holds a model of another shape; start a new run or give the same settings"
        )
    load_weights(folder, model)
    with open_tensors(folder / "optimizer.safetensors") as tensors:
        optimizer.load_state_tensors(tensors)
    values: JsonObject = dict(commit.meta["state"])
    for before, now in RENAMED.items():
        if before in values:
            values[now] = values.pop(before)

    return TrainingState(**values)


def load_weights(folder: Path, model: Transformer) -> None:
    """Copy the weights of a verified checkpoint into `model`, in place: optimizers keep their
    views. Frozen weights are those of the start, which no checkpoint repeats.
    """
    with open_tensors(folder / "model.safetensors") as weights:
        for name, parameter in list_trained(model).items():
            put(parameter.data, weights[name])


class TensorFile(Mapping[str, Tensor]):
    """The tensors of a safetensors file by name, read when asked for: a rank needs its rows."""

    def __init__(self, file: safe_open) -> None:
        self._file = file

    def __getitem__(self, name: str) -> Tensor:
        return self._file.get_tensor(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._file.keys())

    def __len__(self) -> int:
        return len(self._file.keys())


@contextmanager
def open_tensors(path: Path) -> Iterator[TensorFile]:
    """Give the tensors of a safetensors file whose digest is verified."""
    with safe_open(path, framework="pt") as file:
        yield TensorFile(file)


def start_from(folder: Path, model: Transformer) -> None:
    """Copy the weights of a committed Hugging Face folder into `model`, in place; its digests are
    verified first.

    Raises:
        ParameterError: it holds a model of another shape.
    """
    folder = open_commit(folder).folder
    given = read_config(folder)
    if _without_context(given) != _without_context(model.config):
        raise ParameterError(
            f"{folder} holds a model of another shape than the plan's; train from scratch instead"
        )
    if not is_sharded(model):
        fill_model(folder, model)
        return

    weights = dict(load_model(folder).named_parameters())
    for name, parameter in model.named_parameters():
        put(parameter.data, weights[name])


def _without_context(config: ModelConfig) -> ModelConfig:
    """Return a shape whose weights are the same in every context."""
    return config.model_copy(update={"context_length": 8, "longest_context": None})


def drop_checkpoints(parent: Path) -> None:
    """Remove every checkpoint under `parent`; for a run whose model is registered."""
    for folder in list_checkpoints(parent):
        remove_folder(folder)
    remove_folder(parent)


def _group_by_device(checks: list[Tensor]) -> list[list[Tensor]]:
    groups: dict[torch.device, list[Tensor]] = {}
    for check in checks:
        groups.setdefault(check.device, []).append(check)
    return list(groups.values())

"""The optimizer of a model: Muon for layers' matrices and AdamW for the rest, or AdamW for all."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from torch import Tensor
from torch.nn import Parameter

from lightlm.model.config import ModelConfig
from lightlm.model.transformer import Transformer
from lightlm.training.adamw import AdamW, Moments, Slot
from lightlm.training.config import ADAMW_MATRIX_SHARE, TrainerConfig
from lightlm.training.device import DTYPES
from lightlm.training.muon import MatrixSlice, Muon
from lightlm.training.ranks import ALONE, Ranks
from lightlm.training.schedule import momentum_at
from lightlm.training.sharding import is_shard, like, put

if TYPE_CHECKING:
    from lightlm.training.sharded_muon import ShardedMuon

ADAPTER = ".adapters."
"""Part of the names of weights that are adapters (model.adapters)."""


def list_trained(model: Transformer) -> dict[str, Parameter]:
    """Return the weights that are trained, by name; frozen ones are left out."""
    return {name: weight for name, weight in model.named_parameters() if weight.requires_grad}


class Optimizer:
    """Steps all parameters of `model`; holds state that round-trips through `state_tensors`."""

    def __init__(self, model: Transformer, config: TrainerConfig, ranks: Ranks = ALONE) -> None:
        self.config = config
        trained = list_trained(model)
        matrices = {name for name in trained if _is_layer_matrix(name)}
        self.muon: Muon | ShardedMuon | None = None
        if config.optimizer == "muon":
            self.muon = _build_muon(model, config, matrices, ranks)

        self.adamw = AdamW((config.adam_beta1, config.adam_beta2))
        for name, parameter in trained.items():
            if name in matrices and self.muon is not None:
                continue
            peak, decay = self._adamw_rate(name, name in matrices)
            self.adamw.slots[name] = Slot(parameter, peak, decay)

    def _adamw_rate(self, name: str, is_matrix: bool) -> tuple[float, float]:
        config = self.config
        if ADAPTER in name:
            return config.matrix_learning_rate * ADAMW_MATRIX_SHARE, 0.0
        if is_matrix:
            return config.matrix_learning_rate * ADAMW_MATRIX_SHARE, config.weight_decay
        if name == "embedding":
            return config.embedding_learning_rate, 0.0
        if name == "head":
            return config.head_learning_rate, 0.0
        if name.endswith("router"):
            return config.head_learning_rate, 0.0
        return config.gain_learning_rate, 0.0

    def step(self, factor: float, progress: float) -> None:
        """Update every parameter at `factor` of its peak rate."""
        config = self.config
        if self.muon is not None:
            self.muon.step(
                config.matrix_learning_rate * factor,
                momentum_at(progress, config.momentum),
                config.weight_decay,
            )
        self.adamw.step(factor)

    def state_tensors(self) -> dict[str, Tensor]:
        """Return all state by name: momenta, and AdamW's averages and step counts."""
        tensors = dict(self.muon.state_tensors()) if self.muon is not None else {}
        for name, slot in self.adamw.slots.items():
            moments = {} if slot.moments is None else slot.moments._asdict()
            tensors |= {f"adamw.{name}.{key}": value for key, value in moments.items()}
        return tensors

    def load_state_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Take the state that `state_tensors` gave, its tensors whole; each is asked for once."""
        if self.muon is not None:
            for name, buffer in self.muon.state_tensors().items():
                put(buffer, tensors[name])

        for name, slot in self.adamw.slots.items():
            prefix = f"adamw.{name}."
            state = {
                key.removeprefix(prefix): like(slot.weight, tensors[key])
                for key in tensors
                if key.startswith(prefix)
            }
            if state:
                slot.moments = Moments(**state)


def _is_layer_matrix(name: str) -> bool:
    return name.endswith((".query_key_value", ".output", ".gate_up", ".down"))


def _build_muon(
    model: Transformer, config: TrainerConfig, names: set[str], ranks: Ranks
) -> "Muon | ShardedMuon":
    dtype = DTYPES[config.dtype]
    matrices = {name: parameter for name, parameter in model.named_parameters() if name in names}
    heights = {name: _list_heights(model.config, name, matrix) for name, matrix in matrices.items()}
    shards = {name: matrix for name, matrix in matrices.items() if is_shard(matrix)}
    if shards:
        from lightlm.training.sharded_muon import ShardedMuon

        return ShardedMuon(shards, heights, dtype)
    return Muon(list(_slice_matrices(matrices, heights)), dtype, ranks)


def _list_heights(config: ModelConfig, name: str, parameter: Tensor) -> list[int]:
    """Return the rows of the matrices stacked in a parameter: query, key, value; gate, up."""
    if name.endswith(".query_key_value"):
        key_rows = config.num_kv_heads * config.head_dim
        return [config.num_heads * config.head_dim, key_rows, key_rows]
    if name.endswith(".gate_up"):
        return [parameter.shape[-2] // 2] * 2
    return [parameter.shape[-2]]


def _slice_matrices(
    matrices: Mapping[str, Parameter], heights: Mapping[str, list[int]]
) -> Iterator[MatrixSlice]:
    for name, parameter in matrices.items():
        stack = [None] if parameter.dim() == 2 else list(range(parameter.shape[0]))
        for index in stack:
            whole = parameter.data if index is None else parameter.data[index]
            start = 0
            for height in heights[name]:
                yield MatrixSlice(name, whole[start : start + height], parameter, start, index)
                start += height

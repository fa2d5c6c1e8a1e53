"""Muon for a sharded model: one rank gets each whole matrix, orthogonalizes it, and scatters its
rows.

Momentum is sharded as its weights are. Two messages per step, whatever the number of matrices.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, distributed
from torch.distributed.tensor import DTensor

from lightlm.training.muon import orthogonalize, scale_of
from lightlm.training.sharding import local, rows_per_rank


class ShardedMuon:
    """Updates a sharded model's matrices; `heights` are rows of those stacked in one."""

    def __init__(
        self,
        parameters: Mapping[str, DTensor],
        heights: Mapping[str, list[int]],
        dtype: torch.dtype,
    ) -> None:
        self.parameters, self.heights, self.dtype = dict(parameters), dict(heights), dtype
        self.momenta = {
            name: torch.zeros_like(parameter, requires_grad=False)
            for name, parameter in self.parameters.items()
        }
        first = next(iter(self.parameters.values()))
        self.rank, self.size = first.device_mesh.get_local_rank(), first.device_mesh.size()
        self.owned = assign_owners(
            {name: weight.numel() for name, weight in self.parameters.items()}, self.size
        )

    @torch.no_grad()
    def step(self, learning_rate: float, momentum: float, weight_decay: float) -> None:
        """Move every matrix by one orthogonal update of size `learning_rate`."""
        sent = {}
        for name, parameter in self.parameters.items():
            assert parameter.grad is not None  # every matrix takes part in every step
            gradient = local(parameter.grad)
            buffer = local(self.momenta[name])
            buffer.lerp_(gradient, 1.0 - momentum)
            sent[name] = gradient.lerp_(buffer, momentum)

        mine = self._collect(sent)
        orthogonalize_all(mine, self.heights, self.dtype)
        for name, update in self._scatter(mine).items():
            weight = local(self.parameters[name])
            if weight_decay:
                weight.mul_(1.0 - learning_rate * weight_decay)
            weight.add_(update[: weight.shape[0]].to(weight.dtype), alpha=-learning_rate)

    def state_tensors(self) -> dict[str, Tensor]:
        """Return the momenta by name, in shards."""
        return {f"muon.{name}": buffer for name, buffer in self.momenta.items()}

    def _shard_size(self, name: str) -> int:
        """Return the numbers of a full shard, with which a smaller one is padded."""
        return rows_per_rank(self.parameters[name]) * self.parameters[name].shape[1:].numel()

    def _sizes(self) -> list[int]:
        """Return, for each rank, how many numbers of its matrices lie on one rank."""
        return [sum(map(self._shard_size, names)) for names in self.owned]

    def _collect(self, rows: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the whole matrices that this rank owns, made of every rank's `rows` of them."""
        sizes = self._sizes()
        outgoing = self._pack(rows, [name for names in self.owned for name in names])
        incoming = outgoing.new_empty(self.size * sizes[self.rank])
        distributed.all_to_all_single(incoming, outgoing, [sizes[self.rank]] * self.size, sizes)
        names = self.owned[self.rank]
        pieces = incoming.view(self.size, -1).split(
            [self._shard_size(name) for name in names], dim=1
        )

        wholes = {}
        for name, piece in zip(names, pieces, strict=True):
            shape = self.parameters[name].shape
            wholes[name] = piece.reshape(-1, *shape[1:])[: shape[0]]

        return wholes

    def _scatter(self, wholes: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return this rank's rows of every matrix, from the ranks that own them."""
        sizes = self._sizes()
        names = self.owned[self.rank]
        shards = [
            self._pack({name: self._rows_of(rank, name, wholes[name]) for name in names}, names)
            for rank in range(self.size)
        ]

        outgoing = torch.cat(shards)
        incoming = outgoing.new_empty(sum(sizes))
        distributed.all_to_all_single(incoming, outgoing, sizes, [sizes[self.rank]] * self.size)
        order = [name for names in self.owned for name in names]
        pieces = incoming.split([self._shard_size(name) for name in order])

        return {
            name: piece.view(-1, *self.parameters[name].shape[1:])
            for name, piece in zip(order, pieces, strict=True)
        }

    def _rows_of(self, rank: int, name: str, whole: Tensor) -> Tensor:
        rows = rows_per_rank(self.parameters[name])
        return whole[rank * rows : (rank + 1) * rows]

    def _pack(self, rows: Mapping[str, Tensor], names: Sequence[str]) -> Tensor:
        """Return the rows of `names`, flat, one after the other, each padded to a full shard."""
        device = local(next(iter(self.momenta.values()))).device
        packed = torch.zeros(sum(map(self._shard_size, names)), dtype=self.dtype, device=device)
        for name, place in zip(
            names, packed.split([self._shard_size(name) for name in names]), strict=True
        ):
            place[: rows[name].numel()].copy_(rows[name].flatten())
        return packed


def assign_owners(sizes: Mapping[str, int], num_ranks: int) -> list[list[str]]:
    """Return the matrices of each rank: the largest first, to the rank with least."""
    owned: list[list[str]] = [[] for _ in range(num_ranks)]
    loads = [0] * num_ranks
    for name in sorted(sizes, key=lambda name: (-sizes[name], name)):
        rank = loads.index(min(loads))
        owned[rank].append(name)
        loads[rank] += sizes[name]
    return owned


def orthogonalize_all(
    wholes: Mapping[str, Tensor], heights: Mapping[str, list[int]], dtype: torch.dtype
) -> None:
    """Replace each matrix by its orthogonal update, in place and scaled by its shape; those of one
    shape together.

    A tensor may hold several: stacked in its rows by `heights`, and one a leading index.
    """
    groups: dict[tuple[int, int], list[Tensor]] = {}
    for name, whole in wholes.items():
        for stacked in whole.unsqueeze(0) if whole.dim() == 2 else whole:
            for matrix in stacked.split(heights[name]):
                rows, cols = matrix.shape
                groups.setdefault((max(rows, cols), min(rows, cols)), []).append(matrix)

    for shape, matrices in groups.items():
        stack = torch.stack([matrix if matrix.shape == shape else matrix.T for matrix in matrices])
        for matrix, update in zip(matrices, orthogonalize(stack, dtype).unbind(), strict=True):
            matrix.copy_(update if update.shape == matrix.shape else update.T).mul_(
                scale_of(*matrix.shape)
            )

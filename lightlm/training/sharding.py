"""A sharded model (FSDP2): each rank holds its rows of every weight."""

import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, TypeGuard

import torch
from torch import Tensor

from lightlm.model.transformer import Transformer

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor


def shard_model(model: Transformer, num_ranks: int, device: str) -> None:
    """Cut `model`, in place, over the ranks of the process group: every layer by itself, then what
    is left.

    A layer is whole on a device only while it computes, in the compute dtype; embedding and head
    stay fp32, since the head sums its gradient in the dtype of its weights.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import (
        MixedPrecisionPolicy,
        fully_shard,
        register_fsdp_forward_method,
    )

    mesh = init_device_mesh(device.partition(":")[0], (num_ranks,))
    precision = MixedPrecisionPolicy(
        param_dtype=model.compute_dtype, reduce_dtype=torch.float32, cast_forward_inputs=False
    )
    for layer in model.layers:
        fully_shard(layer, mesh=mesh, mp_policy=precision)
    # The default would leave embedding and head whole after a validation, where checkpoints expect
    # shards.
    fully_shard(model, mesh=mesh, reshard_after_forward=True)
    register_fsdp_forward_method(model, "compute_loss")


def is_shard(tensor: Tensor) -> "TypeGuard[DTensor]":
    """Return whether a tensor is this rank's part of a whole one.

    Only who made one has imported its class, which takes 0.8 s with SymPy.
    """
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(tensor, module.DTensor)


def is_sharded(model: Transformer) -> bool:
    """Return whether this rank holds a part of each weight only."""
    return is_shard(model.embedding)


def local(tensor: Tensor) -> Tensor:
    """Return what this rank holds of a tensor: its rows, as a view, or all of it."""
    return tensor.to_local() if is_shard(tensor) else tensor


def rows_per_rank(tensor: "DTensor") -> int:
    """Return how many rows a full shard has; the last ranks may hold fewer, or none."""
    return -(-tensor.shape[0] // tensor.device_mesh.size())


@torch.no_grad()
def put(target: Tensor, whole: Tensor) -> None:
    """Copy a whole tensor into `target`, in place; of a shard, its own rows."""
    if not is_shard(target):
        target.copy_(whole)
        return
    mine = target.to_local()
    start = target.device_mesh.get_local_rank() * rows_per_rank(target)
    mine.copy_(whole[start : start + mine.shape[0]])


def like(parameter: Tensor, whole: Tensor) -> Tensor:
    """Return a tensor with the values of `whole`, on the device and cut as `parameter`."""
    if whole.shape != parameter.shape:
        return whole.to(parameter.device, copy=True)
    made = torch.empty_like(parameter, dtype=whole.dtype, requires_grad=False)
    put(made, whole)
    return made


def gather(tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Yield whole tensors by name, one after the other, those of shards in the host's memory; the
    others `send` them.

    On every rank a tensor is whole on the device for a moment.
    """
    for name, tensor in tensors.items():
        if is_shard(tensor):
            yield name, tensor.full_tensor().detach().cpu()
        else:
            yield name, tensor.detach()


def send(tensors: Mapping[str, Tensor]) -> None:
    """Come along with a rank that gathers these tensors."""
    for tensor in tensors.values():
        if is_shard(tensor):
            tensor.full_tensor()


def gather_model(model: Transformer, is_kept: bool) -> Transformer | None:
    """Return the whole model, in the host's memory if it is sharded; None where it is not
    `is_kept`.

    All ranks of a sharded model have to call it.
    """
    weights = dict(model.named_parameters())
    if not is_kept:
        send(weights)
        return None
    if not is_sharded(model):
        return model
    with torch.device("meta"):
        whole = Transformer(model.config)
    whole.load_state_dict(dict(gather(weights)), assign=True)
    return whole

"""The processes that train one model together: how each finds the others, and its part of the work.

An elastic agent starts them: agent.py's on the node that a run is supervised on, `torchrun` on
others. The rank with the request leads: it alone writes and speaks.
"""

import os
import select
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
from torch import distributed
from torch.distributed import TCPStore  # pyright: ignore[reportPrivateImportUsage]

from lightlm.errors import LightLMError, ParameterError
from lightlm.store.home import find_home
from lightlm.training.config import TrainerConfig
from lightlm.training.messages import TrainRequest
from lightlm.training.ranks import ALONE, Ranks, ReplicatedRanks, ShardedRanks
from lightlm.training.run import TrainingRun

JOIN_SECONDS = 280.0
"""Seconds that ranks wait for each other, below those that the supervisor waits for a beat."""

LEAD = "--lead"
"""The option of ranks on the node that a run is supervised on."""

LOST_SECONDS = 0.5
"""Seconds that a rank which lost another stays: the agent reports the death that came first."""

ORPHAN_SECONDS = 9.0
"""Seconds that the ranks get to save and end after the supervisor."""

OWN_STORE = "TORCH_DISABLE_SHARE_RDZV_TCP_STORE"
"""Set to 1, ranks meet in a new store after each restart. The agents' own, which PyTorch shares by
default, still has the addresses of processes that are dead.
"""


@contextmanager
def open_ranks(request: TrainRequest | None) -> Iterator[tuple[TrainRequest, Ranks]]:
    """Give what this rank trains, and all ranks of the run; one that loses another ends.

    `request` is None but on the rank that leads.

    Raises:
        ParameterError: the launch does not fit to the request, or the request to this machine.
    """
    if request is not None and count_ranks(request.trainer) == 1:
        yield request, ALONE
        return

    try:
        join_group()
        leader, request = share_request(request)
        local_rank = int(os.environ["LOCAL_RANK"])
        trainer = fit_to_ranks(request.trainer, request.model.context_length, local_rank)
        kind = ShardedRanks if trainer.sharding == "fsdp" else ReplicatedRanks
        ranks = kind(distributed.get_rank(), distributed.get_world_size(), leader)
        yield request.model_copy(update={"trainer": trainer}), ranks
    except RuntimeError as error:
        words = str(error).lower()
        if isinstance(error, distributed.DistError) or "gloo" in words or "nccl" in words:
            print(f"the other ranks are lost: {error}", file=sys.stderr, flush=True)  # noqa: T201
            time.sleep(LOST_SECONDS)
            os._exit(1)
        raise
    finally:
        if distributed.is_initialized():
            distributed.destroy_process_group()


def join_group() -> None:
    """Meet the other ranks where the agent says, and become a process group with them.

    Tensors on GPUs travel by NCCL, the others, with what ranks decide together, by gloo.
    """
    if os.environ.get(OWN_STORE) != "1":
        raise ParameterError(f"set {OWN_STORE}=1 for torchrun (docs/scale-out.md)")

    rank = int(os.environ["RANK"])
    address = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    wait = timedelta(seconds=JOIN_SECONDS)
    is_cuda = torch.cuda.is_available()
    if is_cuda:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())

    distributed.init_process_group(
        "cpu:gloo,cuda:nccl" if is_cuda else "gloo",
        store=open_store(*address) if rank == 0 else TCPStore(*address, timeout=wait),
        rank=rank,
        world_size=int(os.environ["WORLD_SIZE"]),
        timeout=wait,
    )


def open_store(host: str, port: int) -> TCPStore:
    """Return a store where processes meet, on that address alone: it asks for no password, and
    PyTorch's rendezvous unpickles what it finds there.
    """
    listening = socket.create_server((host, port))
    port = listening.getsockname()[1]
    return TCPStore(
        host,
        port,
        is_master=True,
        wait_for_workers=False,
        timeout=timedelta(seconds=JOIN_SECONDS),
        master_listen_fd=listening.detach(),
    )


def share_request(request: TrainRequest | None) -> tuple[int, TrainRequest]:
    """Return the leading rank, the only one with a request, and that request on every rank.

    Raises:
        ParameterError: there are other ranks than it is for.
    """
    rank = distributed.get_rank()
    text = b"" if request is None else request.model_dump_json().encode()
    sizes = torch.zeros(distributed.get_world_size(), dtype=torch.int64)
    sizes[rank] = len(text)
    distributed.all_reduce(sizes)
    leader = int(sizes.argmax())

    letters = torch.zeros(int(sizes.max()), dtype=torch.uint8)
    if rank == leader:
        letters = torch.frombuffer(bytearray(text), dtype=torch.uint8)
    distributed.broadcast(letters, leader)
    shared = TrainRequest.model_validate_json(bytes(letters.tolist()))
    if len(sizes) != (wanted := count_ranks(shared.trainer)):
        raise ParameterError(
            f"the plan is for {wanted} ranks, and {len(sizes)} came; give torchrun "
            f"--nnodes={shared.trainer.num_nodes} --nproc-per-node={shared.trainer.num_devices}"
        )
    return leader, shared


def count_ranks(trainer: TrainerConfig) -> int:
    """Return how many processes train."""
    return trainer.num_devices * trainer.num_nodes


def fit_to_ranks(trainer: TrainerConfig, context_length: int, local_rank: int) -> TrainerConfig:
    """Return what a rank trains with: its device, its share of threads, a batch that all ranks
    share evenly.

    Raises:
        ParameterError: there are fewer GPUs here than ranks.
    """
    size = count_ranks(trainer)
    sequences = max(1, trainer.batch_tokens // context_length)
    sequences = -(-sequences // size) * size
    device = trainer.device

    if device.startswith("cuda"):
        if trainer.num_devices > torch.cuda.device_count():
            raise ParameterError(
                f"training.devices is {trainer.num_devices}, but this machine has "
                f"{torch.cuda.device_count()} GPUs; give auto"
            )
        device = f"cuda:{local_rank}"
    elif device != "cpu":
        raise ParameterError(
            f"training.devices above 1 wants cuda or cpu, got {device}; give training.devices=1"
        )

    return trainer.model_copy(
        update={
            "device": device,
            "batch_tokens": sequences * context_length,
            "micro_batch_size": min(trainer.micro_batch_size, sequences // size),
            "num_threads": max(1, trainer.num_threads // trainer.num_devices),
        }
    )


def end_with_input() -> None:
    """End this process when its input ends: the supervisor is gone. The bytes are the worker's."""

    def wait() -> None:
        ends = select.poll()
        ends.register(0, 0)
        ends.poll()
        if distributed.is_initialized():
            time.sleep(ORPHAN_SECONDS)
        os._exit(0)

    threading.Thread(target=wait, name="supervisor", daemon=True).start()


def main() -> None:
    """Be a rank: on the node of the agent the first one is the worker, all others follow."""
    is_leading_node = sys.argv[1:] == [LEAD]
    if is_leading_node:
        if os.environ["LOCAL_RANK"] == "0":
            from lightlm.training import worker

            worker.main()
        os.dup2(2, 1)
        end_with_input()

    try:
        with open_ranks(None) as (request, ranks):
            TrainingRun(find_home(), request, ranks=ranks).run(lambda _: None)
    except LightLMError as error:
        # The leading rank says the same, and restarts would change nothing.
        print(error, file=sys.stderr, flush=True)  # noqa: T201
        sys.exit(0 if is_leading_node else 1)


if __name__ == "__main__":
    main()

"""The processes that train one model together: how they start, find each other, and end together.

The process that the supervisor started is rank 0; it starts one more for each further device, and
those of other nodes join it over the network. Rank 0 alone writes and speaks. When any rank ends,
all end, and the supervisor resumes from the newest checkpoint.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import torch
from torch import distributed
from torch.distributed import TCPStore  # pyright: ignore[reportPrivateImportUsage]

from lightlm.child_process import SAFE_PATH, python_command
from lightlm.errors import ParameterError, WorkerError
from lightlm.json_object import JsonObject
from lightlm.store.home import find_home
from lightlm.training.config import TrainerConfig
from lightlm.training.ranks import ALONE, ProcessRanks, Ranks, ShardedRanks

JOIN_SECONDS = 300.0
"""Seconds that other nodes get to join."""

POLL_SECONDS = 0.2

ADDRESS = "LIGHTLM_RENDEZVOUS"
"""HOST:PORT at which rank 0 waits for other nodes; only for num_nodes above 1."""


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
                f"{torch.cuda.device_count()} GPUs; "
                "give auto"
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


@contextmanager
def open_ranks(request: JsonObject) -> Iterator[Ranks]:
    """Give rank 0's view of all ranks that `request` asks for, started here and joined from other
    nodes.

    Raises:
        WorkerError: another node did not join within JOIN_SECONDS.
    """
    trainer = TrainerConfig.model_validate(request["trainer"])
    if count_ranks(trainer) == 1:
        yield ALONE
        return

    host, port = find_address(trainer)
    store = open_store(host, port)
    store.set("request", json.dumps(request, default=str))
    peers = [
        start_peer(f"{host}:{store.port}", 0, local_rank)
        for local_rank in range(1, trainer.num_devices)
    ]

    watch_peers(peers)
    try:
        yield join_group(store, trainer, 0)
    except RuntimeError as error:
        if "gloo" in str(error).lower() or "nccl" in str(error).lower():
            time.sleep(2 * POLL_SECONDS)  # where a rank of this machine died, watch_peers says how
            print(f"the other ranks are lost: {error}", file=sys.stderr, flush=True)  # noqa: T201
            os._exit(1)
        raise
    finally:
        for peer in peers:
            assert peer.stdin is not None
            peer.stdin.close()
        if distributed.is_initialized():
            distributed.destroy_process_group()


def open_store(host: str, port: int) -> TCPStore:
    """Return the store where ranks meet, on that address alone: it asks for no password."""
    listening = socket.create_server((host, port))
    port = listening.getsockname()[1]
    return TCPStore(
        host,
        port,
        is_master=True,
        wait_for_workers=False,
        timeout=join_timeout(),
        master_listen_fd=listening.detach(),
    )


def find_address(trainer: TrainerConfig) -> tuple[str, int]:
    """Return where rank 0 waits: a free port of this machine, or for several nodes the address in
    the environment.

    Raises:
        ParameterError: there are several nodes and no address.
    """
    if trainer.num_nodes == 1:
        return "127.0.0.1", 0
    host, _, port = os.environ.get(ADDRESS, "").rpartition(":")
    if not host or not port.isdigit():
        raise ParameterError(
            f"training.num_nodes is {trainer.num_nodes}; set {ADDRESS}=HOST:PORT to an address of "
            "this machine that "
            "the other nodes reach (docs/scale-out.md)"
        )
    return host, int(port)


def join_timeout() -> timedelta:
    """Return how long ranks wait for each other at the start."""
    return timedelta(seconds=JOIN_SECONDS)


def join_group(store: TCPStore, trainer: TrainerConfig, rank: int) -> ProcessRanks:
    """Return the ranks once all are there.

    Raises:
        WorkerError: some are not, in time.
    """
    size = count_ranks(trainer)
    is_cuda = trainer.device.startswith("cuda")
    if is_cuda:
        torch.cuda.set_device(rank % trainer.num_devices)

    try:
        distributed.init_process_group(
            "nccl" if is_cuda else "gloo",
            store=store,
            rank=rank,
            world_size=size,
            timeout=join_timeout(),
        )
        return ShardedRanks(rank, size) if trainer.sharding == "fsdp" else ProcessRanks(rank, size)
    except RuntimeError as error:
        raise WorkerError(
            f"{size} ranks were to join within {JOIN_SECONDS:.0f} s and did not ({error}); see "
            "docs/scale-out.md"
        ) from None


def start_peer(address: str, node: int, local_rank: int) -> "subprocess.Popen[bytes]":
    """Return the started process of a further rank on this machine; it ends when its input does."""
    command = python_command("lightlm.training.distributed", "--join", address)
    command += ["--node-rank", str(node), "--local-rank", str(local_rank)]

    return subprocess.Popen(
        command, env=os.environ | SAFE_PATH, stdin=subprocess.PIPE, stdout=sys.stderr.fileno()
    )


def watch_peers(peers: Sequence["subprocess.Popen[bytes]"]) -> None:
    """End this process as soon as one of `peers` has failed: the others would wait for
    it for ever.
    """

    def watch() -> None:
        while True:
            codes = [peer.poll() for peer in peers]
            failed = next((code for code in codes if code), None)
            if failed is not None:
                message = f"a rank ended with {failed}; this run's processes end"
                print(message, file=sys.stderr, flush=True)  # noqa: T201
                # As a shell says it, so that the supervisor tells a memory kill (137) from a crash.
                os._exit(128 - failed if failed < 0 else failed)
            if all(code == 0 for code in codes):
                return
            time.sleep(POLL_SECONDS)

    threading.Thread(target=watch, name="ranks", daemon=True).start()


def follow_rank_0(home: Path, address: str, node: int, local_rank: int) -> None:
    """Be a further rank of the run that waits at `address`, to its end."""
    from lightlm.training.messages import TrainRequest
    from lightlm.training.run import TrainingRun

    host, _, port = address.rpartition(":")
    store = TCPStore(host, int(port), is_master=False, timeout=join_timeout())
    request = TrainRequest.model_validate(json.loads(store.get("request")))
    trainer = request.trainer
    ranks = join_group(store, trainer, node * trainer.num_devices + local_rank)
    fitted = fit_to_ranks(trainer, request.model.context_length, local_rank)
    TrainingRun(home, request.model_copy(update={"trainer": fitted}), ranks=ranks).run(
        lambda _: None
    )
    distributed.destroy_process_group()


def end_with_input() -> None:
    """End this process when its input ends: its parent is gone."""

    def wait() -> None:
        sys.stdin.buffer.read()
        # rank 0 is done, or dead: what is left here ends by itself or never
        time.sleep(JOIN_SECONDS / 60)
        os._exit(1)

    threading.Thread(target=wait, name="parent", daemon=True).start()


def main() -> None:
    """Join a run: one rank of this node, or, without --local-rank, one for each of its devices."""
    parser = argparse.ArgumentParser(description="Join a LightLM run that waits for further nodes.")
    parser.add_argument("--join", required=True, help=f"HOST:PORT, as {ADDRESS} on the first node")
    parser.add_argument(
        "--node-rank", type=int, required=True, help="1 for the second node, 2 for the third, ..."
    )
    parser.add_argument("--local-rank", type=int, help="one rank only")
    parser.add_argument(
        "--devices", type=int, default=1, help="ranks on this node; the same on every node"
    )

    options = parser.parse_args()
    if options.local_rank is not None:
        if not sys.stdin.isatty():
            end_with_input()
        follow_rank_0(find_home(), options.join, options.node_rank, options.local_rank)
        return

    peers = [start_peer(options.join, options.node_rank, index) for index in range(options.devices)]
    codes = wait_for_all(peers)
    sys.exit(next((1 for code in codes if code), 0))


def wait_for_all(peers: Sequence["subprocess.Popen[bytes]"]) -> list[int]:
    """Return the exit codes of `peers`; when one fails, the others are ended."""
    while any(peer.poll() is None for peer in peers):
        if any(peer.poll() for peer in peers):
            for peer in peers:
                peer.kill()
        time.sleep(POLL_SECONDS)
    return [peer.wait() for peer in peers]


if __name__ == "__main__":
    main()

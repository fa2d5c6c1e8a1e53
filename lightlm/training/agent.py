"""The agent of the node that a run is supervised on: PyTorch's elastic agent, which starts, watches
and restarts the ranks of this node. The first of them is the worker, on the agent's own input and
output.

`torchrun` does so on other nodes; the agents meet at a c10d rendezvous of this one.
"""

# pyright: reportIncompatibleVariableOverride=false
import json
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from torch.distributed import (
    FileStore,  # pyright: ignore[reportPrivateImportUsage]
    TCPStore,  # pyright: ignore[reportPrivateImportUsage]
)
from torch.distributed.elastic.agent.server.api import RunResult, WorkerGroup, WorkerSpec
from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
from torch.distributed.elastic.rendezvous.api import RendezvousError
from torch.distributed.elastic.rendezvous.c10d_rendezvous_backend import C10dRendezvousBackend
from torch.distributed.elastic.rendezvous.dynamic_rendezvous import (
    DynamicRendezvousHandler,
    RendezvousTimeout,
)

from lightlm.child_process import Message, python_command
from lightlm.errors import LightLMError, ParameterError, WorkerError
from lightlm.training.distributed import JOIN_SECONDS, LEAD, OWN_STORE, open_store
from lightlm.training.heartbeat import DUMP_SIGNAL

ADDRESS = "LIGHTLM_RENDEZVOUS"
"""HOST:PORT where other nodes find this one; only for num_nodes above 1."""

RUN_ID = "lightlm"
"""The rendezvous' id: `torchrun --rdzv-id`."""

EXIT_SECONDS = 10.0
"""Seconds that other nodes get to end after the ranks of this one."""

UNLIMITED = 1_000_000
"""Restarts that the agent allows: the supervisor counts, and forgives deaths after a new step."""


class RankAgent(LocalElasticAgent):
    """An elastic agent that tells the supervisor when its ranks have ended before their time."""

    def __init__(self, spec: WorkerSpec) -> None:
        super().__init__(spec, DefaultLogsSpecs(os.devnull), exit_barrier_timeout=EXIT_SECONDS)
        self._parent = os.getppid()
        self._exit_code = -signal.SIGTERM

    # PyTorch's documented points of extension; its decorator hides their types.
    def _monitor_workers(self, worker_group: WorkerGroup) -> RunResult:
        result = super()._monitor_workers(worker_group)  # pyright: ignore[reportCallIssue]
        if result.is_failed():
            first = min(result.failures.values(), key=lambda failure: failure.timestamp)
            self._exit_code = first.exitcode
        return result

    def _start_workers(self, worker_group: WorkerGroup) -> dict[int, Any]:
        pids = super()._start_workers(worker_group)  # pyright: ignore[reportCallIssue]
        signal.signal(DUMP_SIGNAL, lambda *_: os.kill(pids[0], DUMP_SIGNAL))
        return pids

    def _stop_workers(self, worker_group: WorkerGroup) -> None:
        super()._stop_workers(worker_group)  # pyright: ignore[reportCallIssue]
        if os.getppid() != self._parent:
            raise SystemExit(1)
        send({"died": self._exit_code})
        self._exit_code = -signal.SIGTERM  # the agent's own, where a node joins anew


def send(message: Message) -> None:
    """Send the supervisor a message, on the output that the first rank has too.

    On a line of its own, whatever a rank was writing when it died.
    """
    print(f"\n{json.dumps(message)}", flush=True)  # noqa: T201


def find_address(num_nodes: int) -> tuple[str, int]:
    """Return where the agents of several nodes meet: the address in the environment.

    Raises:
        ParameterError: there is none.
    """
    host, _, port = os.environ.get(ADDRESS, "").rpartition(":")
    if not host or not port.isdigit():
        raise ParameterError(
            f"training.num_nodes is {num_nodes}; set {ADDRESS}=HOST:PORT to an address of this "
            "machine that the other nodes reach (docs/scale-out.md)"
        )
    return host, int(port)


@contextmanager
def open_meeting(num_nodes: int) -> "Iterator[tuple[str, FileStore | TCPStore]]":
    """Yield this node's address and the store where the agents meet.

    That of one node is a file that only its owner reads and writes: a rendezvous unpickles what it
    finds, and a port of loopback is open to everybody who is logged in.

    Raises:
        ParameterError: there are several nodes and no address where this one can listen.
    """
    if num_nodes == 1:
        with tempfile.TemporaryDirectory(prefix="lightlm-") as folder:
            yield "127.0.0.1", FileStore(f"{folder}/rendezvous", -1)
        return

    host, port = find_address(num_nodes)
    try:
        store = open_store(host, port)
    except OSError as error:
        raise ParameterError(
            f"no process can listen at {ADDRESS}={host}:{port} ({error}); give an address of this "
            "machine and a free port"
        ) from None
    yield host, store


def run_agent(num_nodes: int, num_devices: int) -> None:
    """Run the ranks of this node to their end.

    Raises:
        ParameterError: there are several nodes and no address where this one can listen.
        WorkerError: other nodes did not join in time.
    """
    os.environ[OWN_STORE] = "1"
    with open_meeting(num_nodes) as (host, store):
        run_ranks(host, store, num_nodes, num_devices)


def run_ranks(host: str, store: "FileStore | TCPStore", num_nodes: int, num_devices: int) -> None:
    """Run the ranks of this node, which meets the others in a store, to their end.

    Raises:
        WorkerError: other nodes did not join in time.
    """
    rendezvous = DynamicRendezvousHandler.from_backend(
        RUN_ID,
        store,
        C10dRendezvousBackend(store, RUN_ID),
        min_nodes=num_nodes,
        max_nodes=num_nodes,
        local_addr=host,
        timeout=RendezvousTimeout(join=timedelta(seconds=JOIN_SECONDS)),
    )

    executable, *arguments = python_command("lightlm.training.distributed", LEAD)
    spec = WorkerSpec(
        role="rank",
        local_world_size=num_devices,
        entrypoint=executable,
        args=tuple(arguments),
        rdzv_handler=rendezvous,
        max_restarts=UNLIMITED,
    )

    try:
        RankAgent(spec).run()
    except RendezvousError as error:
        raise WorkerError(
            f"{num_nodes} nodes were to join within {JOIN_SECONDS:.0f} s and did not ({error}); "
            "see docs/scale-out.md"
        ) from None
    finally:
        rendezvous.shutdown()


def main() -> None:
    """Be the agent of a run on as many nodes, with as many devices each, as the arguments say."""
    num_nodes, num_devices = map(int, sys.argv[1:])
    try:
        run_agent(num_nodes, num_devices)
    except LightLMError as error:
        send({"error": {"kind": type(error).__name__, "message": str(error)}})


if __name__ == "__main__":
    main()

"""A rehearsal of several nodes on one machine: network namespaces, a run over all of them, and a
node that dies or a cable that is pulled.

    sudo .venv/bin/python benchmarks/nodes.py --nodes 2 --fault kill
    sudo .venv/bin/python benchmarks/nodes.py --nodes 4 --fault partition --hours 0.05

Each namespace has a network interface of its own on a bridge, at 1 Gbit/s with a queue of 50 ms (tc
tbf). The first node runs `lightlm train`, the others `torchrun` as docs/scale-out.md has it. The
fault comes 15 s after the first step and hits the last node. `kill`: all of its processes get
SIGKILL, and its command starts again 5 s later. `partition`: its cable is out for 10 s. Linux and
root only. Every rehearsal is a line of bench-results/nodes.jsonl.
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from commands import LIGHTLM, ROOT, append
from startup import find_first_step

RESULTS = ROOT / "bench-results" / "nodes.jsonl"

BRIDGE = "lightlm-br"
SETTLED_SECONDS = 15.0
AWAY_SECONDS = 5.0
CUT_SECONDS = 10.0
RATE = ("tbf", "rate", "1gbit", "burst", "256kb", "latency", "50ms")
TORCHRUN = (
    "--max-restarts=100 --rdzv-backend=c10d --rdzv-id=lightlm --rdzv-endpoint=10.77.0.1:29500 "
    "--rdzv-conf=is_host=0,read_timeout=280"
).split()

STARTED = time.monotonic()


def log(message: str) -> None:
    """Print a message with the seconds since the start."""
    print(f"{time.monotonic() - STARTED:6.1f} s  {message}", flush=True)


def call(*command: str, is_needed: bool = True) -> None:
    """Run a command of the system."""
    subprocess.run(command, check=is_needed, capture_output=not is_needed)


def name_node(index: int) -> str:
    """Return a node's namespace."""
    return f"lightlm-{index}"


def make_network(num_nodes: int) -> None:
    """Make a bridge, and a namespace with a cable to it for each node."""
    call("ip", "link", "add", BRIDGE, "type", "bridge")
    call("ip", "link", "set", BRIDGE, "up")
    for index in range(1, num_nodes + 1):
        node = name_node(index)
        inside = ("ip", "netns", "exec", node)
        call("ip", "netns", "add", node)
        call("ip", "link", "add", f"cable{index}", "type", "veth", "peer", "name", f"port{index}")
        call("ip", "link", "set", f"port{index}", "netns", node)
        call("ip", "link", "set", f"cable{index}", "master", BRIDGE, "up")
        call(*inside, "ip", "addr", "add", f"10.77.0.{index}/24", "dev", f"port{index}")
        call(*inside, "ip", "link", "set", f"port{index}", "up")
        call(*inside, "ip", "link", "set", "lo", "up")
        call(*inside, "tc", "qdisc", "add", "dev", f"port{index}", "root", *RATE)


def remove_network(num_nodes: int) -> None:
    """Remove what is left of the network, and the processes in it."""
    for index in range(1, num_nodes + 1):
        kill_node(index)
        call("ip", "netns", "del", name_node(index), is_needed=False)
        call("ip", "link", "del", f"cable{index}", is_needed=False)
    call("ip", "link", "del", BRIDGE, is_needed=False)


def kill_node(index: int) -> int:
    """Kill all processes of a node; return how many there were."""
    found = subprocess.run(
        ["ip", "netns", "pids", name_node(index)], capture_output=True, text=True, check=False
    )
    pids = [int(pid) for pid in found.stdout.split()]
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return len(pids)


class Follower:
    """A node that runs torchrun, again where it was killed."""

    def __init__(self, index: int, num_nodes: int, environment: dict[str, str], log: Path) -> None:
        self.is_over = False
        own = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1", "PYTHONSAFEPATH": "1"}
        interface = {"GLOO_SOCKET_IFNAME": f"port{index}"}
        self._environment = environment | own | interface
        self._command = [
            *("ip", "netns", "exec", name_node(index)),
            *(sys.executable, "-m", "torch.distributed.run", f"--nnodes={num_nodes}"),
            *("--nproc-per-node=1", f"--local-addr=10.77.0.{index}", *TORCHRUN),
            *("-m", "lightlm.training.distributed"),
        ]
        self._log = log
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def _follow(self) -> None:
        with self._log.open("ab") as out:
            while not self.is_over:
                done = subprocess.run(
                    self._command, env=self._environment, stdout=out, stderr=out, check=False
                )
                if done.returncode == 0:
                    return
                time.sleep(AWAY_SECONDS)

    def end(self) -> None:
        """Start it no more."""
        self.is_over = True


def wait_for_first_step(home: Path, lead: "subprocess.Popen[str]") -> None:
    """Return when a training step is recorded."""
    while lead.poll() is None:
        with contextlib.suppress(RuntimeError, ValueError, OSError):
            find_first_step(home)
            return
        time.sleep(0.5)


def break_node(index: int, fault: str) -> None:
    """Kill a node, or pull its cable for some seconds."""
    if fault == "kill":
        log(f"killed {kill_node(index)} processes of node {index}")
    if fault == "partition":
        call("ip", "link", "set", f"cable{index}", "down")
        log(f"pulled the cable of node {index}")
        time.sleep(CUT_SECONDS)
        call("ip", "link", "set", f"cable{index}", "up")
        log("put it in again")


def rehearse(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Return what a run over all nodes reached, with the fault in it."""
    environment = os.environ | {"LIGHTLM_HOME": str(folder / "home"), "OMP_NUM_THREADS": "1"}
    lead_environment = environment | {
        "GLOO_SOCKET_IFNAME": "port1",
        "LIGHTLM_RENDEZVOUS": "10.77.0.1:29500",
    }
    command = [
        *("ip", "netns", "exec", name_node(1), *LIGHTLM, "train", "--json", "--quiet", "--fresh"),
        *("--hours", str(arguments.hours), "--dataset", arguments.dataset),
        *("--set", f"training.num_nodes={arguments.nodes}", "--set", "training.devices=1"),
        # Each node would compile for itself, all on the same cores.
        *("--set", "training.compile=off"),
    ]
    started = time.monotonic()
    errors = (folder / "lead.log").open("w")
    lead = subprocess.Popen(
        command, cwd=ROOT, env=lead_environment, text=True, stdout=subprocess.PIPE, stderr=errors
    )
    followers = [
        Follower(index, arguments.nodes, environment, folder / f"node{index}.log")
        for index in range(2, arguments.nodes + 1)
    ]
    log(f"{arguments.nodes} nodes started")
    wait_for_first_step(folder / "home", lead)
    log("first step")
    if arguments.fault != "none":
        time.sleep(SETTLED_SECONDS)
        break_node(arguments.nodes, arguments.fault)
    output, _ = lead.communicate()
    seconds = time.monotonic() - started
    for follower in followers:
        follower.end()
    log(f"the command ended with {lead.returncode} after {seconds:.1f} s")
    if lead.returncode:
        raise RuntimeError((folder / "lead.log").read_text()[-2000:])
    return describe(json.loads(output), folder / "home") | {"stopwatch_seconds": round(seconds, 1)}


def describe(summary: dict[str, Any], home: Path) -> dict[str, Any]:
    """Return what the table needs of a run."""
    worker_log = next((home / "runs").glob("*/worker.log")).read_text(errors="replace")
    return {
        "version": f"{summary['model_name']} v{summary['model_version']}",
        "budget_seconds": summary["budget_seconds"],
        "ledger_seconds": summary["elapsed_seconds"],
        "bits_per_byte": summary["bits_per_byte"],
        "tokens": summary["tokens"],
        "lost_ranks": worker_log.count("the other ranks are lost"),
        "ledger": summary["ledger"],
    }


def main() -> None:
    """Make the network, run the rehearsal in it, print what came of it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--nodes", type=int, default=2)
    parser.add_argument("--fault", choices=("none", "kill", "partition"), default="none")
    parser.add_argument("--hours", type=float, default=0.05)
    parser.add_argument("--dataset", default="python-docs")
    parser.add_argument("--keep", action="store_true", help="keep the folder with the logs")
    arguments = parser.parse_args()
    if os.name != "posix" or os.geteuid() != 0:
        parser.error("network namespaces want Linux and root")

    folder = Path(tempfile.mkdtemp(prefix="lightlm-nodes-"))
    remove_network(arguments.nodes)
    try:
        make_network(arguments.nodes)
        found = {"nodes": arguments.nodes, "fault": arguments.fault} | rehearse(arguments, folder)
        append(RESULTS, found)
        print(json.dumps(found, indent=1))
    finally:
        remove_network(arguments.nodes)
        if arguments.keep:
            log(f"the logs are in {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()

"""The record of the service: the processes that `lightlm up` started, and their addresses.

It is LIGHTLM_HOME/service/service.json. A process is known by its number and its identity: after a
reboot another one has the number.
"""

from pathlib import Path

import psutil
from pydantic import BaseModel, ValidationError

from lightlm.process_identity import identify_process
from lightlm_flows.service.health import HOST
from lightlm_flows.service.private_files import write_private_file
from lightlm_flows.service.servers import name_service_folder

SERVERS = ("prefect", "mlflow")
PARTS = (*SERVERS, "worker")
KEEPER = "keeper"
"""Starts a part again that died (flows/service/keeper.py)."""


class RunningProcess(BaseModel, frozen=True):
    """A process that was started here, identified by its number and its start time."""

    name: str
    pid: int
    created_at: float
    num_restarts: int = 0
    identity: str = ""
    """Empty in records of before it was kept; there the start by the wall clock has to do."""

    def find(self) -> psutil.Process | None:
        """Return the process if it still runs."""
        found = identify_process(self.pid)
        try:
            process = psutil.Process(self.pid)
            is_ours = found is not None and (
                found == self.identity
                if self.identity
                else abs(process.create_time() - self.created_at) < 1
            )
        except psutil.Error:
            return None
        return process if is_ours else None


class Service(BaseModel, frozen=True):
    """What was started, and where it answers."""

    prefect_port: int
    mlflow_port: int
    processes: tuple[RunningProcess, ...] = ()

    @property
    def prefect_url(self) -> str:
        """Prefect's pages."""
        return f"http://{HOST}:{self.prefect_port}"

    @property
    def mlflow_url(self) -> str:
        """MLflow's pages."""
        return f"http://{HOST}:{self.mlflow_port}"

    @property
    def ports(self) -> dict[str, int]:
        """The servers' ports."""
        return {"prefect": self.prefect_port, "mlflow": self.mlflow_port}

    def including(self, process: RunningProcess) -> "Service":
        """Return the service with this process as its part of that name."""
        others = [part for part in self.processes if part.name != process.name]
        return self.model_copy(update={"processes": (*others, process)})

    def list_alive(self) -> tuple[RunningProcess, ...]:
        """Return the parts that run."""
        return tuple(part for part in self.processes if part.find())

    def runs(self, *names: str) -> bool:
        """Return whether all parts of these names run."""
        return all(
            any(part.name == name and part.find() for part in self.processes) for name in names
        )


def read_service(home: Path) -> Service | None:
    """Return what was started here; None if nothing was, or it was stopped."""
    try:
        return Service.model_validate_json(
            (name_service_folder(home) / "service.json").read_bytes()
        )
    except (OSError, ValidationError):
        return None


def describe_process(name: str, pid: int, num_restarts: int = 0) -> RunningProcess:
    """Return the record of a living process."""
    return RunningProcess(
        name=name,
        pid=pid,
        created_at=psutil.Process(pid).create_time(),
        num_restarts=num_restarts,
        identity=identify_process(pid) or "",
    )


def record_service(home: Path, service: Service) -> None:
    """Write down what runs."""
    write_private_file(
        name_service_folder(home) / "service.json", service.model_dump_json().encode()
    )


def forget_service(home: Path) -> None:
    """Remove the record: nothing of it runs any more."""
    (name_service_folder(home) / "service.json").unlink(missing_ok=True)

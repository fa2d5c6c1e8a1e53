"""The service on one machine: Prefect's server, MLflow's server and a worker, started together and stopped together.

Owns the record of what it started (LIGHTLM_HOME/service/service.json); only that is ever stopped. All of it listens
on loopback; beyond that there is docker-compose.yml, or `lightlm server` behind a proxy that speaks TLS.
"""

import os
import platform
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import psutil
from pydantic import BaseModel, ConfigDict, ValidationError

from lightlm.child_process import SAFE_PATH, python_command
from lightlm.errors import InputError, LightLMError
from lightlm.store.home import find_home
from lightlm.store.lock import hold_lock
from lightlm_flows.deployments import POOL
from lightlm_flows.health import PROBES, answers
from lightlm_flows.private import make_private_folder, private_mask, write_private_file
from lightlm_flows.servers import (
    LOOPBACK,
    ServerStart,
    ServiceSecrets,
    client_environment,
    name_service_folder,
    open_secrets,
    start_of,
)

HOST = LOOPBACK
START_SECONDS = 180
"""Both servers answer within 20 s on two idle cores; a fresh database on a busy machine takes several times that."""

STOP_SECONDS = 60
"""The worker's training process saves a checkpoint first; what still runs then is killed."""


class RunningProcess(BaseModel):
    """A process that was started here. Its start time tells it from a later one with the same number."""

    model_config = ConfigDict(frozen=True)

    name: str
    pid: int
    created_at: float

    def find(self) -> psutil.Process | None:
        """Return the process if it still runs."""
        try:
            process = psutil.Process(self.pid)
            is_ours = abs(process.create_time() - self.created_at) < 1 and process.status() != psutil.STATUS_ZOMBIE
        except psutil.Error:
            return None
        return process if is_ours else None


class Service(BaseModel):
    """What was started, and where it answers."""

    model_config = ConfigDict(frozen=True)

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

    def runs(self, *names: str) -> bool:
        """Return whether all parts of these names run."""
        return all(any(part.name == name and part.find() for part in self.processes) for name in names)


SERVERS = ("prefect", "mlflow")
PARTS = (*SERVERS, "worker")


def read_service(home: Path) -> Service | None:
    """Return what was started here; None if nothing was, or it was stopped."""
    try:
        return Service.model_validate_json((name_service_folder(home) / "service.json").read_bytes())
    except (OSError, ValidationError):
        return None


def find_environment() -> dict[str, str] | None:
    """Return the variables that point a client at the service of this home; None where it does not run."""
    home = find_home()
    service = read_service(home)
    if service is None or not service.runs(*SERVERS):
        return None
    return client_environment(open_secrets(home), service.prefect_port, service.mlflow_port)


def start_service(prefect_port: int, mlflow_port: int, say: Callable[[str], None]) -> Service:
    """Return the running service; start what is needed for it, deploy the flows, and wait until all of it answers.

    Raises:
        InputError: a port is taken by somebody else.
        LightLMError: a part did not start; with its last words. Nothing is left running then.
    """
    home = find_home()
    folder = name_service_folder(home)
    make_private_folder(folder)
    with hold_lock(folder / "service.lock", report=say):
        found = read_service(home)
        if found is not None and found.runs(*PARTS):
            return found
        if found is not None:
            stop_processes(found.processes, say)
        check_ports({"--prefect-port": prefect_port, "--mlflow-port": mlflow_port})
        secrets = open_secrets(home)
        service = Service(prefect_port=prefect_port, mlflow_port=mlflow_port)
        try:
            for name, port in (("prefect", prefect_port), ("mlflow", mlflow_port)):
                say(f"Starting {'Prefect' if name == 'prefect' else 'MLflow'}'s server")
                start = start_of(name, home, HOST, port, (), os.environ)  # pyright: ignore[reportArgumentType]
                service = add_process(home, service, name, start)
            wait_until_healthy(home, service, secrets)
            os.environ.update(worker_environment(home, service, secrets))
            from lightlm_flows.deployments import deploy_flows

            say("Deploying the flows")
            deploy_flows()
            say("Starting a worker")
            service = add_process(home, service, "worker", start_of_worker(home, service, secrets))
            wait_for_worker(home, service)
        except BaseException:
            stop_processes(service.processes, say)
            forget_service(home)
            raise
    return service


def stop_service(say: Callable[[str], None]) -> bool:
    """Stop what `start_service` started, worker first; return whether there was anything.

    Runs that the worker leaves behind are told to the server as crashed, before it goes too.
    """
    home = find_home()
    found = read_service(home)
    if found is None:
        return False
    with hold_lock(name_service_folder(home) / "service.lock", report=say):
        worker = [process for process in found.processes if process.name == "worker"]
        servers = [process for process in found.processes if process.name != "worker"]
        stop_processes(worker, say)
        if found.runs(*SERVERS):
            os.environ.update(worker_environment(home, found, open_secrets(home)))
            end_left_runs(say)
        stop_processes(servers, say)
        forget_service(home)
    return True


def add_process(home: Path, service: Service, name: str, start: ServerStart) -> Service:
    """Start a part of the service in a session of its own; return the service with it, as recorded."""
    folder = name_service_folder(home)
    with private_mask(), (folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(
            start.command,
            # Not the checkout: Prefect would take settings from its pyproject.toml.
            cwd=folder,
            env=bare_environment() | start.environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    started = RunningProcess(name=name, pid=process.pid, created_at=psutil.Process(process.pid).create_time())
    service = service.model_copy(update={"processes": (*service.processes, started)})
    write_private_file(folder / "service.json", service.model_dump_json().encode())
    return service


def bare_environment() -> dict[str, str]:
    """Return the environment without what it says of other servers; bytecode is kept, for later starts."""
    dropped = ("PREFECT", "MLFLOW_", "PYTHONDONTWRITEBYTECODE")
    return {name: value for name, value in os.environ.items() if not name.startswith(dropped)}


def worker_environment(home: Path, service: Service, secrets: ServiceSecrets) -> dict[str, str]:
    """Return the variables of the worker, which its flow runs inherit."""
    # The command line's plugin is nothing for flow runs: Prefect's start of one reports it as a failure.
    return client_environment(secrets, service.prefect_port, service.mlflow_port) | {
        "LIGHTLM_HOME": str(home),
        "PREFECT_HOME": str(home / "prefect"),
        "PREFECT_PLUGINS_ENABLED": "false",
        # Seconds between two looks for work; of Prefect's 10, a run waits 5 on average.
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "NO_PROXY": ",".join(filter(None, [os.environ.get("NO_PROXY"), HOST, "localhost"])),
    }


def start_of_worker(home: Path, service: Service, secrets: ServiceSecrets) -> ServerStart:
    """Return how the worker is started: one run at a time, as the machine has one budget of cores."""
    words = ["worker", "start", "--pool", POOL, "--type", "process", "--limit", "1"]
    name = f"lightlm-{platform.node() or 'here'}"

    return ServerStart(
        python_command("prefect", *words, "--name", name, "--install-policy", "never"),
        SAFE_PATH | worker_environment(home, service, secrets),
    )


def check_ports(ports: Mapping[str, int]) -> None:
    """Refuse a port that something else listens on; `ports` are by the option that sets them.

    Raises:
        InputError: says which, and how to give another.
    """
    for option, port in ports.items():
        try:
            socket.create_server((HOST, port)).close()
        except OSError as error:
            raise InputError(
                f"port {port} on {HOST} is not free ({error.strerror}); give another: {option} {port + 10}"
            ) from None


def wait_until_healthy(home: Path, service: Service, secrets: ServiceSecrets) -> None:
    """Return when both servers answer a real call.

    Raises:
        LightLMError: one ended, or is too slow; with its last words.
    """
    passwords = {"prefect": secrets.prefect_auth_string, "mlflow": f"lightlm:{secrets.mlflow_password}"}
    ports = {"prefect": service.prefect_port, "mlflow": service.mlflow_port}
    deadline = time.monotonic() + START_SECONDS
    for process in service.processes:
        while not answers(ports[process.name], PROBES[process.name], passwords[process.name]):
            check_alive(home, process, deadline)
            time.sleep(0.2)


def wait_for_worker(home: Path, service: Service) -> None:
    """Return when the pool has a worker that is online.

    Raises:
        LightLMError: it ended, or is too slow; with its last words.
    """
    from prefect.client.schemas.objects import WorkerStatus

    from lightlm_flows.deployments import open_server

    deadline = time.monotonic() + START_SECONDS
    with open_server() as client:
        while True:
            if any(worker.status == WorkerStatus.ONLINE for worker in client.read_workers_for_work_pool(POOL)):
                return
            check_alive(home, service.processes[-1], deadline)
            time.sleep(0.5)


def check_alive(home: Path, process: RunningProcess, deadline: float) -> None:
    """Refuse to wait on for a process that has ended, or for too long.

    Raises:
        LightLMError: with its last words.
    """
    is_alive = process.find() is not None
    if is_alive and time.monotonic() < deadline:
        return
    log = name_service_folder(home) / f"{process.name}.log"
    lines = [line.strip() for line in log.read_text("utf-8", "replace").splitlines() if line.strip()]
    state = f"did not answer within {START_SECONDS} s" if is_alive else "ended"
    raise LightLMError(f"{process.name} {state}; its log {log} ends: {' / '.join(lines[-4:]) or 'nothing'}")


def stop_processes(processes: Iterable[RunningProcess], say: Callable[[str], None]) -> None:
    """End processes with their children: by SIGTERM, by force after STOP_SECONDS."""
    for process in reversed(list(processes)):
        found = process.find()
        if found is None:
            continue
        say(f"Stopping {process.name}")
        try:
            family = [found, *found.children(recursive=True)]
            found.terminate()
        except psutil.NoSuchProcess:
            continue
        _, alive = psutil.wait_procs(family, timeout=STOP_SECONDS)
        for member in alive:
            member.kill()


def end_left_runs(say: Callable[[str], None]) -> None:
    """Mark as crashed the runs of the pool whose process has just been stopped, so that none runs for ever."""
    from prefect.client.schemas.filters import (
        FlowRunFilter,
        FlowRunFilterState,
        FlowRunFilterStateType,
        WorkPoolFilter,
        WorkPoolFilterName,
    )
    from prefect.client.schemas.objects import StateType
    from prefect.states import Crashed

    from lightlm_flows.deployments import open_server

    left = [StateType.RUNNING, StateType.PENDING, StateType.CANCELLING]
    with open_server() as client:
        runs = client.read_flow_runs(
            flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=left))),
            work_pool_filter=WorkPoolFilter(name=WorkPoolFilterName(any_=[POOL])),
        )
        for run in runs:
            say(f"Run {run.name} had not ended; it is marked crashed, and its checkpoints are kept")
            client.set_flow_run_state(run.id, Crashed(message="`lightlm down` stopped its worker."), force=True)


def forget_service(home: Path) -> None:
    """Remove the record: nothing of it runs any more."""
    (name_service_folder(home) / "service.json").unlink(missing_ok=True)

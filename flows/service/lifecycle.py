"""The life of the service on one machine: Prefect's server, MLflow's server and a worker.

Only what it started is ever stopped (flows/service/record.py). All of it listens on loopback;
beyond that there is docker-compose.yml, or `lightlm server` behind a proxy that speaks TLS.
"""

import os
import platform
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from lightlm.child_process import SAFE_PATH, python_command
from lightlm.errors import InputError, LightLMError
from lightlm.store.lock import hold_lock
from lightlm_flows.service.deployments import POOL
from lightlm_flows.service.health import PROBES, answers
from lightlm_flows.service.private_files import make_private_folder, private_mask
from lightlm_flows.service.record import (
    KEEPER,
    PARTS,
    SERVERS,
    RunningProcess,
    Service,
    describe_process,
    forget_service,
    read_service,
    record_service,
)
from lightlm_flows.service.servers import (
    LOOPBACK,
    USER,
    ServerStart,
    ServiceSecrets,
    client_environment,
    name_service_folder,
    open_secrets,
    start_of,
)

HOST = LOOPBACK
START_SECONDS = 180
"""Seconds until both servers answer: 20 on two idle cores, several times that on busy ones."""

STOP_SECONDS = 60
"""The worker's training process saves a checkpoint first; what still runs then is killed."""

IDLE_SECONDS = 5
"""A worker without a run has nothing to save. On a busy machine Prefect's worker may lose the
interrupt that it sends itself, and would wait for all of STOP_SECONDS.
"""


def find_environment(home: Path) -> dict[str, str] | None:
    """Return the variables that point a client at the service of this home; None where it does not
    run.
    """
    service = read_service(home)
    if service is None or not service.runs(*SERVERS):
        return None
    return client_environment(open_secrets(home), service.prefect_port, service.mlflow_port)


def start_service(
    home: Path,
    prefect_port: int,
    mlflow_port: int,
    log: Callable[[str], None],
    *,
    is_keeper: bool = False,
) -> Service:
    """Return the running service, started and deployed as far as it was not.

    Parts that run are left alone. `is_keeper`: this process keeps it running
    (flows/service/keeper.py), so none is started.

    Raises:
        InputError: a port is taken by something else.
        LightLMError: a part did not start; with its last words. Nothing that was started here is
            left running then.
    """
    folder = name_service_folder(home)
    make_private_folder(folder)

    with hold_lock(folder / "service.lock", report=log):
        found = read_service(home)
        kept = found.list_alive() if found else ()
        service = Service(prefect_port=prefect_port, mlflow_port=mlflow_port)
        if found is not None and kept:
            service = found.model_copy(update={"processes": kept})
        missing = [name for name in (*PARTS, KEEPER) if not service.runs(name)]
        ports = {f"--{name}-port": port for name, port in service.ports.items() if name in missing}
        check_ports(ports)
        try:
            return start_missing(home, service, missing, log, is_keeper=is_keeper)
        except BaseException:
            now = read_service(home)
            stop_processes(
                [process for process in now.processes if process not in kept] if now else [], log
            )
            if kept:
                record_service(home, service)
            else:
                forget_service(home)
            raise


def start_missing(
    home: Path,
    service: Service,
    missing: Sequence[str],
    log: Callable[[str], None],
    *,
    is_keeper: bool,
) -> Service:
    """Start the missing parts in their order: servers, worker, and what keeps them running."""
    secrets = open_secrets(home)
    for name in SERVERS:
        if name in missing:
            log(f"Starting {'Prefect' if name == 'prefect' else 'MLflow'}'s server")
            service = add_process(home, service, name, start_of_part(home, service, name))

    wait_until_healthy(home, service, secrets)
    os.environ.update(worker_environment(home, service, secrets))
    if "worker" in missing:
        from lightlm_flows.service.deployments import deploy_flows

        log("Deploying the flows")
        deploy_flows(home)
        log("Starting a worker")
        service = add_process(home, service, "worker", start_of_part(home, service, "worker"))
        wait_for_worker(home, service)

    if is_keeper:
        service = service.including(describe_process(KEEPER, os.getpid()))
        record_service(home, service)
    elif KEEPER in missing:
        # With all variables of this shell: it starts the servers again as they were started.
        start = ServerStart(python_command("lightlm_flows.service.keeper"), dict(os.environ))
        service = add_process(home, service, KEEPER, start)

    return service


def start_of_part(home: Path, service: Service, name: str) -> ServerStart:
    """Return how a server or the worker is started."""
    if name == "worker":
        return start_of_worker(home, service, open_secrets(home))
    return start_of(name, home, HOST, service.ports[name], (), os.environ)  # pyright: ignore[reportArgumentType]


def stop_service(home: Path, log: Callable[[str], None]) -> bool:
    """Stop what `start_service` started, worker first; return whether there was anything.

    Runs that the worker leaves behind are marked as crashed on the server before it stops too.
    """
    if read_service(home) is None:
        return False

    with hold_lock(name_service_folder(home) / "service.lock", report=log):
        found = read_service(home)
        if found is None:
            return False
        keepers = [process.find() for process in found.processes if process.name == KEEPER]
        stop_processes([process for process in found.processes if process.name == "worker"], log)
        if found.runs(*SERVERS):
            os.environ.update(worker_environment(home, found, open_secrets(home)))
            end_left_runs(home, log)
        stop_processes([process for process in found.processes if process.name in SERVERS], log)
        forget_service(home)

    # It starts nothing without the lock, nor without a record. One in the foreground waits for the
    # lock.
    others = [keeper for keeper in keepers if keeper is not None and keeper.pid != os.getpid()]
    for keeper in others:
        with suppress(psutil.NoSuchProcess):
            keeper.terminate()

    psutil.wait_procs(others, timeout=STOP_SECONDS)
    return True


def add_process(
    home: Path, service: Service, name: str, start: ServerStart, num_restarts: int = 0
) -> Service:
    """Start a part of the service in its own session; return the service with it recorded."""
    folder = name_service_folder(home)
    # What a part said before it died stays in its log.
    with private_mask(), (folder / f"{name}.log").open("ab" if num_restarts else "wb") as log:
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

    service = service.including(describe_process(name, process.pid, num_restarts))
    record_service(home, service)
    return service


def bare_environment() -> dict[str, str]:
    """Return the environment without variables of other servers; bytecode is kept."""
    dropped = ("PREFECT", "MLFLOW_", "PYTHONDONTWRITEBYTECODE")
    return {name: value for name, value in os.environ.items() if not name.startswith(dropped)}


def worker_environment(home: Path, service: Service, secrets: ServiceSecrets) -> dict[str, str]:
    """Return the variables that point a client at this home's service; None if it is down."""
    # The command line's plugin is nothing for flow runs: Prefect's start of one reports it as a
    # failure.
    return client_environment(secrets, service.prefect_port, service.mlflow_port) | {
        "LIGHTLM_HOME": str(home),
        "PREFECT_HOME": str(home / "prefect"),
        "PREFECT_PLUGINS_ENABLED": "false",
        # Seconds between two looks for work; of Prefect's 10, a run waits 5 on average.
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "NO_PROXY": ",".join(filter(None, [os.environ.get("NO_PROXY"), HOST, "localhost"])),
    }


def start_of_worker(home: Path, service: Service, secrets: ServiceSecrets) -> ServerStart:
    """Return the worker's start: one run at a time, as the machine has one set of cores."""
    words = ["worker", "start", "--pool", POOL, "--type", "process", "--limit", "1"]
    name = f"lightlm-{platform.node() or 'here'}"

    return ServerStart(
        python_command("prefect", *words, "--name", name, "--install-policy", "never"),
        dict(SAFE_PATH) | worker_environment(home, service, secrets),
    )


def check_ports(ports: Mapping[str, int]) -> None:
    """Refuse a port that is in use; `ports` are by the option that sets them.

    Raises:
        InputError: says which, and how to give another.
    """
    for option, port in ports.items():
        try:
            socket.create_server((HOST, port)).close()
        except OSError as error:
            raise InputError(
                f"port {port} on {HOST} is not free ({error.strerror}); give another: {option} "
                f"{port + 10}"
            ) from None


def wait_until_healthy(home: Path, service: Service, secrets: ServiceSecrets) -> None:
    """Return when both servers answer a real call.

    Raises:
        LightLMError: one ended, or is too slow; with its last words.
    """
    deadline = time.monotonic() + START_SECONDS
    for process in [part for part in service.processes if part.name in SERVERS]:
        while not is_answering(service, process.name, secrets):
            check_alive(home, process, deadline)
            time.sleep(0.2)


def is_answering(service: Service, server: str, secrets: ServiceSecrets) -> bool:
    """Return whether a server answers a real call."""
    passwords = {
        "prefect": secrets.prefect_auth_string,
        "mlflow": f"{USER}:{secrets.mlflow_password}",
    }
    return answers(service.ports[server], PROBES[server], passwords[server])


def wait_for_worker(home: Path, service: Service) -> None:
    """Return when the pool has a worker that is online.

    Raises:
        LightLMError: it ended, or is too slow; with its last words.
    """
    from prefect.client.schemas.objects import WorkerStatus

    from lightlm_flows.service.deployments import open_server

    deadline = time.monotonic() + START_SECONDS
    with open_server(home) as client:
        while True:
            if any(
                worker.status == WorkerStatus.ONLINE
                for worker in client.read_workers_for_work_pool(POOL)
            ):
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
    lines = [
        line.strip() for line in log.read_text("utf-8", "replace").splitlines() if line.strip()
    ]
    state = f"did not answer within {START_SECONDS} s" if is_alive else "ended"
    raise LightLMError(
        f"{process.name} {state}; its log {log} ends: {' / '.join(lines[-4:]) or 'nothing'}"
    )


def stop_processes(processes: Iterable[RunningProcess], log: Callable[[str], None]) -> None:
    """End processes with their children: by SIGTERM, by force after STOP_SECONDS."""
    for process in reversed(list(processes)):
        found = process.find()
        if found is None:
            continue
        log(f"Stopping {process.name}")
        try:
            family = [found, *found.children(recursive=True)]
            found.terminate()
        except psutil.NoSuchProcess:
            continue
        deadline = time.monotonic() + STOP_SECONDS
        while (living := list(filter(_is_alive, family))) and time.monotonic() < deadline:
            if process.name == "worker" and living == [found]:
                deadline = min(deadline, time.monotonic() + IDLE_SECONDS)
            time.sleep(0.05)
        for member in filter(_is_alive, family):
            member.kill()


def _is_alive(process: psutil.Process) -> bool:
    """Return whether a process computes: the keeper, whose child a restarted part is, cannot reap
    it while it waits for the lock.
    """
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def end_left_runs(home: Path, log: Callable[[str], None]) -> None:
    """Mark as crashed the runs of the pool whose process has just been stopped."""
    from prefect.client.schemas.filters import (
        FlowRunFilter,
        FlowRunFilterState,
        FlowRunFilterStateType,
        WorkPoolFilter,
        WorkPoolFilterName,
    )
    from prefect.client.schemas.objects import StateType
    from prefect.states import Crashed

    from lightlm_flows.service.deployments import open_server

    left = [StateType.RUNNING, StateType.PENDING, StateType.CANCELLING]
    with open_server(home) as client:
        runs = client.read_flow_runs(
            flow_run_filter=FlowRunFilter(
                state=FlowRunFilterState(type=FlowRunFilterStateType(any_=left))
            ),
            work_pool_filter=WorkPoolFilter(name=WorkPoolFilterName(any_=[POOL])),
        )
        for run in runs:
            log(f"Run {run.name} had not ended; it is marked crashed, and its checkpoints are kept")
            client.set_flow_run_state(
                run.id, Crashed(message="`lightlm down` stopped its worker."), force=True
            )

"""docker-compose.yml as processes on this machine: its own commands, environments, health checks
and order.

What a container engine would give is given here: names of hosts become 127.0.0.1, ports free ones,
volumes folders.
"""

import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import yaml

from lightlm_flows.service.lifecycle import IDLE_SECONDS

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "docker-compose.yml"
SECONDS = 240
"""Only bounds a failure."""

PORTS = {"postgres": 5432, "prefect-server": 4200, "mlflow": 5000, "worker": 8080}


def interpolate(text: str, variables: dict[str, str]) -> str:
    """Return `text` with ${NAME}, ${NAME:-default} and ${NAME:?message} filled in, as
    Compose does.
    """

    def fill(match: re.Match[str]) -> str:
        if match[0] == "$$":
            return "$"
        value = variables.get(match["name"], "")
        if match["kind"] == ":?" and not value:
            raise KeyError(f"{match['name']}: {match['word']}")
        return value or (match["word"] if match["kind"] == ":-" else "")

    return re.sub(r"\$\$|\$\{(?P<name>\w+)(?:(?P<kind>:[-?])(?P<word>[^}]*))?\}", fill, text)


def fill_in(value: Any, variables: dict[str, str]) -> Any:
    """Return a parsed value with all of its strings interpolated: after parsing, as
    Compose does.
    """
    if isinstance(value, dict):
        return {name: fill_in(inner, variables) for name, inner in value.items()}
    if isinstance(value, list):
        return [fill_in(inner, variables) for inner in value]
    return interpolate(value, variables) if isinstance(value, str) else value


def read_compose(variables: dict[str, str]) -> dict[str, Any]:
    """Return the file's services, interpolated."""
    return fill_in(yaml.safe_load(FILE.read_text("utf-8"))["services"], variables)


def find_free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def find_postgres() -> Path | None:
    """Return the folder of PostgreSQL's programs."""
    found = shutil.which("initdb")
    installed = (
        [Path(found).resolve().parent]
        if found
        else sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    )
    return installed[-1] if installed and (installed[-1] / "initdb").exists() else None


@dataclass
class Stack:
    """The file's services as processes."""

    folder: Path
    ports: dict[str, int] = field(
        default_factory=lambda: {name: find_free_port() for name in PORTS}
    )
    secret: dict[str, str] = field(
        default_factory=lambda: {
            name: secrets.token_urlsafe(24)
            for name in (
                "POSTGRES_PASSWORD",
                "PREFECT_PASSWORD",
                "MLFLOW_PASSWORD",
                "MLFLOW_SESSION_KEY",
            )
        }
    )
    processes: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)
    started_at: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        text = {
            "PREFECT_PORT": str(self.ports["prefect-server"]),
            "MLFLOW_PORT": str(self.ports["mlflow"]),
        }
        self.services = read_compose(self.secret | text | {"TEXT_FOLDER": str(self.folder)})

    def log(self, message: str) -> None:
        """Add a line to the transcript, which `pytest -s` shows."""
        line = f"{time.monotonic() - self.started_at:6.1f} s  {message}"
        sys.stderr.write(line + "\n")

    def localize(self, service: str, value: str) -> str:
        """Return a command's word or a variable's value with the hosts, ports and folders of this
        machine.
        """
        for host, port in PORTS.items():
            value = value.replace(f"{host}:{port}", f"127.0.0.1:{self.ports[host]}")
            value = re.sub(rf"\b{port}\b", str(self.ports[host]), value)
        for volume in self.services[service].get("volumes", []):
            name, target = volume.split(":")[:2]
            if (value + "/").startswith(target + "/") and not name.startswith((".", "/")):
                value = str(self.folder / "volumes" / name) + value.removeprefix(target)
        return value.replace("0.0.0.0", "127.0.0.1")

    def environment(self, service: str) -> dict[str, str]:
        """Return a service's environment: the file's, and of this machine's only what an image
        would have.
        """
        own = self.services[service].get("environment", {})
        kept = {
            name: os.environ[name] for name in ("LANG", "OMP_NUM_THREADS") if name in os.environ
        }
        image = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(self.folder / "home"),
            "PREFECT_PROFILES_PATH": str(self.folder / "no-profiles.toml"),
            "DO_NOT_TRACK": "true",
            "COLUMNS": "200",
        }

        return kept | image | {name: self.localize(service, value) for name, value in own.items()}

    def command(self, service: str) -> list[str]:
        return [self.localize(service, word) for word in self.services[service]["command"]]

    def start_all(self) -> None:
        """Start the services that no profile hides, each when those that it depends on are healthy
        or done.
        """
        (self.folder / "home").mkdir()
        waiting = [name for name, service in self.services.items() if not service.get("profiles")]
        while waiting:
            ready = [
                name
                for name in waiting
                if not set(self.services[name].get("depends_on", {})) & set(waiting)
            ]
            assert ready, f"{waiting} wait for each other"
            for name in ready:
                for needed, what in self.services[name].get("depends_on", {}).items():
                    self.wait_for(needed, what["condition"])
                self.start(name)
            waiting = [name for name in waiting if name not in ready]

    def start(self, service: str) -> None:
        for volume in self.services[service].get("volumes", []):
            (self.folder / "volumes" / volume.split(":")[0].lstrip("./")).mkdir(
                parents=True, exist_ok=True
            )
        if service == "postgres":
            self.start_postgres()
        else:
            self.log(f"start {service}: {' '.join(self.command(service))}")
            self.spawn(service, self.command(service))

    def spawn(self, service: str, command: list[str]) -> None:
        with (self.folder / f"{service}.log").open("wb") as log:
            self.processes[service] = subprocess.Popen(
                command,
                cwd=ROOT,
                env=self.environment(service),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def start_postgres(self) -> None:
        """Do what the image of PostgreSQL does: user, password, database, and the files mounted for
        the first start.
        """
        programs = find_postgres()
        assert programs is not None
        environment = self.environment("postgres")
        user = environment["POSTGRES_USER"]
        password = environment["POSTGRES_PASSWORD"]
        data = self.folder / "postgres"
        data.mkdir()
        given = self.folder / "postgres" / "password"
        given.write_text(password)
        as_postgres: list[str] = []

        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
            for path in (data, given):
                shutil.chown(path, "postgres", "postgres")
            for folder in [self.folder, *self.folder.parents][:4]:
                folder.chmod(folder.stat().st_mode | 0o055)
            as_postgres = ["runuser", "-u", "postgres", "--"]

        cluster = str(data / "cluster")
        initdb = [
            str(programs / "initdb"),
            "-D",
            cluster,
            "-U",
            user,
            "--pwfile",
            str(given),
            "-A",
            "scram-sha-256",
        ]

        subprocess.run(
            [*as_postgres, *initdb, "--encoding=UTF8", "--locale=C"],
            check=True,
            capture_output=True,
            cwd="/",
        )

        port = str(self.ports["postgres"])
        options = [
            "-c",
            "listen_addresses=127.0.0.1",
            "-c",
            "fsync=off",
            "-k",
            str(data),
            "-p",
            port,
        ]

        self.log(f"start postgres on port {port}: {programs}")
        self.spawn("postgres", [*as_postgres, str(programs / "postgres"), "-D", cluster, *options])
        self.wait_for_command(
            [str(programs / "pg_isready"), "-h", "127.0.0.1", "-p", port], environment
        )
        psql = [
            str(programs / "psql"),
            "-h",
            "127.0.0.1",
            "-p",
            port,
            "-U",
            user,
            "-v",
            "ON_ERROR_STOP=1",
        ]

        entrypoint = "/docker-entrypoint-initdb.d/"
        mounted = [v.split(":")[0] for v in self.services["postgres"]["volumes"] if entrypoint in v]
        words = [
            ["-c", f"CREATE DATABASE {environment['POSTGRES_DB']}"],
            *(["-f", str(ROOT / m)] for m in mounted),
        ]

        for word in words:
            subprocess.run(
                [*psql, "-d", "postgres", *word],
                check=True,
                capture_output=True,
                env=environment | {"PGPASSWORD": password},
            )

    def wait_for(self, service: str, condition: str) -> None:
        """Wait as `depends_on` says: until a service is healthy by its own check, or has ended
        well.
        """
        if condition == "service_completed_successfully":
            code = self.processes[service].wait(SECONDS)
            assert code == 0, self.read_log(service)
            self.log(f"{service} has ended with 0")
            return

        assert condition == "service_healthy"
        kind, *words = self.services[service]["healthcheck"]["test"]
        words = [self.localize(service, word) for word in words]
        if kind == "CMD-SHELL":
            words = ["sh", "-c", *words]

        programs = find_postgres()
        # The image trusts whoever is inside of its container; this server does not.
        more = {
            "PGPORT": str(self.ports["postgres"]),
            "PGPASSWORD": self.secret["POSTGRES_PASSWORD"],
        }
        environment = self.environment(service) | more
        environment["PATH"] += f":{programs}"
        self.wait_for_command(words, environment, service)
        self.log(f"{service} is healthy")

    def wait_for_command(
        self, command: list[str], environment: dict[str, str], service: str = "postgres"
    ) -> None:
        deadline = time.monotonic() + SECONDS
        while subprocess.run(command, env=environment, capture_output=True, check=False).returncode:
            alive = self.processes[service].poll() is None and time.monotonic() < deadline
            assert alive, self.read_log(service)
            time.sleep(0.3)

    def read_log(self, service: str) -> str:
        return (self.folder / f"{service}.log").read_text("utf-8", "replace")[-3000:]

    def execute(self, *command: str) -> str:
        """Return what `docker compose exec worker COMMAND` would print."""
        self.log(f"$ {' '.join(command)}")
        done = subprocess.run(
            command, cwd=ROOT, env=self.environment("worker"), capture_output=True, text=True,
            timeout=SECONDS, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def stop_all(self) -> None:
        """Stop every process, the last started first."""
        for name, process in reversed(self.processes.items()):
            try:
                family = [
                    psutil.Process(process.pid),
                    *psutil.Process(process.pid).children(recursive=True),
                ]
            except psutil.NoSuchProcess:
                continue
            process.send_signal(signal.SIGTERM)
            is_idle = name == "worker" and len(family) == 1
            _, alive = psutil.wait_procs(family, timeout=IDLE_SECONDS if is_idle else 30)
            for member in alive:
                member.kill()
            process.wait(30)

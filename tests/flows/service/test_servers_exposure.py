"""What listens beyond loopback without a password or host names does not start; files of secrets
are their owner's.
"""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lightlm.errors import InputError, StoreError
from lightlm.tracking.mlflow_server import FIXED
from lightlm_flows.service.servers import (
    SECRETS,
    Server,
    check_exposure,
    is_loopback,
    open_secrets,
    start_of,
    write_auth_config,
)
from tests.command_line import CommandLine

GIVEN = {
    "PREFECT_SERVER_API_AUTH_STRING": "lightlm:a-long-password",
    "MLFLOW_AUTH_ADMIN_PASSWORD": "a-long-password",
    "MLFLOW_FLASK_SERVER_SECRET_KEY": "a-long-session-key",
}
NAMES = ["models.example:443"]
SERVERS: list[Server] = ["prefect", "mlflow"]
EVERYWHERE = ["0.0.0.0", "::", "[::]", "192.168.1.7", "models.example", "127.0.0.1.example"]


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "[::1]", "localhost"])
def test_loopback_is_loopback(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", EVERYWHERE)
@pytest.mark.parametrize("server", SERVERS)
def test_a_server_for_others_needs_its_secrets_and_its_names(
    server: Server, host: str, tmp_path: Path
) -> None:
    for missing in SECRETS[server]:
        with pytest.raises(InputError, match=missing):
            start_of(
                server,
                tmp_path,
                host,
                4200,
                NAMES,
                {k: v for k, v in GIVEN.items() if k != missing},
            )

    with pytest.raises(InputError, match="--allowed-hosts"):
        start_of(server, tmp_path, host, 4200, [], GIVEN)
    assert start_of(server, tmp_path, host, 4200, NAMES, GIVEN).command


@pytest.mark.parametrize("password", ["", "short", "lightlm:", "lightlm:short"])
def test_a_password_that_is_soon_guessed_is_none(password: str) -> None:
    with pytest.raises(InputError, match="12 characters"):
        check_exposure("prefect", "0.0.0.0", NAMES, {"PREFECT_SERVER_API_AUTH_STRING": password})


@pytest.mark.parametrize(
    "name", ["*", "*.example", "10.*", "", "http://x.example", "x.example/path"]
)
def test_a_host_name_is_one_host(name: str) -> None:
    with pytest.raises(InputError, match="no host"):
        check_exposure("mlflow", "127.0.0.1", [name], GIVEN)


def test_the_command_refuses_in_one_line_and_starts_nothing(
    make_command_line: Callable[[], CommandLine],
) -> None:
    lightlm = make_command_line()
    refused = lightlm("server", "mlflow", "--host", "0.0.0.0")
    assert refused.code == 2
    assert refused.err.count("\n") == 1
    assert "MLFLOW_AUTH_ADMIN_PASSWORD" in refused.err
    assert lightlm.list_processes() == []


def test_on_loopback_the_installations_own_secrets_are_taken_and_given_ones_win(
    tmp_path: Path,
) -> None:
    own = open_secrets(tmp_path)
    started = start_of("prefect", tmp_path, "127.0.0.1", 4200, [], {})
    assert started.environment["PREFECT_SERVER_API_AUTH_STRING"] == own.prefect_auth_string
    given = start_of("prefect", tmp_path, "127.0.0.1", 4200, [], GIVEN)
    assert given.environment["PREFECT_SERVER_API_AUTH_STRING"] == "lightlm:a-long-password"


def test_prefect_checks_tokens_and_origins_and_reports_to_nobody(tmp_path: Path) -> None:
    environment = start_of("prefect", tmp_path, "127.0.0.1", 4200, [], {}).environment
    assert environment["PREFECT_SERVER_API_CSRF_PROTECTION_ENABLED"] == "true"
    assert (
        environment["PREFECT_SERVER_API_CORS_ALLOWED_ORIGINS"]
        == "http://localhost:4200,http://127.0.0.1:4200"
    )
    assert environment["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"


def test_mlflow_is_started_without_jobs_and_telemetry_and_without_a_secret_on_its_command_line(
    tmp_path: Path,
) -> None:
    store = "postgresql+psycopg://lightlm:word@db:5432/mlflow"
    started = start_of(
        "mlflow", tmp_path, "127.0.0.1", 5000, [], {"MLFLOW_BACKEND_STORE_URI": store}
    )
    assert started.command[1:4] == ["-P", "-m", "lightlm.tracking.mlflow_server"]
    assert FIXED["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] == "false"
    assert started.environment["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert started.environment["MLFLOW_BACKEND_STORE_URI"] == store
    assert "word" not in " ".join(started.command)
    assert "localhost:5000,127.0.0.1:5000" in started.command


def test_a_password_with_a_percent_sign_survives_mlflows_settings() -> None:
    import configparser

    config = configparser.ConfigParser()
    config.read_string(write_auth_config("postgresql+psycopg://lightlm:50%25@db/mlflow").decode())
    assert config["mlflow"]["database_uri"] == "postgresql+psycopg://lightlm:50%25@db/mlflow"


def test_secrets_are_made_once_even_by_two_at_a_time(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from lightlm_flows.service.servers import "
        "open_secrets; "
    )
    code += "print(open_secrets(Path(sys.argv[1])).prefect_password)"
    both = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        for _ in "ab"
    ]

    assert len({process.communicate(timeout=60)[0] for process in both}) == 1


def test_a_damaged_file_of_secrets_is_not_written_over(tmp_path: Path) -> None:
    open_secrets(tmp_path)
    path = tmp_path / "service" / "secrets.json"
    path.write_text("{}")
    with pytest.raises(StoreError, match="secrets"):
        open_secrets(tmp_path)
    assert path.read_text() == "{}"

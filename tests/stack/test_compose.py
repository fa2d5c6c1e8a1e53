"""docker-compose.yml, Dockerfile and .env.example say what they should: nothing open, nothing
default, all pinned.
"""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from .compose import FILE, ROOT, read_compose
from .pins import list_development, list_image, read_lock, read_pins

SECRETS = ("POSTGRES_PASSWORD", "PREFECT_PASSWORD", "MLFLOW_PASSWORD", "MLFLOW_SESSION_KEY")
GIVEN = {name: f"given-{name.lower()}" for name in SECRETS}
OWN = ("prefect-server", "mlflow", "deploy", "worker", "worker-gpu", "serve")


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    return read_compose(GIVEN)


def test_the_file_is_valid_compose() -> None:
    command = [
        sys.executable,
        "-m",
        "check_jsonschema",
        "--builtin-schema",
        "vendor.compose-spec",
        str(FILE),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_file_with_an_unknown_key_is_not(tmp_path: Path) -> None:
    path = tmp_path / "docker-compose.yml"
    path.write_text(FILE.read_text("utf-8").replace("    scale: 1\n", "    scales: 1\n"))
    command = [
        sys.executable,
        "-m",
        "check_jsonschema",
        "--builtin-schema",
        "vendor.compose-spec",
        str(path),
    ]
    assert subprocess.run(command, capture_output=True, timeout=60, check=False).returncode != 0


@pytest.mark.parametrize("name", SECRETS)
def test_without_a_secret_the_file_is_refused(name: str) -> None:
    with pytest.raises(KeyError, match=name):
        read_compose(GIVEN | {name: ""})


def test_every_secret_is_given_from_outside_and_none_has_a_default() -> None:
    text = FILE.read_text("utf-8")
    literal = re.findall(r"(?:PASSWORD|SECRET_KEY|AUTH_STRING): (?!lightlm:\$|\$)(\S+)", text)
    assert literal == []
    assert re.findall(r"\$\{\w*(?:PASSWORD|SESSION_KEY)\w*:-", text) == []


def test_the_example_names_every_secret_and_fills_in_none() -> None:
    lines = dict(
        line.split("=", 1)
        for line in (ROOT / ".env.example").read_text("utf-8").splitlines()
        if line[:1].isupper()
    )
    assert lines == dict.fromkeys(SECRETS, "")


def test_every_variable_that_the_file_takes_is_in_the_example() -> None:
    example = (ROOT / ".env.example").read_text("utf-8")
    taken = set(re.findall(r"\$\{(\w+)", FILE.read_text("utf-8")))
    assert {name for name in taken if not re.search(rf"^#?{name}=", example, re.M)} == set()


def test_every_port_is_published_on_loopback_alone(services: dict[str, Any]) -> None:
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert len(ports) == 3
    assert [port for port in ports if not port.startswith("127.0.0.1:")] == []


@pytest.mark.parametrize("name", OWN)
def test_a_service_of_ours_is_of_our_image(services: dict[str, Any], name: str) -> None:
    service = services[name]
    assert service["image"] in ("lightlm:cpu", "lightlm:gpu")
    assert service["build"]["context"] == "."


@pytest.mark.parametrize("name", [*OWN, "postgres"])
def test_a_service_writes_only_to_volumes_has_no_capabilities_and_is_bounded(
    services: dict[str, Any], name: str
) -> None:
    service = services[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["pids_limit"] <= 4096
    assert service["logging"]["options"] == {"max-size": "10m", "max-file": "3"}
    assert [mount for mount in service["tmpfs"] if "size=" not in mount] == []
    assert service["mem_limit"]


def test_only_the_servers_reach_the_database(services: dict[str, Any]) -> None:
    reaching = {name for name, service in services.items() if "database" in service["networks"]}
    assert reaching == {"postgres", "prefect-server", "mlflow"}
    assert services["postgres"]["networks"] == ["database"]
    networks = yaml.safe_load(FILE.read_text("utf-8"))["networks"]
    assert networks == {"front": {}, "database": {"internal": True}}


def test_the_models_are_served_only_where_they_are_asked_for_and_with_a_given_key(
    services: dict[str, Any],
) -> None:
    served = services["serve"]
    assert served["profiles"] == ["serve"]
    assert served["environment"]["LIGHTLM_API_KEY"] == ""
    assert "--api-key" not in served["command"]
    given = read_compose(GIVEN | {"LIGHTLM_API_KEY": "the-key-of-a-client"})["serve"]
    assert given["environment"]["LIGHTLM_API_KEY"] == "the-key-of-a-client"


def test_a_workers_memory_is_limited_by_one_variable(services: dict[str, Any]) -> None:
    assert services["worker"]["mem_limit"] == "0"
    assert read_compose(GIVEN | {"WORKER_MEMORY": "12g"})["worker"]["mem_limit"] == "12g"


def test_the_database_is_pinned_and_publishes_no_port(services: dict[str, Any]) -> None:
    assert services["postgres"]["image"] == "postgres:17"
    assert "ports" not in services["postgres"]


def test_services_that_stay_are_checked_and_restarted(services: dict[str, Any]) -> None:
    for name in ("postgres", "prefect-server", "mlflow", "worker", "worker-gpu", "serve"):
        assert services[name]["healthcheck"]["test"]
        assert services[name]["restart"] == "unless-stopped"


def test_one_variable_puts_artifacts_into_a_bucket() -> None:
    environment = read_compose(GIVEN | {"MLFLOW_ARTIFACTS_DESTINATION": "s3://bucket/x"})["mlflow"][
        "environment"
    ]
    assert environment["MLFLOW_ARTIFACTS_DESTINATION"] == "s3://bucket/x"


def test_the_image_runs_as_a_user_who_is_not_root_and_keeps_bytecode() -> None:
    text = (ROOT / "Dockerfile").read_text("utf-8")
    last = text.rsplit("\nFROM ", 1)[1]
    assert re.search(r"^USER 10001:10001$", last, re.M)
    assert "--uid 10001" in last
    assert "compileall" in text
    assert "latest" not in text


def test_the_image_gets_no_secret_and_no_data() -> None:
    lines = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    assert "*" in lines
    copied = re.findall(
        r"^COPY (?!--from)(.+) \S+$", (ROOT / "Dockerfile").read_text("utf-8"), re.M
    )
    assert {f"!{word}" for words in copied for word in words.split()} == {
        line for line in lines if line.startswith("!")
    }


def test_everything_that_is_installed_is_pinned_the_tools_of_development_too() -> None:
    assert list_development() - set(read_pins()) == set()


def test_every_pin_has_the_digests_of_its_files_and_nothing_else_is_in_the_lock() -> None:
    image, development = read_lock()
    locked = image | development
    assert {name: version for name, (version, _) in locked.items()} == read_pins(), "call bin/lock"
    assert [name for name, (_, digests) in locked.items() if not digests] == []


def test_the_image_installs_all_that_it_needs_and_no_tool_of_development() -> None:
    image, development = read_lock()
    assert set(image) == list_image()
    assert set(development) >= {"pytest", "ruff", "pyright"}


@pytest.mark.parametrize("path", ["bin/bootstrap", "Dockerfile"])
def test_what_is_installed_has_to_be_what_the_lock_names_and_is_not_built_from_source(
    path: str,
) -> None:
    written = (ROOT / path).read_text("utf-8")
    commands = re.findall(r"(?:pip install|packages) (.*requirements\.lock)", written)
    assert commands
    for command in commands:
        assert {"--require-hashes", "--no-deps", "--only-binary :all:"} <= set(
            re.findall(r"--\S+(?: :all:)?", command)
        ), command

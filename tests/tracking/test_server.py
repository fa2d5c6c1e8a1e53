"""Tests against a real MLflow server: it is looked at on loopback, goes away, comes back, hangs."""

import http.client
import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from lightlm.errors import TrackingError
from lightlm.store.home import find_home
from lightlm.tracking.catalog import resolve
from lightlm.tracking.mlflow_routes import REFUSED
from lightlm.tracking.outbox import Outbox
from lightlm.tracking.record import RegistrationRequest, read_records
from lightlm.tracking.recorder import Recorder
from lightlm.tracking.registry import download, open_client
from lightlm.tracking.shipped import read_shipped
from lightlm_flows.service.servers import USER, open_secrets, start_of_pages


def echo(model_input: list[str]) -> list[str]:
    """A model of a person's own."""
    return model_input


class Server:
    """An MLflow server of its own home, started as `lightlm ui` does; its artifacts go
    through it.
    """

    def __init__(self, home: Path) -> None:
        self.home = home
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None
        self.begun = start_of_pages(home, self.port)
        self.password = open_secrets(home).mlflow_password

    def start(self) -> None:
        with (self.home / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                self.begun.command,
                env=os.environ | self.begun.environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd=self.home,
            )

    def wait(self) -> None:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(f"{self.uri}/health", timeout=2) as response:
                    if response.status == 200:
                        return
            except (urllib.error.URLError, OSError):
                time.sleep(0.1)
        raise AssertionError((self.home / "server.log").read_text()[-3000:])

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the server and its worker, which are a session of their own."""
        assert self.process is not None
        os.killpg(self.process.pid, number)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        assert self.process is not None
        self.process.wait()

    def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        has_password: bool = True,
        **headers: str,
    ) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        content = None if body is None else json.dumps(body)
        if has_password:
            headers["Authorization"] = (
                f"Basic {b64encode(f'{USER}:{self.password}'.encode()).decode()}"
            )
        connection.request(method, path, content, {"Content-Type": "application/json"} | headers)
        response = connection.getresponse()
        return response.status, response.read()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, new_database: Path) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    (folder / "mlflow.db").write_bytes(new_database.read_bytes())
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        server = Server(folder)
        server.start()
        server.wait()
        yield server
        server.signal(signal.SIGCONT)
        server.kill()


@pytest.fixture
def remote(server: Server, home: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    """The server, with this test's own home told to use it."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", USER)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", server.password)
    return server


def losses_of(home: Path, run_id: str) -> list[int]:
    return sorted(
        metric.step for metric in open_client(home).get_metric_history(run_id, "train/loss")
    )


def test_the_pages_are_for_this_machine_only(server: Server) -> None:
    search = "/api/2.0/mlflow/experiments/search"
    assert server.ask("GET", "/health") == (200, b"OK")
    assert server.ask("GET", "/")[0] == 200
    status, content = server.ask("POST", search, {"max_results": 5})
    assert status == 200
    assert json.loads(content)["experiments"]
    assert server.ask("POST", search, {"max_results": 5}, Host=f"localhost:{server.port}")[0] == 200

    for host in (
        "evil.example",
        f"evil.example:{server.port}",
        f"192.168.0.1:{server.port}",
        f"10.0.0.1:{server.port}",
    ):
        assert server.ask("POST", search, {"max_results": 5}, Host=host)[0] == 403
        assert server.ask("GET", "/", Host=host)[0] == 403

    assert server.begun.command[server.begun.command.index("--host") + 1] == "127.0.0.1"


def test_without_the_password_nothing_is_read_written_or_put_beside_a_model(server: Server) -> None:
    for method, path, body in [
        ("GET", "/", None),
        ("POST", "/api/2.0/mlflow/experiments/search", {"max_results": 5}),
        ("POST", "/api/2.0/mlflow/experiments/create", {"name": "x"}),
        ("PUT", "/api/2.0/mlflow-artifacts/artifacts/pyfunc_model.py", "print()"),
        ("POST", "/graphql", {"query": "{__typename}"}),
        ("POST", "/v1/traces", {}),
    ]:
        assert server.ask(method, path, body, has_password=False)[0] == 401, path
    assert not list(server.home.rglob("pyfunc_model.py"))


@pytest.mark.parametrize("has_password", [False, True])
@pytest.mark.parametrize("origin", [None, "http://localhost:9999"])
def test_the_assistant_that_runs_commands_cannot_be_reached(
    server: Server, has_password: bool, origin: str | None
) -> None:
    assistant = "/ajax-api/3.0/mlflow/assistant"
    provider = {
        "selected": True,
        "base_url": "http://127.0.0.1:9",
        "permissions": {"full_access": True},
    }

    headers = {} if origin is None else {"Origin": origin}
    for method, path, body in [
        ("PUT", "/config", {"providers": {"ollama": provider}}),
        ("GET", "/config", None),
        ("POST", "/message", {"message": "run id"}),
        ("GET", "/sessions/one/stream", None),
    ]:
        status, content = server.ask(
            method, assistant + path, body, has_password=has_password, **headers
        )
        assert (status, content) == (404, REFUSED)


def test_only_the_servers_own_pages_may_call_it(server: Server) -> None:
    search = "/ajax-api/2.0/mlflow/experiments/search?max_results=1"
    for own in (f"http://localhost:{server.port}", f"http://127.0.0.1:{server.port}"):
        assert server.ask("GET", search, Origin=own)[0] == 200

    for method, path in [
        ("POST", "/api/2.0/mlflow/experiments/create"),
        ("GET", search),
        ("GET", "/"),
    ]:
        for foreign in (
            "https://evil.example", "null", "http://localhost:9999", "http://127.0.0.1", "http://[::1]:9",
            f"http://localhost:{server.port}0", f"http://LOCALHOST:{server.port}",
        ):  # fmt: skip
            assert server.ask(method, path, {"name": "x"}, Origin=foreign)[0] == 403, (
                method,
                foreign,
            )

    assert (
        server.ask("OPTIONS", "/api/2.0/mlflow/experiments/create", Origin="http://localhost:9999")[
            0
        ]
        == 404
    )


def test_the_pages_of_a_server_elsewhere_are_not_served_again(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://alice:sesame42@mlflow.example")
    with pytest.raises(
        TrackingError, match=r"https://\[hidden\]@mlflow.example, a server that shows"
    ) as caught:
        start_of_pages(home, 5000)
    assert "sesame42" not in str(caught.value)


def test_a_run_its_model_and_its_files_go_through_the_server(
    remote: Server, home: Path, recorded: Callable[..., Path], model_folder: Path
) -> None:
    outbox = Outbox.start(home, recorded("run-1", steps=5))
    version = outbox.wait_for_version(60)
    assert version is not None
    shipment = outbox.close(60)
    assert (shipment.num_unsent, shipment.error, shipment.run_id) == (0, None, version.run_id)
    assert losses_of(home, version.run_id) == [1, 2, 3, 4, 5]
    names = {artifact.path for artifact in open_client(home).list_artifacts(version.run_id)}
    assert {"plan.json", "loss.png"} <= names
    assert resolve(home, "models:/lightlm@champion").version == version.version
    folder = download(home, version)
    assert folder.is_relative_to(home)
    assert (folder / "model.safetensors").read_bytes() == (
        model_folder / "model.safetensors"
    ).read_bytes()

    assert [path.name for path in folder.parent.iterdir()] == [version.version], (
        "what was fetched is tidied up"
    )
    assert not (home / "mlartifacts").exists()


def test_what_a_person_does_with_mlflows_client_goes_through_the_server(
    remote: Server, home: Path
) -> None:
    client = open_client(home)
    import mlflow
    from mlflow.artifacts import load_text
    from mlflow.data.numpy_dataset import from_numpy
    from mlflow.entities import Metric, Param, RunTag

    experiment_id = client.create_experiment("by hand")
    with mlflow.start_run(experiment_id=experiment_id) as run:
        mlflow.log_params({"a": 1})
        mlflow.log_metric("loss", 1.0, step=1)
        client.log_batch(
            run.info.run_id, [Metric("loss", 0.5, 2**41, 2)], [Param("b", "2")], [RunTag("t", "x")]
        )
        mlflow.log_text("words", "notes/words.txt")
        mlflow.log_input(from_numpy(np.zeros(2)))
        mlflow.pyfunc.log_model(
            name="echo", python_model=echo, registered_model_name="echo", pip_requirements=[]
        )

    client.set_registered_model_alias("echo", "champion", "1")
    client.set_model_version_tag("echo", "1", "kind", "test")
    client.update_model_version("echo", "1", description="says it again")
    assert mlflow.pyfunc.load_model("models:/echo@champion").predict(["a"]) == ["a"]
    assert [metric.value for metric in client.get_metric_history(run.info.run_id, "loss")] == [
        1.0,
        0.5,
    ]

    assert load_text(f"runs:/{run.info.run_id}/notes/words.txt") == "words"
    assert len(mlflow.search_runs(experiment_names=["by hand"], output_format="list")) == 1

    mlflow.start_span_no_context("said", inputs={"prompt": "x"}, experiment_id=experiment_id).end()
    wait_until(lambda: client.search_traces(locations=[experiment_id]))
    (trace,) = client.search_traces(locations=[run.info.experiment_id])
    client.set_trace_tag(trace.info.trace_id, "seen", "yes")
    assert client.get_trace(trace.info.trace_id).info.tags["seen"] == "yes"
    assert mlflow.log_feedback(trace_id=trace.info.trace_id, name="good", value=True).name == "good"

    client.delete_registered_model_alias("echo", "champion")
    client.delete_model_version("echo", "1")
    client.rename_registered_model("echo", "echo-2")
    client.delete_registered_model("echo-2")
    client.delete_run(run.info.run_id)
    client.restore_run(run.info.run_id)
    client.delete_experiment(run.info.experiment_id)
    assert client.get_experiment(run.info.experiment_id).lifecycle_stage == "deleted"


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.02)


@pytest.mark.faults
def test_a_server_that_dies_in_a_run_and_comes_back_has_everything_once(
    remote: Server,
    home: Path,
    recorded: Callable[..., Path],
    request_for: Callable[..., RegistrationRequest],
) -> None:
    folder = recorded("run-dies", steps=20, is_finished=False)
    recorder = Recorder(folder)
    outbox = Outbox.start(home, folder)
    wait_until(lambda: read_shipped(folder).cursor)
    remote.kill()
    early = recorded("run-early", steps=4)
    waiting = Outbox.start(home, early)  # There has been no server in all its life.
    for step in range(21, 51):
        recorder.log_metrics({"train/loss": 1.0}, step)
        time.sleep(0.01)

    recorder.register(request_for())
    recorder.finish("FINISHED")
    wait_until(lambda: "refused" in (early / "outbox.log").read_text())
    remote.start()
    # While the server starts, a single wait is short: it is known to be away.
    wait_until(lambda: outbox.wait_for_version(60))
    wait_until(lambda: waiting.wait_for_version(60))
    version = outbox.wait_for_version(0)
    other = waiting.wait_for_version(0)
    recorder.close()
    assert version is not None
    assert other is not None
    client = open_client(home)

    for box, run_id, steps in ((outbox, version.run_id, 50), (waiting, other.run_id, 4)):
        shipment = box.close(60)
        assert (shipment.num_unsent, shipment.error, shipment.run_id) == (0, None, run_id)
        assert losses_of(home, run_id) == list(range(1, steps + 1))
        assert client.get_run(run_id).info.status == "FINISHED"
        assert len(client.search_model_versions(f"run_id='{run_id}'")) == 1


def test_a_server_that_hangs_holds_nobody_up_and_what_is_unsent_is_counted(
    remote: Server, recorded: Callable[..., Path]
) -> None:
    folder = recorded("run-hangs", steps=9)
    remote.signal(signal.SIGSTOP)
    try:
        shipment = Outbox.start(find_home(), folder).close(6)
    finally:
        remote.signal(signal.SIGCONT)
    assert shipment.num_unsent == len(list(read_records(folder)))
    assert "MLflow did not answer in the 6.0 s that were left" in str(shipment.error)

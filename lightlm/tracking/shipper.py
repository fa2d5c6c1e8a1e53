"""The shipping process: reads a run's journal and tells MLflow, again and again until MLflow has it all.

Owns exactly-once: the original times and steps go along, so MLflow drops what it has already; the run is found by its
key before one is created; the cursor moves only behind what was accepted. Registration is registration's.
"""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightlm.errors import BusyError, LightLMError
from lightlm.store.commit import write_file
from lightlm.store.home import find_home
from lightlm.store.journal import read_journal
from lightlm.store.lock import hold_lock
from lightlm.tracking.charts import Point, draw_loss
from lightlm.tracking.recorder import JOURNAL, RegistrationRequest
from lightlm.tracking.registry import first_line, is_local, open_client
from lightlm.tracking.system_metrics import SystemSampler

if TYPE_CHECKING:
    from mlflow import MlflowClient

STATE = "shipped.json"
RUN_KEY_TAG = "lightlm.run_key"

POLL_SECONDS = 0.1
BATCH_METRICS = 1000
"""Metrics a request: MLflow's limit."""

FIRST_BACKOFF_SECONDS, LONGEST_BACKOFF_SECONDS = 0.5, 5.0
GRACE_SECONDS = 10.0
"""How long a server that does not answer is tried after the run's end."""

NICENESS = 5
"""Below the training's priority; importing MLflow takes 2 s of a core."""

REQUIREMENTS = ("torch", "transformers", "safetensors", "tokenizers", "mlflow")


class Shipper:
    """Ships one run's journal. `answer` tells the parent; `None` when shipping for a run that is long over."""

    def __init__(self, folder: Path, client: "MlflowClient", home: Path) -> None:
        self.folder = folder
        self.client = client
        self.home = home
        self.state: dict[str, Any] = {"cursor": 0, "run_id": None, "version": None, "is_finished": False}
        if (folder / STATE).exists():
            self.state |= json.loads((folder / STATE).read_text(encoding="utf-8"))
        self.losses: list[Point] = []
        self.scores: list[Point] = []
        self.started_ms: int | None = None

    @property
    def run_id(self) -> str:
        """MLflow's id of the run."""
        return self.state["run_id"]

    def count_unsent(self) -> int:
        """Return how many records MLflow does not have yet."""
        return sum(1 for _ in read_journal(self.folder / JOURNAL, self.state["cursor"]))

    def ship(self) -> bool:
        """Send what is new; return whether there was anything. Raises what MLflow raises; the cursor then stands."""
        moved = False
        for records, cursor in _group(read_journal(self.folder / JOURNAL, self.state["cursor"])):
            self._send(records)
            self.state["cursor"] = cursor
            moved = True
        if moved:
            self._save()
        return moved

    def end(self, status: str) -> None:
        """Give the run its end state, after a death that left none."""
        if self.state["run_id"] is not None and not self.state["is_finished"]:
            self.client.set_terminated(self.run_id, status)
            self.state["is_finished"] = True
            self._save()

    def _send(self, records: list[dict[str, Any]]) -> None:
        kind = records[0]["kind"]
        if kind == "metrics":
            self._send_metrics(records)
            return
        for record in records:
            getattr(self, f"_send_{kind}")(record)

    def _send_start(self, record: dict[str, Any]) -> None:
        self.started_ms = record["time_ms"]
        self.state["system_metrics"] = record.get("system_metrics", True)
        experiment = find_experiment(self.client, record["experiment"], self.home)
        found = self.client.search_runs([experiment], f"tags.`{RUN_KEY_TAG}` = '{record['run_key']}'", max_results=1)
        if found:
            self.state["run_id"] = found[0].info.run_id
        else:
            tags = record["tags"] | {RUN_KEY_TAG: record["run_key"], "mlflow.note.content": record["description"]}
            run = self.client.create_run(experiment, record["time_ms"], tags, record["name"])
            self.state["run_id"] = run.info.run_id
        self._save()

    def _send_metrics(self, records: list[dict[str, Any]]) -> None:
        from mlflow.entities import Metric

        metrics = [
            Metric(name, value, record["time_ms"], record["step"])
            for record in records
            for name, value in record["values"].items()
        ]
        for start in range(0, len(metrics), BATCH_METRICS):
            self.client.log_batch(self.run_id, metrics=metrics[start : start + BATCH_METRICS])
        for record in records:
            self._remember(record)

    def _remember(self, record: dict[str, Any]) -> None:
        seconds = (record["time_ms"] - (self.started_ms or record["time_ms"])) / 1000
        for name, points in (("train/loss", self.losses), ("validation/bits_per_byte", self.scores)):
            if name in record["values"]:
                points.append((seconds, record["values"][name]))

    def _send_params(self, record: dict[str, Any]) -> None:
        from mlflow.entities import Param

        params = [Param(name, value[:6000]) for name, value in record["values"].items()]
        for start in range(0, len(params), 100):
            self.client.log_batch(self.run_id, params=params[start : start + 100])

    def _send_tags(self, record: dict[str, Any]) -> None:
        from mlflow.entities import RunTag

        self.client.log_batch(self.run_id, tags=[RunTag(name, value) for name, value in record["values"].items()])

    def _send_text(self, record: dict[str, Any]) -> None:
        self.client.log_text(self.run_id, record["content"], record["path"])

    def _send_dataset(self, record: dict[str, Any]) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        values = record["values"]
        counts = {name: value for name, value in values.items() if isinstance(value, int)}
        dataset = Dataset(
            name=values["name"],
            digest=values["digest"],
            source_type="lightlm",
            source=json.dumps({"source": values["source"], "digest": values.get("source_digest", "")}),
            profile=json.dumps(counts),
        )
        self.client.log_inputs(self.run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])])

    def _send_register(self, record: dict[str, Any]) -> None:
        from lightlm.tracking.registration import register

        request = RegistrationRequest.model_validate(record["request"])
        version = register(self.client, self.run_id, request, pin_requirements())
        self.state["version"] = version.model_dump(mode="json")
        self._save()
        answer({"version": self.state["version"]})

    def _send_finish(self, record: dict[str, Any]) -> None:
        if self.losses:
            self._send_plot()
        self.client.set_terminated(self.run_id, record["status"], record["time_ms"])
        self.state["is_finished"] = True

    def _send_plot(self) -> None:
        path = self.folder / "loss.png"
        version = self.state["version"] or {}
        tags = version.get("tags", {})
        final = float(tags["bits_per_byte"]) if "bits_per_byte" in tags else None
        title = f"{version.get('name', 'run')} {version.get('version', self.folder.name)}: {tags.get('dataset', '')}"
        draw_loss(path, self.losses, self.scores, title, final)
        self.client.log_artifact(self.run_id, str(path))

    def _save(self) -> None:
        write_file(self.folder / STATE, json.dumps(self.state).encode())


def find_experiment(client: "MlflowClient", name: str, home: Path) -> str:
    """Return the id of the experiment; created on first use, its artifacts at an absolute path when local."""
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is not None:
        return found.experiment_id
    location = (home / "mlartifacts").as_uri() if is_local(home) else None
    try:
        # The kind chooses which pages MLflow shows first: training runs and their charts.
        return client.create_experiment(name, location, {"mlflow.experimentKind": "custom_model_development"})
    except MlflowException:
        # Another run created it between the two calls.
        found = client.get_experiment_by_name(name)
        if found is None:
            raise
        return found.experiment_id


def pin_requirements() -> list[str]:
    """Return what a registered model needs, as installed here; without torch's local build tag."""
    return [f"{name}=={installed_version(name).partition('+')[0]}" for name in REQUIREMENTS]


def answer(record: dict[str, Any]) -> None:
    """Tell the parent, if it still listens."""
    try:
        sys.stdout.write(json.dumps(record) + "\n")
        sys.stdout.flush()
    except (BrokenPipeError, ValueError):
        return


def follow(shipper: Shipper, parent_gone: threading.Event, pending: Iterator[Path]) -> str | None:
    """Ship until the run's finish is shipped, or its parent is gone and the grace is over; return the last error."""
    sampler = SystemSampler()
    backoff, given_up_at, error = FIRST_BACKOFF_SECONDS, None, None
    while not shipper.state["is_finished"]:
        if parent_gone.is_set() and given_up_at is None:
            given_up_at = time.monotonic() + GRACE_SECONDS
        try:
            moved = shipper.ship()
            if shipper.state["run_id"] is not None:
                answer({"run_id": shipper.run_id})
                if shipper.state.get("system_metrics", True):
                    sampler.send(shipper.client, shipper.run_id)
            error, backoff = None, FIRST_BACKOFF_SECONDS
        except Exception as caught:  # noqa: BLE001  (whatever MLflow raises, the record is kept and tried again)
            error = first_line(caught)
            sys.stderr.write(f"{type(caught).__name__}: {caught}\n")
            parent_gone.wait(backoff)
            backoff = min(2 * backoff, LONGEST_BACKOFF_SECONDS)
            moved = False
        if not moved and error is None:
            if parent_gone.is_set() and not shipper.count_unsent():
                shipper.end("KILLED")
                break
            ship_pending(shipper, pending)
            parent_gone.wait(POLL_SECONDS)
        if given_up_at is not None and time.monotonic() > given_up_at:
            break
    return error


def ship_pending(shipper: Shipper, pending: Iterator[Path]) -> None:
    """Send what an earlier run could not, one run at a time; a run that died gets its end state."""
    folder = next(pending, None)
    if folder is None:
        return
    try:
        with hold_lock(folder / ".outbox.lock", wait=False):
            earlier = Shipper(folder, shipper.client, shipper.home)
            earlier.ship()
            earlier.end("KILLED")
    except (BusyError, LightLMError):
        return
    except Exception as error:  # noqa: BLE001  (an old run must not hurt this one)
        sys.stderr.write(f"{folder}: {error}\n")


def list_pending(home: Path, own: Path) -> Iterator[Path]:
    """Yield the folders of earlier runs that MLflow does not have to their end."""
    runs = home / "runs"
    for folder in sorted(runs.iterdir()) if runs.is_dir() else []:
        if folder == own or not (folder / JOURNAL).exists():
            continue
        try:
            state = json.loads((folder / STATE).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            state = {}
        if not state.get("is_finished"):
            yield folder


def main(folder: Path) -> None:
    """Be the process: ship `folder` until its run is over."""
    if hasattr(os, "nice"):
        os.nice(NICENESS)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent_gone = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: parent_gone.set())
    threading.Thread(target=_watch_parent, args=(parent_gone,), daemon=True).start()
    home = find_home()
    with hold_lock(folder / ".outbox.lock"):
        client, error = None, None
        try:
            # The first use of a database creates its tables; two processes at once would collide.
            with hold_lock(home / ".mlflow.lock"):
                client = open_client(home)
                client.search_experiments(max_results=1)
        except Exception as caught:  # noqa: BLE001  (a server that is away: the loop below tries again)
            error = first_line(caught)
            sys.stderr.write(f"{type(caught).__name__}: {caught}\n")
        if client is None:
            answer({"done": {"num_unsent": 1, "error": error}})
            return
        shipper = Shipper(folder, client, home)
        error = follow(shipper, parent_gone, list_pending(home, folder))
        answer({"run_id": shipper.state["run_id"]})
        answer({"done": {"num_unsent": shipper.count_unsent(), "error": error}})


def _watch_parent(parent_gone: threading.Event) -> None:
    sys.stdin.read()
    parent_gone.set()


def _group(records: Iterator[tuple[dict[str, Any], int]]) -> Iterator[tuple[list[dict[str, Any]], int]]:
    """Yield neighbouring metrics records together, others alone, each with the offset behind them."""
    metrics: list[dict[str, Any]] = []
    end = 0
    for record, offset in records:
        if record["kind"] == "metrics":
            metrics.append(record)
            end = offset
            if len(metrics) >= BATCH_METRICS:
                yield metrics, end
                metrics = []
            continue
        if metrics:
            yield metrics, end
            metrics = []
        yield [record], offset
    if metrics:
        yield metrics, end

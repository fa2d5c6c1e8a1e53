"""The shipper: reads a run's journal and tells MLflow what it does not have yet.

Owns exactly-once: the original times and steps go along, so MLflow drops what it has already; the
run is found by its key before one is created; the cursor moves only behind what was accepted.
Registration is registration's.
"""

import json
import math
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightlm.errors import LightLMError, StoreError
from lightlm.rendering.plots import Point, render_loss
from lightlm.store.commit import write_file
from lightlm.store.journal import read_journal
from lightlm.tracking.recorder import JOURNAL, RegistrationRequest, name_answer
from lightlm.tracking.registry import download, first_line, is_local, is_unknown
from lightlm.tracking.shipped import STATE, read_state

if TYPE_CHECKING:
    from mlflow import MlflowClient

RUN_KEY_TAG = "lightlm.run_key"
REFUSED_TAG = "lightlm.refused"
END_TAG = "lightlm.end"
"""Why a run has an end that it did not give itself."""

BATCH_METRICS = 1000
"""Metrics a request: MLflow's limit."""

REQUIREMENTS = ("torch", "transformers", "safetensors", "tokenizers", "mlflow")


def ignore(record: dict[str, Any]) -> None:
    """Tell nobody: the run is long over."""


def count_unsent(folder: Path) -> int:
    """Return how many of a run's records MLflow does not have yet."""
    return sum(1 for _ in read_journal(folder / JOURNAL, read_state(folder)["cursor"]))


def has_said_its_end(folder: Path) -> bool:
    """Return whether the last process that recorded the run also recorded its finish."""
    kinds = [
        record["kind"]
        for record, _ in read_journal(folder / JOURNAL)
        if record["kind"] in ("start", "finish")
    ]
    return kinds[-1:] == ["finish"]


class Shipper:
    """Ships one run's journal. `tell` takes what the run's parent waits for; `accepted` is called
    at MLflow's every yes.

    It is called before the parent is told: a parent that still believes MLflow away gives the rest
    no time.
    """

    def __init__(
        self,
        folder: Path,
        client: "MlflowClient",
        home: Path,
        tell: Callable[[dict[str, Any]], None] = ignore,
        accepted: Callable[[], None] = lambda: None,
    ) -> None:
        self.folder = folder
        self.client = client
        self.home = home
        self.tell = tell
        self.accepted = accepted
        self.state = read_state(folder)
        self._owes_answers = tell is not ignore

    @property
    def run_id(self) -> str:
        """MLflow's id of the run."""
        return self.state["run_id"]

    def is_over(self) -> bool:
        """Return whether MLflow has the run to its end, and the parent its answers."""
        return (
            not self._owes_answers
            and self.state["is_finished"]
            and next(self._read_new(), None) is None
        )

    def ship(self) -> bool:
        """Send what is new; return whether there was anything. Raises what MLflow raises; the
        cursor then stands.
        """
        moved = False
        before = dict(self.state)
        try:
            self._answer_for_another()
            for records, cursor in _group(self._read_new()):
                self._send(records)
                self.accepted()
                self.state["cursor"] = cursor
                moved = True
        except Exception as error:
            if is_unknown(error) and self._is_run_unknown():
                # Another store than the one that had the beginning, or one that lost it: it gets
                # the whole.
                self.state |= {"cursor": 0, "run_id": None, "version": None, "is_finished": False}
            raise
        finally:
            if self.state != before:
                self._save()

        return moved

    def end(self, status: str, reason: str) -> None:
        """Give the run its end state and say why, at its last record's time, after a death that
        left none.
        """
        if self.state["run_id"] is not None and not self.state["is_finished"]:
            times = [record["time_ms"] for record, _ in read_journal(self.folder / JOURNAL)]
            self.client.set_tag(self.run_id, END_TAG, reason)
            self.client.set_terminated(self.run_id, status, max(times, default=None))
            self.state["is_finished"] = True
            self._save()

    def _answer_for_another(self) -> None:
        """Give the answers that are due to records that another process shipped, to a parent that
        was gone.

        The outbox of a killed run still ships, for a moment, what the same command's next run
        records.
        """
        if not self._owes_answers:
            return

        asked: dict[str, dict[str, Any]] = {}
        for record, offset in read_journal(self.folder / JOURNAL):
            if offset > self.state["cursor"]:
                break
            if record["kind"] == "start":
                asked.clear()
            asked[record["kind"]] = record

        if "champion" in asked:
            self._send([asked["champion"]])
        if "register" in asked:
            self.tell({"version": self.state["version"]})

        self._owes_answers = False

    def _read_new(self) -> Iterator[tuple[dict[str, Any], int]]:
        return read_journal(self.folder / JOURNAL, self.state["cursor"])

    def _is_run_unknown(self) -> bool:
        if self.state["run_id"] is None:
            return False
        try:
            self.client.get_run(self.run_id)
        except Exception as error:  # noqa: BLE001  (only the one answer counts)
            return is_unknown(error)
        return False

    def _send(self, records: list[dict[str, Any]]) -> None:
        kind = records[0]["kind"]
        try:
            if kind == "metrics":
                self._send_metrics(records)
            else:
                getattr(self, f"_send_{kind}")(records[0])
        except Exception as error:
            if kind in ("start", "register", "finish") or not _is_refused(error):
                raise
            if len(records) > 1:
                for record in records:
                    self._send([record])
                return
            # It would be refused for ever, and everything behind it would wait.
            self._note_refusal(f"MLflow refused a record of {kind}: {first_line(error)}")

    def _note_refusal(self, message: str) -> None:
        self.state["refused"] = self.state["refused"] or message
        sys.stderr.write(f"{message}\n")

    def _send_start(self, record: dict[str, Any]) -> None:
        self.state["system_metrics"] = record.get("system_metrics", True)
        experiment = find_experiment(self.client, record["experiment"], self.home)
        found = self.client.search_runs(
            [experiment], f"tags.`{RUN_KEY_TAG}` = '{record['run_key']}'", max_results=1
        )

        if found:
            self.state["run_id"] = found[0].info.run_id
            # A run that died and is continued: what ended it in MLflow's eyes was not its end.
            self.client.update_run(self.run_id, status="RUNNING")
            self.state["is_finished"] = False
        else:
            tags = record["tags"] | {
                RUN_KEY_TAG: record["run_key"],
                "mlflow.note.content": record["description"],
            }
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

    def _send_params(self, record: dict[str, Any]) -> None:
        from mlflow.entities import Param

        params = [Param(name, value[:6000]) for name, value in record["values"].items()]
        for start in range(0, len(params), 100):
            self.client.log_batch(self.run_id, params=params[start : start + 100])

    def _send_tags(self, record: dict[str, Any]) -> None:
        from mlflow.entities import RunTag

        self.client.log_batch(
            self.run_id, tags=[RunTag(name, value) for name, value in record["values"].items()]
        )

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
            source=json.dumps(
                {"source": values["source"], "digest": values.get("source_digest", "")}
            ),
            profile=json.dumps(counts),
        )

        self.client.log_inputs(
            self.run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])]
        )

    def _send_champion(self, record: dict[str, Any]) -> None:
        from lightlm.tracking.catalog import choose_name

        if self.tell is ignore:
            return

        names = record["names"] if "names" in record else [record["model_name"]]
        name, champion = choose_name(self.client, names, record.get("origin"))
        error = None

        try:
            if champion is not None:
                download(champion)
        except LightLMError as refusal:
            error = first_line(refusal)

        found = None if champion is None else champion.model_dump(mode="json")
        self.accepted()
        self.tell(
            {
                "champion": found,
                "champion_error": error,
                "model_name": name,
                name_answer(names): True,
            }
        )

    def _send_register(self, record: dict[str, Any]) -> None:
        from lightlm.tracking.registration import REQUESTED_TAG, register

        request = RegistrationRequest.model_validate(record["request"])
        request.tags.setdefault(REQUESTED_TAG, str(record["time_ms"]))
        if not request.hf_folder.exists():  # a home that moved, or was restored elsewhere
            request = request.model_copy(update={"hf_folder": self.folder / request.hf_folder.name})

        try:
            version = register(self.client, self.run_id, request, pin_requirements())
        except StoreError as error:
            # The model's files are gone or damaged, and stay so.
            self._note_refusal(f"the model is not registered: {first_line(error)}")
            self.tell({"version": None})
            return

        self.state["version"] = version.model_dump(mode="json")
        self._save()
        self.accepted()
        self.tell({"version": self.state["version"]})

    def _send_finish(self, record: dict[str, Any]) -> None:
        self._send_plot()
        if self.state["refused"]:
            self.client.set_tag(self.run_id, REFUSED_TAG, self.state["refused"])
        self.client.set_terminated(self.run_id, record["status"], record["time_ms"])
        self.state["is_finished"] = True

    def _send_plot(self) -> None:
        losses = self.read_points("train/loss")
        scores = self.read_points("validation/bits_per_byte")
        if not losses:
            return

        path = self.folder / "loss.png"
        version = self.state["version"] or {}
        tags = version.get("tags", {})
        final = float(tags["bits_per_byte"]) if "bits_per_byte" in tags else None
        title = (
            f"{version.get('name', 'run')} {version.get('version', self.folder.name)}: "
            f"{tags.get('dataset', '')}"
        )

        render_loss(path, losses, scores, title, final)
        self.client.log_artifact(self.run_id, str(path))

    def read_points(self, name: str) -> list[Point]:
        """Return a metric's course over the whole record: (seconds since the start, value); finite
        values only.
        """
        points: list[Point] = []
        started = None
        for record, _ in read_journal(self.folder / JOURNAL):
            started = record["time_ms"] if started is None else started
            if record["kind"] == "metrics" and math.isfinite(record["values"].get(name, math.nan)):
                points.append(((record["time_ms"] - started) / 1000, record["values"][name]))
        return points

    def _save(self) -> None:
        write_file(self.folder / STATE, json.dumps(self.state).encode())


def find_experiment(client: "MlflowClient", name: str, home: Path) -> str:
    """Return the id of the experiment; created on first use, its artifacts at an absolute path when
    local.
    """
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is not None:
        if found.lifecycle_stage == "deleted":
            # Its name stays taken, and it takes no runs: without this no run would ever be told
            # again.
            client.restore_experiment(found.experiment_id)
        return found.experiment_id

    location = (home / "mlartifacts").as_uri() if is_local(home) else None
    try:
        # The kind chooses which pages MLflow shows first: training runs and their charts.
        return client.create_experiment(
            name, location, {"mlflow.experimentKind": "custom_model_development"}
        )
    except MlflowException:
        # Another run created it between the two calls.
        found = client.get_experiment_by_name(name)
        if found is None:
            raise
        return found.experiment_id


def _is_refused(error: Exception) -> bool:
    """Return whether MLflow will say the same however often it is asked; a server that is away says
    nothing.
    """
    return getattr(error, "error_code", "") in (
        "INVALID_PARAMETER_VALUE",
        "BAD_REQUEST",
        "MALFORMED_REQUEST",
    )


def pin_requirements() -> list[str]:
    """Return what a registered model needs, as installed here; without torch's local build tag."""
    return [f"{name}=={installed_version(name).partition('+')[0]}" for name in REQUIREMENTS]


def _group(
    records: Iterator[tuple[dict[str, Any], int]],
) -> Iterator[tuple[list[dict[str, Any]], int]]:
    """Yield neighbouring metrics records together, others alone, each with the offset
    behind them.
    """
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

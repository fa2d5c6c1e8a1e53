"""The shipper: reads a run's journal and sends MLflow what it does not have yet, exactly once.

The original times and steps go along, so MLflow drops what it has already. A run is searched by its
key before one is created. The cursor moves only past records that MLflow accepted.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import TYPE_CHECKING

from lightlm.child_process import Message
from lightlm.errors import LightLMError, StoreError
from lightlm.redaction import first_line
from lightlm.rendering.png import render_loss
from lightlm.tracking import mlflow_records
from lightlm.tracking.record import (
    AnyRecord,
    Champion,
    Dataset,
    Finish,
    Metrics,
    Params,
    Register,
    Start,
    Table,
    Tags,
    Text,
    read_points,
    read_records,
)
from lightlm.tracking.registry import ModelVersion, download, is_unknown
from lightlm.tracking.shipped import Shipped, read_shipped, write_shipped

if TYPE_CHECKING:
    from mlflow import MlflowClient

RUN_KEY_TAG = "lightlm.run_key"
REFUSED_TAG = "lightlm.refused"

END_TAG = "lightlm.end"
"""Tag with the reason of an end that the run did not record itself."""

REQUIREMENTS = ("torch", "transformers", "safetensors", "tokenizers", "mlflow")


def name_answer(names: Sequence[str]) -> str:
    """Return the key of the answer to a question for the champion of these names."""
    return f"champion of {', '.join(names)}"


class Shipper:
    """Sends one run's journal to MLflow.

    `send` takes the answers that the run's parent waits for; None where no parent listens.
    `accepted` is called at each request that MLflow accepted, before the parent gets its answer: a
    parent that still believes MLflow away would give the rest no time.
    """

    def __init__(
        self,
        folder: Path,
        client: "MlflowClient",
        home: Path,
        send: Callable[[Message], None] | None = None,
        accepted: Callable[[], None] = lambda: None,
    ) -> None:
        self.folder = folder
        self.client = client
        self.home = home
        self.accepted = accepted
        self.state = read_shipped(folder)
        self._send_answer = send
        self._owes_answers = send is not None

    @property
    def run_id(self) -> str:
        """MLflow's id of the run, once it is created."""
        assert self.state.run_id is not None
        return self.state.run_id

    def is_over(self) -> bool:
        """Return whether MLflow has the run to its end, and the parent its answers."""
        return (
            not self._owes_answers
            and self.state.is_finished
            and next(self._read_new(), None) is None
        )

    def ship(self) -> bool:
        """Send the new records; return whether there were any.

        Raises what MLflow raises; the cursor then stays before the record that failed.
        """
        moved = False
        before = self.state.model_copy()
        try:
            self._answer_for_another()
            for records, cursor in _group(self._read_new()):
                self._send_all(records)
                self.accepted()
                self.state.cursor = cursor
                moved = True
        except Exception as error:
            if is_unknown(error) and self._is_run_unknown():
                # Another store than the one that had the beginning, or one that lost it: it gets
                # the whole.
                self.state = Shipped(
                    refused=self.state.refused, system_metrics=self.state.system_metrics
                )
            raise
        finally:
            if self.state != before:
                self._save()

        return moved

    def end(self, status: str, reason: str) -> None:
        """Give a run that died its end state, with the reason, at the time of its last record."""
        if self.state.run_id is not None and not self.state.is_finished:
            times = [record.time_ms for record, _ in read_records(self.folder)]
            self.client.set_tag(self.run_id, END_TAG, reason)
            self.client.set_terminated(self.run_id, status, max(times, default=None))
            self.state.is_finished = True
            self._save()

    def _answer_for_another(self) -> None:
        """Answer questions that another process shipped when its parent was gone already.

        The outbox of a killed run still ships, for a moment, what the same command's next run
        records.
        """
        if not self._owes_answers:
            return

        champion = register = None
        for record, offset in read_records(self.folder):
            if offset > self.state.cursor:
                break
            if isinstance(record, Start):
                champion = register = None
            elif isinstance(record, Champion):
                champion = record
            elif isinstance(record, Register):
                register = record

        if champion is not None:
            self._send_all([champion])
        if register is not None:
            self._answer_version(self.state.version)

        self._owes_answers = False

    def _read_new(self) -> Iterator[tuple[AnyRecord, int]]:
        return read_records(self.folder, self.state.cursor)

    def _is_run_unknown(self) -> bool:
        if self.state.run_id is None:
            return False
        try:
            self.client.get_run(self.run_id)
        except Exception as error:  # noqa: BLE001  (only the one answer counts)
            return is_unknown(error)
        return False

    def _send_all(self, records: list[AnyRecord]) -> None:
        """Send one record, or several of metrics; leave out those that MLflow refuses for good."""
        first = records[0]
        try:
            if isinstance(first, Metrics):
                metrics = [record for record in records if isinstance(record, Metrics)]
                mlflow_records.log_metrics(self.client, self.run_id, metrics)
            else:
                self._send(first)
        except Exception as error:
            needed = isinstance(first, Start | Register | Finish)
            if needed or not mlflow_records.is_refused(error):
                raise
            if len(records) > 1:
                for record in records:
                    self._send_all([record])
                return
            # It would be refused for ever, and everything behind it would wait.
            self._note_refusal(f"MLflow refused a record of {first.kind}: {first_line(error)}")

    def _send(self, record: AnyRecord) -> None:
        match record:
            case Start():
                self._start(record)
            case Params():
                mlflow_records.log_params(self.client, self.run_id, record)
            case Tags():
                self._set_tags(record)
            case Text():
                self.client.log_text(self.run_id, record.content, record.path)
            case Table():
                mlflow_records.log_table(self.client, self.run_id, record)
            case Dataset():
                mlflow_records.log_dataset(self.client, self.run_id, record)
            case Champion():
                self._answer_champion(record)
            case Register():
                self._register(record)
            case Finish():
                self._finish(record)

    def _note_refusal(self, message: str) -> None:
        self.state.refused = self.state.refused or message
        sys.stderr.write(f"{message}\n")

    def _start(self, record: Start) -> None:
        self.state.system_metrics = record.system_metrics
        experiment = mlflow_records.find_experiment(self.client, record.experiment, self.home)
        found = self.client.search_runs(
            [experiment], f"tags.`{RUN_KEY_TAG}` = '{record.run_key}'", max_results=1
        )

        if found:
            self.state.run_id = found[0].info.run_id
            # A run that died and is continued: what ended it in MLflow's eyes was not its end.
            self.client.update_run(self.run_id, status="RUNNING")
            self.state.is_finished = False
        else:
            tags = record.tags | {
                RUN_KEY_TAG: record.run_key,
                "mlflow.note.content": record.description,
            }
            run = self.client.create_run(experiment, record.time_ms, tags, record.name)
            self.state.run_id = run.info.run_id

        self._save()

    def _set_tags(self, record: Tags) -> None:
        from mlflow.entities import RunTag

        tags = [RunTag(name, value) for name, value in record.values.items()]
        self.client.log_batch(self.run_id, tags=tags)

    def _answer_champion(self, record: Champion) -> None:
        from lightlm.tracking.catalog import choose_name

        if self._send_answer is None:
            return

        name, champion = choose_name(self.home, self.client, record.names, record.origin)
        error = None
        try:
            if champion is not None:
                download(self.home, champion)
        except LightLMError as refusal:
            error = first_line(refusal)

        self.accepted()
        self._send_answer(
            {
                "champion": None if champion is None else champion.model_dump(mode="json"),
                "champion_error": error,
                "model_name": name,
                name_answer(record.names): True,
            }
        )

    def _answer_version(self, version: ModelVersion | None) -> None:
        if self._send_answer is not None:
            dumped = None if version is None else version.model_dump(mode="json")
            self._send_answer({"version": dumped})

    def _register(self, record: Register) -> None:
        from lightlm.tracking.registration import REQUESTED_TAG, register

        request = record.request
        request.tags.setdefault(REQUESTED_TAG, str(record.time_ms))
        if not request.hf_folder.exists():  # a home that moved, or was restored elsewhere
            request = request.model_copy(update={"hf_folder": self.folder / request.hf_folder.name})

        try:
            version = register(self.client, self.run_id, request, pin_requirements())
        except StoreError as error:
            # The model's files are gone or damaged, and stay so.
            self._note_refusal(f"the model is not registered: {first_line(error)}")
            self._answer_version(None)
            return

        self.state.version = version
        self._save()
        self.accepted()
        self._answer_version(version)

    def _finish(self, record: Finish) -> None:
        self._send_plot()
        if self.state.refused:
            self.client.set_tag(self.run_id, REFUSED_TAG, self.state.refused)
        self.client.set_terminated(self.run_id, record.status, record.time_ms)
        self.state.is_finished = True

    def _send_plot(self) -> None:
        losses = read_points(self.folder, "train/loss")
        if not losses:
            return

        path = self.folder / "loss.png"
        version = self.state.version
        name = f"run {self.folder.name}" if version is None else f"{version.name} {version.version}"
        tags = {} if version is None else version.tags
        final = float(tags["bits_per_byte"]) if "bits_per_byte" in tags else None
        scores = read_points(self.folder, "validation/bits_per_byte")
        render_loss(path, losses, scores, f"{name}: {tags.get('dataset', '')}", final)
        self.client.log_artifact(self.run_id, str(path))

    def _save(self) -> None:
        write_shipped(self.folder, self.state)


def count_unsent(folder: Path) -> int:
    """Return how many of a run's records MLflow does not have yet."""
    return sum(1 for _ in read_records(folder, read_shipped(folder).cursor))


def pin_requirements() -> list[str]:
    """Return what a registered model needs, as installed here; without torch's local build tag."""
    return [f"{name}=={installed_version(name).partition('+')[0]}" for name in REQUIREMENTS]


def _group(
    records: Iterator[tuple[AnyRecord, int]],
) -> Iterator[tuple[list[AnyRecord], int]]:
    """Yield consecutive metrics together, other records alone, each with the offset after them."""
    metrics: list[AnyRecord] = []
    end = 0
    for record, offset in records:
        is_metrics = isinstance(record, Metrics)
        if metrics and (not is_metrics or len(metrics) >= mlflow_records.BATCH_METRICS):
            yield metrics, end
            metrics = []
        if is_metrics:
            metrics.append(record)
            end = offset
        else:
            yield [record], offset

    if metrics:
        yield metrics, end

"""The recorder: appends to a run's journal, which is the original of what MLflow gets a copy of.

It never waits for a server, and it removes secrets before anything is written.
"""

import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from pydantic import JsonValue

from lightlm.redaction import clean, clean_values
from lightlm.store.journal import Journal
from lightlm.store.lock import hold_lock
from lightlm.tracking.record import (
    JOURNAL,
    AnyRecord,
    Champion,
    Dataset,
    Finish,
    Metrics,
    Params,
    Register,
    RegistrationRequest,
    Start,
    Status,
    Table,
    Tags,
    Text,
    append_record,
    read_records,
)

LOCK = ".recorder.lock"
"""Name of the lock that a recorder holds: whoever can take it knows that the run is over."""

MOST_AHEAD_MS = 86_400_000.0
"""Milliseconds by which an earlier process's last record may lie in the future. A clock further
ahead was wrong.
"""


class RecordClock:
    """Milliseconds since 1970 that never go backward, even if the machine's clock is set back.

    A context manager: records are written one at a time.
    """

    def __init__(self, last_ms: int = 0) -> None:
        is_possible = last_ms < 1000 * time.time() + MOST_AHEAD_MS
        self._now_ms = float(last_ms) if is_possible else 0.0
        self._read_at = time.monotonic()
        self._lock = threading.Lock()

    def __enter__(self) -> int:
        self._lock.acquire()
        now = time.monotonic()
        # Where the clock was set back, time goes on from the last record.
        self._now_ms = max(1000 * time.time(), self._now_ms + 1000 * (now - self._read_at))
        self._read_at = now
        return int(self._now_ms)

    def __exit__(self, *_: object) -> None:
        self._lock.release()


class Recorder:
    """Appends to the record of one run. `folder` is the run's; its name is the run's key.

    Raises:
        BusyError: another process records this run.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = ExitStack()
        self._lock.enter_context(hold_lock(folder / LOCK, wait=False))
        self._clock = RecordClock(
            max((record.time_ms for record, _ in read_records(folder)), default=0)
        )
        self._journal = Journal(folder / JOURNAL)

    def start_run(
        self,
        name: str,
        experiment: str,
        tags: Mapping[str, str],
        description: str,
        *,
        system_metrics: bool = True,
    ) -> None:
        """Record that the run starts; with `system_metrics` the machine's load is sampled, too."""
        self._append(
            Start(
                name=clean(name),
                experiment=clean(experiment),
                run_key=self.folder.name,
                system_metrics=system_metrics,
                tags=clean_values(tags),
                description=clean(description),
            )
        )

    def log_params(self, params: Mapping[str, object]) -> None:
        """Record settings; values are kept as text."""
        self._append(Params(values=clean_values(params)))

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Record numbers at a step."""
        self._append(Metrics(step=step, values={k: float(v) for k, v in metrics.items()}))

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Record tags of the run."""
        self._append(Tags(values=clean_values(tags)))

    def rename(self, name: str) -> None:
        """Record another name of the run: its text turned out to be another one."""
        self.set_tags({"mlflow.runName": name})

    def describe(self, description: str) -> None:
        """Record the run's description, in Markdown; it replaces the earlier one."""
        self._append(Tags(values={"mlflow.note.content": clean(description)}))

    def log_text(self, text: str, artifact_path: str) -> None:
        """Record a text as an artifact."""
        self._append(Text(path=artifact_path, content=clean(text)))

    def log_table(self, columns: Mapping[str, Sequence[JsonValue]], artifact_path: str) -> None:
        """Record a table as an artifact, a .json file."""
        cleaned = {
            name: [clean(value) if isinstance(value, str) else value for value in values]
            for name, values in columns.items()
        }
        self._append(Table(path=artifact_path, columns=cleaned))

    def log_dataset(self, dataset: Mapping[str, JsonValue]) -> None:
        """Record the run's data set: `name`, `digest`, `source` and counts."""
        values = {k: clean(v) if isinstance(v, str) else v for k, v in dataset.items()}
        self._append(Dataset(values=values))

    def ask_champion(
        self, names: Sequence[str], origin: Mapping[str, JsonValue] | None = None
    ) -> None:
        """Ask for the champion of a registered model and its files; see Outbox.wait_for_champion.

        The model is the first of `names` that is free, or whose champion learned the text of
        `origin`.
        """
        known = None if origin is None else dict(origin)
        self._append(Champion(names=[clean(name) for name in names], origin=known))

    def register(self, request: RegistrationRequest) -> None:
        """Record that the model is to be registered."""
        self._append(Register(request=request.cleaned()))

    def finish(self, status: Status) -> None:
        """Record that the run is over."""
        self._append(Finish(status=status))

    def close(self) -> None:
        """Close the journal and release the lock."""
        self._journal.close()
        self._lock.close()

    def _append(self, record: AnyRecord) -> None:
        with self._clock as time_ms:
            append_record(self._journal, record, time_ms)

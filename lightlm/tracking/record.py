"""The records of a run's journal: one frozen class a kind, with one reader and one writer.

Whoever records, ships, watches or reports a run uses these classes. Their JSON is stable: journals
of earlier versions still read, and unknown fields are ignored.
"""

import logging
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import (
    AliasChoices,
    BaseModel,
    BeforeValidator,
    Field,
    JsonValue,
    TypeAdapter,
    ValidationError,
)

from lightlm.evaluation.comparison import Comparison
from lightlm.redaction import clean, clean_values
from lightlm.store.journal import Journal, read_journal

JOURNAL = "record.journal"
"""Name of the journal in a run's folder."""

PLAN = "plan.json"
"""Path of the text that holds the plan."""

Status = Literal["FINISHED", "FAILED", "KILLED"]

LOGGER = logging.getLogger(__name__)


class RegistrationRequest(BaseModel, frozen=True):
    """A model to register: its committed Hugging Face folder, and what its version will show."""

    hf_folder: Path
    model_name: str
    promote: Literal["better", "always", "never"]
    description: str
    tags: dict[str, str]
    bits_per_byte: float
    text_sha256: str
    sampling: dict[str, float | int]
    comparison: Comparison | None = None
    not_compared: str = ""
    """Why there is no comparison, where there is none."""
    params: dict[str, str] = {}
    """What MLflow shows on the model's own page."""

    def cleaned(self) -> "RegistrationRequest":
        """Return the request without secrets, as it may be stored and sent."""
        return self.model_copy(
            update={
                "description": clean(self.description),
                "not_compared": clean(self.not_compared),
                "tags": clean_values(self.tags),
                "params": clean_values(self.params),
            }
        )


class Record(BaseModel, frozen=True):
    """The fields of every record. `time_ms`: milliseconds since 1970; the recorder sets them."""

    is_durable: ClassVar[bool] = False
    """Whether the recorder waits until the disk has the record."""

    kind: str
    time_ms: int = 0


class Start(Record, frozen=True):
    """A process starts the run, or continues it."""

    is_durable: ClassVar[bool] = True
    kind: Literal["start"] = "start"
    name: str
    experiment: str
    run_key: str
    system_metrics: bool = True
    """Whether the machine's load is sampled during the run."""
    tags: dict[str, str]
    description: str

    @property
    def hours(self) -> float | None:
        """The budget in the run's name, "train-0.1h-wikitext"; Params follow with the plan."""
        found = re.search(r"-(\d+(?:\.\d+)?(?:e[+-]?\d+)?)h-", self.name)
        return float(found[1]) if found else None


class Params(Record, frozen=True):
    """Settings, as text."""

    kind: Literal["params"] = "params"
    values: dict[str, str]

    @property
    def hours(self) -> float | None:
        """The budget, where these settings have it."""
        return float(self.values["budget.hours"]) if "budget.hours" in self.values else None


class Metrics(Record, frozen=True):
    """Numbers at a step; a diverged loss may be NaN or infinite."""

    kind: Literal["metrics"] = "metrics"
    step: int
    values: dict[str, float]


class Tags(Record, frozen=True):
    """Tags of the run; MLflow's own ones are its name and its description."""

    kind: Literal["tags"] = "tags"
    values: dict[str, str]


class Text(Record, frozen=True):
    """A text artifact at `path`."""

    kind: Literal["text"] = "text"
    path: str
    content: str

    @property
    def sample_step(self) -> int | None:
        """The step after which the model wrote this sample; None for other texts."""
        found = re.fullmatch(r"samples/step-(\d+)\.txt", self.path)
        return int(found[1]) if found else None


class Table(Record, frozen=True):
    """A table artifact at `path`, a .json file: columns by name, each of the same length."""

    kind: Literal["table"] = "table"
    path: str
    columns: dict[str, list[JsonValue]]


class Dataset(Record, frozen=True):
    """The data set that the run learns from: `name`, `digest`, `source` and counts."""

    kind: Literal["dataset"] = "dataset"
    values: dict[str, JsonValue]


class Champion(Record, frozen=True):
    """A question for the champion of a registered model, the first of `names` that fits."""

    kind: Literal["champion"] = "champion"
    names: Annotated[
        list[str],
        # Version 0.1 asked for one name, as `model_name`.
        Field(validation_alias=AliasChoices("names", "model_name")),
        BeforeValidator(lambda value: [value] if isinstance(value, str) else value),
    ]
    origin: dict[str, JsonValue] | None = None


class Register(Record, frozen=True):
    """A model is to be registered."""

    is_durable: ClassVar[bool] = True
    kind: Literal["register"] = "register"
    request: RegistrationRequest


class Finish(Record, frozen=True):
    """The run is over."""

    is_durable: ClassVar[bool] = True
    kind: Literal["finish"] = "finish"
    status: Status


AnyRecord = Start | Params | Metrics | Tags | Text | Table | Dataset | Champion | Register | Finish
RECORD: TypeAdapter[AnyRecord] = TypeAdapter(Annotated[AnyRecord, Field(discriminator="kind")])


def sample_path(step: int) -> str:
    """Return the path of the sample that the model wrote after a step."""
    return f"samples/step-{step:07d}.txt"


def append_record(journal: Journal, record: AnyRecord, time_ms: int | None = None) -> None:
    """Append a record to a run's journal, at `time_ms` or at its own time.

    Raises:
        StoreError: the disk refused.
    """
    content = record.model_dump(mode="json")
    if time_ms is not None:
        content["time_ms"] = time_ms
    journal.append(content, durable=record.is_durable)


def read_records(folder: Path, offset: int = 0) -> Iterator[tuple[AnyRecord, int]]:
    """Yield each record of a run's journal from byte `offset` on, with the offset after it.

    A record of an unknown kind, or with other fields, is skipped with a warning.
    """
    for content, end in read_journal(folder / JOURNAL, offset):
        try:
            record = RECORD.validate_python(content)
        except ValidationError as error:
            LOGGER.warning("%s: record before byte %d skipped: %s", folder / JOURNAL, end, error)
        else:
            yield record, end


def is_finished(folder: Path) -> bool:
    """Return whether the last process that recorded the run also recorded its finish."""
    last = None
    for record, _ in read_records(folder):
        if isinstance(record, Start | Finish):
            last = record
    return isinstance(last, Finish)


def read_points(folder: Path, name: str) -> list[tuple[float, float]]:
    """Return a metric's finite values over the run: (seconds since its first record, value)."""
    points: list[tuple[float, float]] = []
    started_ms = None
    for record, _ in read_records(folder):
        started_ms = record.time_ms if started_ms is None else started_ms
        if isinstance(record, Metrics) and math.isfinite(record.values.get(name, math.nan)):
            points.append(((record.time_ms - started_ms) / 1000, record.values[name]))
    return points

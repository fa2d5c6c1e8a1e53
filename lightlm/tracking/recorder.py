"""The run's own record: an append-only journal in the run's folder, the truth that MLflow gets a copy of.

Owns what is recorded and with which time. It never waits for a server and never imports MLflow; secrets are taken
out here, before anything is written.
"""

import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from lightlm.store.journal import Journal

JOURNAL = "record.journal"

Status = Literal["FINISHED", "FAILED", "KILLED"]

_SECRETS = (
    re.compile(r"\b(hf_|github_pat_|gh[pousr]_|sk-|xox[abp]-)[A-Za-z0-9_-]{8,}"),
    re.compile(r"\b(AKIA|ASIA)[A-Z0-9]{16}\b"),
    re.compile(r"(?<=://)[^/\s:@]+:[^/\s@]+(?=@)"),
    re.compile(r"(?i)(?<=bearer )[A-Za-z0-9._~+/=-]{8,}"),
    re.compile(
        r"(?i)\b(?:password|passwd|secret|token|api_?key|auth_string)\b(\s*[=:]\s*)(?!null|None)[^\s,;}\"']{6,}"
    ),
)

HIDDEN = "[hidden]"


class RegistrationRequest(BaseModel):
    """What is to be registered: a committed Hugging Face folder and what its version says of itself."""

    model_config = ConfigDict(frozen=True, protected_namespaces=())

    hf_folder: Path
    model_name: str
    promote: Literal["better", "always", "never"]
    description: str
    tags: dict[str, str]
    bits_per_byte: float
    text_sha256: str
    sampling: dict[str, float | int]


def redact(text: str) -> str:
    """Return `text` with everything that looks like a secret hidden: tokens, keys, passwords in URLs."""
    for pattern in _SECRETS:
        text = pattern.sub(HIDDEN, text)
    return text


class Recorder:
    """Appends to the record of one run. `folder` is the run's; its name is the run's key."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._journal = Journal(folder / JOURNAL)

    def start_run(
        self, name: str, experiment: str, tags: Mapping[str, str], description: str, *, system_metrics: bool = True
    ) -> None:
        """Record that the run begins; with `system_metrics`, the machine is sampled beside it."""
        self._append(
            "start",
            durable=True,
            name=name,
            experiment=experiment,
            run_key=self.folder.name,
            system_metrics=system_metrics,
            tags=_redact_all(tags),
            description=redact(description),
        )

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Record settings; values are kept as text."""
        self._append("params", values=_redact_all({name: str(value) for name, value in params.items()}))

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Record numbers at a step."""
        self._append("metrics", step=step, values={name: float(value) for name, value in metrics.items()})

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Record tags of the run."""
        self._append("tags", values=_redact_all(tags))

    def describe(self, description: str) -> None:
        """Record the run's description, in Markdown; it replaces the earlier one."""
        self._append("tags", values={"mlflow.note.content": redact(description)})

    def log_text(self, text: str, artifact_path: str) -> None:
        """Record a text as an artifact."""
        self._append("text", path=artifact_path, content=redact(text))

    def log_dataset(self, dataset: Mapping[str, Any]) -> None:
        """Record the data set that the run learns from: `name`, `digest`, `source` and counts."""
        self._append("dataset", values={k: redact(v) if isinstance(v, str) else v for k, v in dataset.items()})

    def register(self, request: RegistrationRequest) -> None:
        """Record that the model is to be registered."""
        values = request.model_dump(mode="json")
        values |= {"description": redact(request.description), "tags": _redact_all(request.tags)}
        self._append("register", durable=True, request=values)

    def finish(self, status: Status) -> None:
        """Record that the run is over."""
        self._append("finish", durable=True, status=status)

    def close(self) -> None:
        """Close the journal."""
        self._journal.close()

    def _append(self, kind: str, *, durable: bool = False, **fields: Any) -> None:
        self._journal.append({"kind": kind, "time_ms": int(time.time() * 1000), **fields}, durable=durable)


def _redact_all(values: Mapping[str, str]) -> dict[str, str]:
    return {name: redact(str(value)) for name, value in values.items()}

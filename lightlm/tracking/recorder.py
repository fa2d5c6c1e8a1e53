"""The run's own record: an append-only journal in the run's folder, the truth that MLflow gets a
copy of.

Owns what is recorded and with which time. It never waits for a server and never imports MLflow;
secrets are taken out here, before anything is written.
"""

import re
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from lightlm.evaluation.comparison import Comparison
from lightlm.store.journal import Journal, read_journal
from lightlm.store.lock import hold_lock

JOURNAL = "record.journal"

LOCK = ".recorder.lock"
"""Held as long as somebody records: who can take it knows that the run is over, however
it ended.
"""

MOST_AHEAD_MS = 86_400_000.0
"""Milliseconds by which an earlier process's last record may lie in the future; a clock further
ahead was wrong.
"""

Status = Literal["FINISHED", "FAILED", "KILLED"]

HIDDEN = "[hidden]"

_NAME = r"(?:password|passwd|passphrase|secret|credentials?|auth_?string|(?:api|access|account|private|secret)[_-]?key)"  # noqa: E501
_COUNTABLE = r"(?:token(?!s)|_pat)"
_IS = r"[\\\"']*\s*[=:]\s*"

_SECRETS = (
    # What its own form gives away.
    (
        re.compile(
            r"(?<![A-Za-z0-9])(?:hf_|github_pat_|gh[pousr]_|glpat-|npm_|xox[abeprs]-)[A-Za-z0-9_-]{8,}"
        ),
        HIDDEN,
    ),
    (re.compile(r"(?<![A-Za-z0-9])(?:sk-|pypi-AgE|AIza)[A-Za-z0-9_-]{16,}"), HIDDEN),
    (re.compile(r"(?<![A-Za-z0-9])(?:AKIA|ASIA)[A-Z0-9]{16}(?![A-Za-z0-9])"), HIDDEN),
    (re.compile(r"(?<![A-Za-z0-9])eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_.-]{8,}"), HIDDEN),
    (
        re.compile(
            r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)",
            re.DOTALL,
        ),
        HIDDEN,
    ),
    # What stands before the host of a URL: user and password, or a token alone; and what signs a
    # URL.
    (re.compile(r"(?<=://)[^/\s\"'<>]+(?=@)"), HIDDEN),
    (
        re.compile(r"(?i)([?&](?:[a-z-]*signature|[a-z-]*credential|sig)=)[^&\s\"']+"),
        rf"\1{HIDDEN}",
    ),
    (re.compile(r"(?i)((?:bearer|authorization:\s*\w+) )[A-Za-z0-9._~+/=-]{8,}"), rf"\1{HIDDEN}"),
    # What is called a secret: quoted to the closing quote, else to the next space or comma. A
    # number beside "token" is a count, a null is nothing, and <|...|> is a tokenizer's.
    (
        re.compile(rf"(?i)((?:{_NAME}|{_COUNTABLE}){_IS})(\\?[\"'])(?!<|\2)[^\n]+?\2"),
        rf"\1\2{HIDDEN}\2",
    ),
    (re.compile(rf"(?i)({_NAME}{_IS})(?!null\b|none\b)[^\s,;&}}\"'\\\[<]{{3,}}"), rf"\1{HIDDEN}"),
    (
        re.compile(
            rf"(?i)({_COUNTABLE}{_IS})(?!null\b|none\b|[\d.,]+(?![\w-]))[^\s,;&}}\"'\\\[<]{{6,}}"
        ),
        rf"\1{HIDDEN}",
    ),
)
_SECRET_NAME = re.compile(rf"(?i)(?:{_NAME}|{_COUNTABLE})$")


class RegistrationRequest(BaseModel):
    """What is to be registered: a committed Hugging Face folder and what its version says of
    itself.
    """

    model_config = ConfigDict(frozen=True, protected_namespaces=())

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

    def dump(self) -> dict[str, Any]:
        """Return the request as JSON that may be kept and sent: without secrets."""
        return self.model_dump(mode="json") | {
            "description": clean(self.description),
            "not_compared": clean(self.not_compared),
            "tags": _clean_all(self.tags),
            "params": _clean_all(self.params),
        }


def redact(text: str) -> str:
    """Return `text` with everything that looks like a secret hidden: tokens, keys, passwords in
    URLs.
    """
    for pattern, hidden in _SECRETS:
        text = pattern.sub(hidden, text)
    return text


def clean(text: str) -> str:
    """Return `text` as every store takes it: secrets hidden, and no NUL or lone surrogate, which
    databases refuse.
    """
    return redact(
        text.replace("\0", "\ufffd").encode("utf-8", "surrogatepass").decode("utf-8", "replace")
    )


def name_answer(names: Sequence[str]) -> str:
    """Return under which key the outbox's process answers a question for the champion of these
    names.
    """
    return f"champion of {', '.join(names)}"


class RecordClock:
    """Milliseconds since 1970 that never go backward, however the machine's clock is set; one
    record at a time.
    """

    def __init__(self, last_ms: float = 0) -> None:
        is_possible = isinstance(last_ms, int) and last_ms < 1000 * time.time() + MOST_AHEAD_MS
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
            max((r.get("time_ms", 0) for r, _ in read_journal(folder / JOURNAL)), default=0)
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
        """Record that the run begins; with `system_metrics`, the machine is sampled beside it."""
        self._append(
            "start",
            durable=True,
            name=clean(name),
            experiment=clean(experiment),
            run_key=self.folder.name,
            system_metrics=system_metrics,
            tags=_clean_all(tags),
            description=clean(description),
        )

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Record settings; values are kept as text."""
        self._append("params", values=_clean_all(params))

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Record numbers at a step."""
        self._append(
            "metrics", step=step, values={name: float(value) for name, value in metrics.items()}
        )

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Record tags of the run."""
        self._append("tags", values=_clean_all(tags))

    def rename(self, name: str) -> None:
        """Record that the run has another name: what it learns turned out to be another text."""
        self.set_tags({"mlflow.runName": name})

    def describe(self, description: str) -> None:
        """Record the run's description, in Markdown; it replaces the earlier one."""
        self._append("tags", values={"mlflow.note.content": clean(description)})

    def log_text(self, text: str, artifact_path: str) -> None:
        """Record a text as an artifact."""
        self._append("text", path=artifact_path, content=clean(text))

    def log_dataset(self, dataset: Mapping[str, Any]) -> None:
        """Record the data set that the run learns from: `name`, `digest`, `source` and counts."""
        self._append(
            "dataset", values={k: clean(v) if isinstance(v, str) else v for k, v in dataset.items()}
        )

    def ask_champion(self, names: Sequence[str], origin: Mapping[str, Any] | None = None) -> None:
        """Ask for the champion of a registered model and its files; the outbox's wait_for_champion
        has the answer.

        Of several names it is the first that is free, or whose champion learnt the text of
        `origin`.
        """
        self._append(
            "champion",
            names=[clean(name) for name in names],
            origin=None if origin is None else dict(origin),
        )

    def register(self, request: RegistrationRequest) -> None:
        """Record that the model is to be registered."""
        self._append("register", durable=True, request=request.dump())

    def finish(self, status: Status) -> None:
        """Record that the run is over."""
        self._append("finish", durable=True, status=status)

    def close(self) -> None:
        """Close the journal; the run is over."""
        self._journal.close()
        self._lock.close()

    def _append(self, kind: str, *, durable: bool = False, **fields: Any) -> None:
        with self._clock as time_ms:
            self._journal.append({"kind": kind, "time_ms": time_ms, **fields}, durable=durable)


def _clean_all(values: Mapping[str, Any]) -> dict[str, str]:
    return {name: _clean_named(name, str(value)) for name, value in values.items()}


def _clean_named(name: str, value: str) -> str:
    is_harmless = (
        value in ("", "None") or value.startswith("<") or re.fullmatch(r"[\d.,e+-]+", value)
    )
    return HIDDEN if _SECRET_NAME.search(name) and not is_harmless else clean(value)

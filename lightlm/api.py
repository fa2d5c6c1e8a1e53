"""LightLM from Python: plan and train a model, load a registered one, write and score text with it.

No server, no Prefect and no telemetry. Training and planning run in a process of their own.
Everything stands under LIGHTLM_HOME, as for the command line; nothing heavy is imported before it
is needed.
"""

import json
import os
import subprocess
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, overload

from lightlm.child_process import python_command
from lightlm.console.notebook import NotebookProgress, find_shell
from lightlm.errors import InputError, Interrupted, LightLMError, ModelVersionError, TrainingError
from lightlm.json_object import JsonObject
from lightlm.params import load_params, name_texts
from lightlm.store.home import find_home
from lightlm.tracking.catalog import resolve
from lightlm.tracking.registry import ModelVersion, download

if TYPE_CHECKING:
    from lightlm.generation.sampling import SamplingConfig
    from lightlm.generation.text import Generator

RUNNER = "lightlm.runs.alone"
"""Module of the process that trains and plans."""

QUIET = {
    "PYTHONUNBUFFERED": "1",
    "PYTHONUTF8": "1",
    "DO_NOT_TRACK": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
"""Environment of that process: whole lines at once, and no telemetry of what it uses."""

COLORS = ("FORCE_COLOR", "CLICOLOR_FORCE")
"""Variables that a notebook sets, and with which lines would hold a terminal's codes."""

STOP_SECONDS = 30.0
"""Seconds that a run gets to end in order when the person interrupts."""


class Text(str):
    """A continuation, as a string that knows how it was written."""

    num_new_tokens: int
    finish_reason: str
    """length, stop, or end_of_text."""

    seconds: float
    """Time in which it was written, with the other prompts of the same call."""

    @classmethod
    def describe(cls, text: str, num_new_tokens: int, finish_reason: str, seconds: float) -> Self:
        """Return a continuation with what is known of it."""
        described = cls(text)
        described.num_new_tokens = num_new_tokens
        described.finish_reason = finish_reason
        described.seconds = seconds
        return described


class Model:
    """A registered version whose files are here and verified; its weights are read at the first
    text.
    """

    def __init__(self, version: ModelVersion, folder: Path) -> None:
        self.version = version
        self.folder = folder

    def __repr__(self) -> str:
        """Return "lightlm.Model(models:/notes/3)"."""
        return f"lightlm.Model({self.version.uri})"

    @overload
    def generate(  # pyright: ignore[reportOverlappingOverload]
        self, prompt: str, **sampling: Any
    ) -> Text: ...

    @overload
    def generate(self, prompt: Sequence[str], **sampling: Any) -> list[Text]: ...

    def generate(self, prompt: str | Sequence[str], **sampling: Any) -> Text | list[Text]:
        """Return the continuation of a prompt, without it, or of each prompt of several.

        `sampling` takes the options of `lightlm generate`.

        Raises:
            PromptError: a prompt is empty or too long, or a sampling value is unknown or out of
                bounds.
        """
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        written = self._generator.generate(prompts, choose_sampling(sampling))
        texts = [
            Text.describe(one.text, one.num_new_tokens, one.finish_reason, one.seconds)
            for one in written
        ]
        return texts[0] if isinstance(prompt, str) else texts

    def stream(self, prompt: str, **sampling: Any) -> Iterator[str]:
        """Yield the continuation piece by piece, as it is written. Raises as `generate`."""
        yield from self._generator.stream(prompt, choose_sampling(sampling))

    def score(self, text: str | Sequence[str]) -> float:
        """Return the bits per byte of a text, or of documents; less is better.

        Raises:
            DatasetError: it is empty.
        """
        from lightlm.data.tokenization.tokenizer import load_tokenizer
        from lightlm.evaluation.scoring import evaluate_text
        from lightlm.model.hugging_face import load_model
        from lightlm.ngram.version import load_mixture

        documents = [text] if isinstance(text, str) else text
        encoded = [document.encode() for document in documents]
        return evaluate_text(
            load_model(self.folder),
            load_tokenizer(self.folder),
            encoded,
            mixture=load_mixture(self.folder),
        ).bits_per_byte

    @cached_property
    def _generator(self) -> "Generator":
        with _without_widgets():
            from lightlm.generation.text import load_generator

            return load_generator(self.folder)


@dataclass(frozen=True)
class Forecast:
    """The predicted result of another budget."""

    hours: float
    shape: str
    bits_per_byte: float
    low: float
    high: float


@dataclass(frozen=True)
class Planned:
    """What a training would do: the shape, the predicted score with its interval, and why."""

    name: str
    """The name that the model would get."""

    shape: str
    num_parameters: int
    bits_per_byte: float
    low: float
    high: float
    training_seconds: float
    reasons: tuple[str, ...] = field(repr=False)
    forecasts: tuple[Forecast, ...] = field(repr=False)
    """Forecasts of other budgets; none before three runs on this machine."""

    details: JsonObject = field(repr=False)
    """The whole plan."""


@dataclass(frozen=True)
class Trained:
    """What a training reached."""

    name: str
    version: str
    """The version's number; empty while MLflow could not register it."""

    bits_per_byte: float
    is_champion: bool
    num_parameters: int
    tokens: int
    seconds: float
    """Time of the whole run."""

    summary: JsonObject = field(repr=False)
    """What `lightlm train --json` prints."""

    def load(self) -> Model:
        """Return the model that was trained; one that MLflow took no version of is registered now.

        Raises:
            ModelVersionError: MLflow does not take it now either.
        """
        uri = f"models:/{self.name}/{self.version}" if self.version else self._register()
        return load(uri)

    def _register(self) -> str:
        """Return the version's URI after what `lightlm sync` does."""
        out, code, last = _follow(python_command(RUNNER, '{"task": "sync"}'), None)
        run = Path(self.summary["folder"]).parent.name
        uri = None if code else json.loads(out).get(run)
        if uri is None:
            raise ModelVersionError(
                f"{self.name} is not registered yet, and MLflow does not take it now "
                f"({last.removeprefix('lightlm: ') or 'no reason given'}); the files are in "
                f"{self.summary['folder']}, and `lightlm sync` registers them later"
            )
        return uri


def load(model: str | None = None, *, name: str | None = None) -> Model:
    """Return a registered version: models:/NAME@ALIAS, models:/NAME/VERSION, a name; else the
    newest one's champion.

    Raises:
        ModelVersionError: there is none such, or its files are not as they were registered.
        TrackingError: MLflow's store cannot be used.
    """
    home = find_home()
    with _without_widgets():
        version = resolve(home, model, name)
        return Model(version, download(home, version))


Texts = str | Path | Sequence[str | Path] | None
"""A text, or several: the first is the one to learn, the others are mixed in, as "PATH:0.3"."""


def plan(
    dataset: Texts = None,
    hours: float | str | None = None,
    *,
    name: str | None = None,
    preset: str = "base",
    overrides: Mapping[str, Any] | None = None,
    report: Callable[[str], None] | None = None,
) -> Planned:
    """Return what `train` would do with the same arguments; nothing is trained.

    Raises:
        InputError: a value or a data set that cannot be used.
        Interrupted: the person stopped it.
    """
    found = _run("plan", dataset, hours, name, preset, overrides, report)
    chosen = found["plan"]
    counts = chosen["counts"] or {}
    best = counts if counts.get("is_mixed") else chosen  # the score that the version ends with
    return Planned(
        name=found["model_name"],
        shape=found["shape"],
        num_parameters=chosen["num_parameters"],
        bits_per_byte=best["predicted_bits_per_byte"],
        low=best["predicted_low"],
        high=best["predicted_high"],
        training_seconds=chosen["training_seconds"],
        reasons=tuple(chosen["reasons"]),
        forecasts=tuple(
            Forecast(one["hours"], one["shape"], one["bits_per_byte"], one["low"], one["high"])
            for one in found["forecast"]
        ),
        details=chosen,
    )


def train(
    dataset: Texts = None,
    hours: float | str | None = None,
    *,
    name: str | None = None,
    preset: str = "base",
    overrides: Mapping[str, Any] | None = None,
    report: Callable[[str], None] | None = None,
) -> Trained:
    """Train a model on a text within `hours` ("30m" and the like, too), register it, and return
    what it reached. Of several texts, the first is the one that it is named and judged by.

    The clock is that of `lightlm train`; `preset` and `overrides` are its `--preset` and `--set`.
    `report` gets each line of progress, such as `print`; without it a notebook shows a bar, and
    nothing is shown elsewhere. A call that was interrupted resumes when it is repeated.

    Raises:
        InputError: a value or a data set that cannot be used.
        Interrupted: the person stopped it; the same call goes on.
        TrainingError: whatever else ended it.
    """
    summary = _run("train", dataset, hours, name, preset, overrides, report)
    return Trained(
        name=summary["model_name"],
        version=summary["model_version"],
        bits_per_byte=summary["bits_per_byte"],
        is_champion="champion" in summary["aliases"],
        num_parameters=summary["plan"]["num_parameters"],
        tokens=summary["tokens"],
        seconds=summary["elapsed_seconds"],
        summary=summary,
    )


def _run(
    task: str,
    dataset: Texts,
    hours: float | str | None,
    name: str | None,
    preset: str,
    overrides: Mapping[str, Any] | None,
    report: Callable[[str], None] | None,
) -> JsonObject:
    """Return the JSON object that a process of its own prints; its lines go to `report`."""
    named = [dataset] if isinstance(dataset, str | Path) else list(dataset or ())
    if dataset is not None and not named:
        raise InputError(f"the data set is {dataset!r}, which names none; give a text")
    first, others = name_texts([str(one) for one in named])
    overrides = others | dict(overrides or {})
    request = {
        "task": task,
        "dataset": first,
        "hours": hours,
        "name": name,
        "preset": preset,
        "overrides": overrides,
    }
    params = load_params(preset, overrides, dataset=first, hours=hours)
    if report is None and find_shell() is not None:
        report = NotebookProgress(params.budget.hours * 3600 if task == "train" else None)

    out, code, last = _follow(python_command(RUNNER, json.dumps(request)), report)
    if code:
        words = last.removeprefix("lightlm: ") or f"{task} ended with exit code {code}"
        raise _find_error(code)(words)
    return json.loads(out)


def _follow(command: list[str], report: Callable[[str], None] | None) -> tuple[str, int, str]:
    """Return the output, the exit code and the last line of a process; its lines go to `report`.

    Raises:
        Interrupted: the person stopped it.
    """
    last = ""
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        env={name: value for name, value in os.environ.items() if name not in COLORS} | QUIET,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            for line in process.stderr:
                last = line.strip() or last
                if report is not None:
                    report(line.rstrip("\n"))
            out = process.stdout.read()
            code = process.wait()
        except BaseException as error:
            process.terminate()
            process.wait(STOP_SECONDS)
            if isinstance(error, KeyboardInterrupt):
                raise Interrupted("stopped; the same call goes on") from None
            raise

    return out, code, last


def choose_sampling(given: Mapping[str, Any]) -> "SamplingConfig":
    """Return the params' sampling values with the given ones over them.

    Raises:
        PromptError: one is unknown or out of bounds.
    """
    from lightlm.generation.sampling import check_sampling

    stop = given.get("stop", ())
    values = load_params().generation.model_dump() | dict(given)
    return check_sampling(values | {"stop": (stop,) if isinstance(stop, str) else tuple(stop)})


@contextmanager
def _without_widgets() -> Iterator[None]:
    """Keep libraries from asking for widgets inside of a notebook that has none."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="IProgress not found")
        yield


def _find_error(code: int) -> type[LightLMError]:
    if code == InputError.exit_code:
        return InputError
    return Interrupted if code == Interrupted.exit_code else TrainingError

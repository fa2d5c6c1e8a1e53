"""LightLM from Python: load a registered model, write and score text with it, train one. Quiet.

Everything stands under LIGHTLM_HOME, as for the command line; nothing heavy is imported before it
is needed.
"""

import json
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from lightlm.child_process import python_command
from lightlm.errors import InputError, Interrupted, LightLMError, TrainingError
from lightlm.json_object import JsonObject
from lightlm.params import load_params
from lightlm.tracking.catalog import resolve
from lightlm.tracking.registry import ModelVersion, download

if TYPE_CHECKING:
    from lightlm.generation.sampling import SamplingConfig
    from lightlm.generation.text import Generator

COMMAND_LINE = "lightlm"
"""The module of the command `lightlm`. Training runs in a process of its own, as it does for
everybody.
"""

STOP_SECONDS = 30.0
"""That a run gets to end in order when the person interrupts."""


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

    def generate(self, prompt: str, **sampling: Any) -> str:
        """Return the continuation of `prompt`, without it; `sampling` as the options of `lightlm
        generate`.

        Raises:
            PromptError: the prompt is empty or too long, or a sampling value is unknown or out of
                bounds.
        """
        return self._generator.generate([prompt], choose_sampling(sampling))[0].text

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

        documents = [text] if isinstance(text, str) else text
        encoded = [document.encode() for document in documents]
        return evaluate_text(
            load_model(self.folder), load_tokenizer(self.folder), encoded
        ).bits_per_byte

    @cached_property
    def _generator(self) -> "Generator":
        from lightlm.generation.text import load_generator

        return load_generator(self.folder)


class Trained(NamedTuple):
    """What a training reached; `summary` is what `lightlm train --json` prints."""

    name: str
    version: str
    bits_per_byte: float
    summary: JsonObject

    def load(self) -> Model:
        """Return the model that was trained.

        Raises:
            ModelVersionError: it is not registered yet; `lightlm sync` registers it.
        """
        return load(f"models:/{self.name}/{self.version or 'latest'}")


def load(model: str | None = None, *, name: str | None = None) -> Model:
    """Return a registered version: models:/NAME@ALIAS, models:/NAME/VERSION, a name; else the
    newest one's champion.

    Raises:
        ModelVersionError: there is none such, or its files are not as they were registered.
        TrackingError: MLflow's store cannot be used.
    """
    version = resolve(model, name)
    return Model(version, download(version))


def train(
    dataset: str | Path | None = None,
    hours: float | str | None = None,
    *,
    name: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    report: Callable[[str], None] | None = None,
) -> Trained:
    """Train a model on a text within `hours` ("30m" and the like, too), register it, and return
    what it reached.

    The clock and the options are those of `lightlm train`; `overrides` are its `--set`. `report`
    gets each line of progress, such as `print` in a notebook.

    Raises:
        InputError: a value or a data set that cannot be used.
        Interrupted: the person stopped it; the same call goes on.
        TrainingError: whatever else ended it.
    """
    given = {"--dataset": dataset, "--hours": hours, "--name": name}
    words = [
        word
        for option, value in given.items()
        if value is not None
        for word in (option, str(value))
    ]

    for key, value in (overrides or {}).items():
        words += ["--set", f"{key}={'null' if value is None else json.dumps(value)}"]
    command = python_command(COMMAND_LINE, "train", "--json", *words)
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    last = ""

    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        env=environment,
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
        except KeyboardInterrupt:
            process.terminate()
            process.wait(STOP_SECONDS)
            raise Interrupted("stopped; the same call goes on") from None

    if code:
        raise _find_error(code)(
            last.removeprefix("lightlm: ") or f"training ended with exit code {code}"
        )

    summary = json.loads(out)
    return Trained(
        summary["model_name"], summary["model_version"], summary["bits_per_byte"], summary
    )


def choose_sampling(given: Mapping[str, Any]) -> "SamplingConfig":
    """Return the params' sampling values with the given ones over them.

    Raises:
        PromptError: one is unknown or out of bounds.
    """
    from lightlm.generation.sampling import check_sampling

    stop = given.get("stop", ())
    values = load_params().generation.model_dump() | dict(given)
    return check_sampling(values | {"stop": (stop,) if isinstance(stop, str) else tuple(stop)})


def _find_error(code: int) -> type[LightLMError]:
    if code == InputError.exit_code:
        return InputError
    return Interrupted if code == Interrupted.exit_code else TrainingError

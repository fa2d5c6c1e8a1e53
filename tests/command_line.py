"""The command `lightlm` as a person starts it, and one real run that many tests look at."""

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import psutil
import pytest
from typer.testing import CliRunner

from lightlm.errors import LightLMError
from lightlm_flows.cli.main import USAGE_ERROR, app

LIGHTLM = Path(sys.executable).with_name("lightlm")
SECONDS = 150
"""Only bounds a failure."""

HOSTILE = (
    *(
        "sitecustomize",
        "usercustomize",
        "typing",
        "json",
        "queue",
        "random",
        "logging",
        "socket",
        "secrets",
    ),
    *(
        "numpy",
        "torch",
        "yaml",
        "pydantic",
        "mlflow",
        "prefect",
        "uvicorn",
        "psutil",
        "tokenizers",
        "transformers",
    ),
    *("lightlm", "lightlm_flows", "lightlm_params", "flows", "params"),
)
"""Modules that lie in the folder of every command that is tested here; none of them may run."""

NOUNS = (
    "river lantern teacher mountain engine garden letter winter captain window harbour story"
).split()
VERBS = "crosses remembers paints follows repairs forgets answers measures carries opens".split()
ADJECTIVES = "quiet old yellow patient narrow distant careful broken".split()


@dataclass(frozen=True)
class Ended:
    """A command that ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The one JSON object on standard output."""
        assert self.code == 0, self.err
        assert self.out.count("\n") == 1, self.out
        value = json.loads(self.out)
        assert isinstance(value, dict)
        return value


@dataclass(frozen=True)
class CommandLine:
    """`lightlm` with a home and a working folder of its own."""

    home: Path
    folder: Path

    def __call__(self, *arguments: object) -> Ended:
        """Run a command to its end."""
        command = self.start(*arguments)
        out, err = command.communicate(timeout=SECONDS)
        return Ended(command.returncode, out, err)

    def here(self, *arguments: object) -> Ended:
        """Run a command in this process, which has imported all already: a start takes seconds.

        For what a command answers; what surrounds it (streams, signals, exit, foreign modules) is
        tested by those that are started. Not for what starts Prefect: it would stay.
        """
        # Restores what a library sets, too: MLflow leaves its address behind.
        with patch.dict(os.environ, self._environment(), clear=True), chdir(self.folder):
            done = CliRunner().invoke(app, list(map(str, arguments)), standalone_mode=False)

        error = done.exception
        if error is None:
            return Ended(done.exit_code, done.stdout, done.stderr)
        if not isinstance(error, LightLMError | USAGE_ERROR):
            raise error
        words = error.format_message() if isinstance(error, USAGE_ERROR) else str(error)
        return Ended(error.exit_code, done.stdout, f"{done.stderr}lightlm: {words}\n")

    def start(self, *arguments: object) -> "subprocess.Popen[str]":
        """Start a command."""
        return self._start(LIGHTLM, *arguments)

    def start_python(self, *arguments: object) -> "subprocess.Popen[str]":
        """Start Python where the command would run."""
        return self._start(sys.executable, "-P", *arguments)

    def _environment(self) -> dict[str, str]:
        kept = {
            k: v
            for k, v in os.environ.items()
            if not k.startswith(("PREFECT", "MLFLOW", "LIGHTLM"))
        }
        own = {
            "LIGHTLM_HOME": str(self.home),
            "PREFECT_PROFILES_PATH": str(self.home / "no-profiles.toml"),
        }
        return kept | own

    def _start(self, *command: object) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [str(word) for word in command],
            env=self._environment(),
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )

    def list_processes(self, words: str = "") -> list[psutil.Process]:
        """Return the living processes of this home whose command holds `words`."""
        return [process for process in psutil.process_iter() if self._owns(process, words)]

    def _owns(self, process: psutil.Process, words: str) -> bool:
        try:
            return (
                process.environ().get("LIGHTLM_HOME") == str(self.home)
                and words in " ".join(process.cmdline())
                and process.status() != psutil.STATUS_ZOMBIE
            )
        except psutil.Error:
            return False


FIRST_VERSION = ("--model", "models:/stories/1")
"""Options that name the model of `trained`: other tests train more in its home."""


NO_RUNS = shutil.ignore_patterns("runs")
"""For a copy of a home whose versions count and whose runs are another's."""


@dataclass(frozen=True)
class Trained:
    """A home in which one train-flow has run, and what was seen of it."""

    lightlm: CommandLine
    text: Path
    run: Ended
    models: Ended
    copy: Path
    """The home as the run left it, for tests that count versions: other tests train in the home
    itself.
    """
    shared: Path
    """The run's shared store."""
    summary: dict[str, Any]
    """The run's JSON object."""


def write_paragraph(choose: random.Random) -> str:
    """Return a few sentences of a small grammar."""
    sentences = [
        f"The {choose.choice(ADJECTIVES)} {choose.choice(NOUNS)} {choose.choice(VERBS)} "
        f"the {choose.choice(NOUNS)} of {choose.choice(NOUNS)} {choose.randrange(100)}."
        for _ in range(choose.randrange(4, 9))
    ]
    return " ".join(sentences)


def settings(**values: object) -> list[str]:
    """Return `--set section.key=value` for section__key=value."""
    return [
        part
        for name, value in values.items()
        for part in ("--set", f"{name.replace('__', '.')}={value}")
    ]


AMPLE = ["--hours", 0.02, *settings(budget__max_steps=24)]
"""A short run that ends by its steps: what it leaves of its 72 s is there for registration, however
slow and busy the machine is.
"""

TINY = settings(
    budget__planner="manual",
    tokenizer__vocab_size=300,
    model__num_layers=1,
    model__model_dim=32,
    model__num_heads=2,
    model__context_length=32,
    training__batch_tokens=512,
    training__num_threads=1,
    training__num_validations=1,
    tracking__system_metrics="false",
)
"""Options of a model that trains thousands of steps a minute; a test adds its steps."""


def write_hostile_modules(folder: Path) -> None:
    """Fill a folder with files that a Python which looks for modules there runs: each leaves a
    mark, and fails.
    """
    for name in HOSTILE:
        (folder / f"{name}.py").write_text(
            f"open({str(folder / 'RAN')!r}, 'a').write({name + ' '!r})\nraise "
            f"ImportError('foreign code: {name}')\n"
        )


@pytest.fixture(scope="session")
def make_command_line(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[[], CommandLine]]:
    """Yield what makes a command line with a home that is not there yet, in a folder of hostile
    modules.
    """
    folders: list[Path] = []

    def make() -> CommandLine:
        folder = tmp_path_factory.mktemp("somewhere")
        (folder / "work").mkdir()
        write_hostile_modules(folder / "work")
        folders.append(folder / "work")
        return CommandLine(folder / "home", folder / "work")

    yield make

    marks = [folder / "RAN" for folder in folders if (folder / "RAN").exists()]
    assert {str(mark): mark.read_text() for mark in marks} == {}, (
        "a command ran code of the current folder"
    )


@pytest.fixture(scope="session")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a running text of about 300 kB."""
    choose = random.Random(0)
    path = tmp_path_factory.mktemp("text") / "stories.txt"
    path.write_text("\n\n".join(write_paragraph(choose) for _ in range(800)), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def documents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a data set of 200 rows with a title and a text, some of them twice, one empty."""
    choose = random.Random(1)
    rows = [{"title": f"story {i}", "body": write_paragraph(choose)} for i in range(190)]
    rows += [*rows[:9], {"title": "none", "body": ""}]
    path = tmp_path_factory.mktemp("documents") / "stories.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def trained(make_command_line: Callable[[], CommandLine], text: Path) -> Trained:
    """Return a home in which a short `lightlm train` has registered a model."""
    lightlm = make_command_line()
    shared = lightlm.folder.parent / "shared"
    options = settings(
        training__compile='"off"', tokenizer__vocab_size=512, store__shared=shared.as_uri()
    )
    run = lightlm("train", *AMPLE, "--dataset", text, *options)
    assert run.code == 0, run.err
    (summary,) = lightlm.home.glob("runs/*/summary.json")
    models = lightlm.here("models", "--json")
    copy = lightlm.folder.parent / "copy"
    shutil.copytree(lightlm.home, copy, ignore=shutil.ignore_patterns("*.lock"))
    return Trained(lightlm, text, run, models, copy, shared, json.loads(summary.read_text("utf-8")))

"""A model a text, through the front door: which name a run gets, which one a command takes, what is
compared.
"""

import os
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.command_line import SECONDS, TINY, CommandLine, Ended, Trained, settings

SHORT = [*TINY, *settings(budget__max_steps=20)]
PAGE_EXAMPLE = """
import mlflow
from lightlm.store.home import find_home
from lightlm.tracking.registry import tracking_uri

mlflow.set_tracking_uri(tracking_uri(find_home()))
model = mlflow.pyfunc.load_model("models:/stories@champion")
print(model.predict(["The"])[0])
"""


@dataclass(frozen=True)
class Other:
    """A copy of a home with the champion of a text, in which another text was then trained under
    the same name.
    """

    lightlm: CommandLine
    text: Path
    run: Ended


@pytest.fixture(scope="module")
def other(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Other:
    """Return what is seen of a run on another text that is given the first one's name."""
    folder = tmp_path_factory.mktemp("other")
    shutil.copytree(trained.copy, folder / "home")
    lightlm = CommandLine(folder / "home", folder)
    poems = folder / "poems" / "input.txt"
    poems.parent.mkdir()
    poems.write_text(trained.text.read_text(encoding="utf-8").upper()[:60_000], encoding="utf-8")
    run = lightlm(
        "train", "--hours", 0.1, "--dataset", poems, "--name", "stories", *SHORT, "--json"
    )
    return Other(lightlm, poems, run)


def test_a_model_is_named_after_its_text(trained: Trained) -> None:
    assert trained.summary["model_name"] == "stories"
    assert "Model stories, named after the data set; --name sets another" in trained.run.err


def test_a_run_on_another_text_is_not_compared_and_says_what_to_do(other: Other) -> None:
    summary = other.run.json
    assert (summary["model_name"], summary["model_version"], summary["aliases"]) == (
        "stories",
        "2",
        ["challenger"],
    )

    assert summary["comparison"] is None
    for words in (
        "version 1 stays champion: it learned",
        "--name OTHER",
        "`lightlm promote 2 --name stories`",
    ):
        assert words in summary["promotion"]

    assert "The champion is not compared: it learned stories and not input" in other.run.err


def test_its_run_is_named_after_the_text_and_the_table_says_its_version(other: Other) -> None:
    listed = other.lightlm.here("runs", "--json").json["runs"]
    assert [(run["name"], run["version"]) for run in listed] == [
        ("train-0.1h-poems", "models:/stories/2"),
        ("train-0.02h-stories", "models:/stories/1"),
    ]
    assert "stories 2" in other.lightlm.here("runs").out


def test_all_models_are_listed_with_champion_score_and_text(other: Other) -> None:
    (line,) = other.lightlm.here("models", "--json").json["names"]
    assert (line["name"], line["num_versions"], line["champion"]["version"]) == ("stories", 2, "1")
    shown = other.lightlm.here("models").out
    for words in ("model", "champion", "bits per byte", "stories", "poems", "challenger"):
        assert words in shown
    unknown = other.lightlm.here("models", "--name", "poems")
    assert (unknown.code, unknown.out) == (2, "")
    assert "there is no model poems; `lightlm models` lists those there are" in unknown.err


@pytest.mark.slow
def test_a_command_without_a_name_takes_the_newest_model_and_says_which(other: Other) -> None:
    options = ["--max-new-tokens", 2, "--temperature", 0]
    assert other.lightlm("generate", "The", *options).err == "model stories, version 1 (champion)\n"
    assert other.lightlm("generate", "The", "--model", "challenger", *options).err.startswith(
        "model stories, version 2"
    )
    named = ["--model", "models:/stories@champion", "--json"]
    ended = other.lightlm("generate", "The", *named, *options)
    assert (ended.json["model_name"], ended.err) == ("stories", "")
    ended = other.lightlm("evaluate", "--text", other.text, "--name", "stories", "--model", "2")
    assert ended.out.startswith("stories version 2: ")
    assert "model stories, version 2, run" in other.lightlm("report", "--no-send").err


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (
            "promote foo",
            "foo is no version; wanted a number, an alias (challenger, previous) or "
            "models:/NAME/VERSION; ",
        ),
        ("generate x --model 7", "stories has no version 7; it has 2 (challenger), 1 (champion)"),
        ("generate x --name poems", "there is no model poems; registered models: stories"),
        ("generate x --name ../x", "'../x' is no model's name"),
        (
            "generate x --name poems --model models:/stories/1",
            "models:/stories/1 is no version of poems",
        ),
        ("rollback", "stories has no version with the alias previous"),
        ("retrain --name poems", "there is no model poems yet; say what it is to learn: --dataset"),
        ("report --name poems", "there is no finished run of model poems"),
        ("train --name a/b", "tracking.model_name is 'a/b'"),
    ],
)
def test_what_names_no_model_is_refused_with_those_there_are(
    command: str, words: str, other: Other
) -> None:
    if command.startswith("retrain"):  # Prefect starts with it
        ended = other.lightlm(*command.split(), "--hours", "0.005")
    else:
        ended = other.lightlm.here(*command.split())
    assert (ended.code, ended.out) == (2, ""), ended.err
    assert words in ended.err


def test_what_is_promoted_says_how_it_is_taken_back_and_it_is(other: Other) -> None:
    said = other.lightlm.here("promote", "2", "--name", "stories").out
    command = said.split("`")[1]
    assert command.endswith("lightlm rollback --name stories")
    back = subprocess.run(
        shlex.split(command), env=os.environ | {"LIGHTLM_HOME": str(other.lightlm.home)}, cwd=other.lightlm.folder,
        capture_output=True, text=True, timeout=SECONDS, check=True,
    )  # fmt: skip
    assert back.stdout.startswith("version 1 of stories is champion")


def test_the_environment_that_is_printed_names_the_models_database(other: Other) -> None:
    printed = other.lightlm.here("env").out
    assert f"export MLFLOW_TRACKING_URI=sqlite:///{other.lightlm.home}/mlflow.db\n" in printed


@pytest.mark.slow
def test_mlflow_finds_the_models_there(other: Other) -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW")}
    done = subprocess.run(
        [sys.executable, "-P", "-c", PAGE_EXAMPLE], env=kept | {"LIGHTLM_HOME": str(other.lightlm.home)},
        cwd=other.lightlm.folder, capture_output=True, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    assert not (other.lightlm.folder / "mlflow.db").exists()


def test_the_python_page_shows_the_example_that_was_run() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "python.md").read_text(encoding="utf-8")
    assert PAGE_EXAMPLE.strip().replace("stories", "notes") in page


def test_a_champions_text_that_is_gone_is_said_with_what_to_do(other: Other) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{other.lightlm.home}/mlflow.db")
    client.set_model_version_tag(
        "stories", "1", "lightlm.dataset", '{"source": "/nowhere/notes.txt"}'
    )
    ended = other.lightlm("retrain", "--hours", 0.005)
    assert ended.code == 2
    assert "version 1 of stories learned /nowhere/notes.txt, which cannot be read now" in ended.err
    assert "--dataset" in ended.err

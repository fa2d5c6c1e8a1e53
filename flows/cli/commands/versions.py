"""The commands that use registered versions: generate, evaluate, models, ui."""

import secrets
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lightlm.console.escape import escape_for_terminal
from lightlm.errors import InputError
from lightlm.store.home import find_home
from lightlm_flows.cli.options import (
    AsJson,
    Model,
    Name,
    TextColumn,
    complete_version,
    log,
    open_chosen,
    print_json,
)

if TYPE_CHECKING:
    from rich.console import Console

    from lightlm.tracking.registry import ModelVersion

MOST_SEEDS = 1 << 31
"""Number of seeds to choose from, for a text that can be written again without a given seed."""

MOST_RUNS = 200
"""Newest runs of this machine whose losses the table of versions shows."""

MaxNewTokens = Annotated[int | None, typer.Option(help="Tokens to write; default: 128.")]
Temperature = Annotated[
    float | None, typer.Option(help="0: always the most likely token; default: 0.8.")
]
TopK = Annotated[
    int | None, typer.Option(help="Sample from the k most likely tokens, 0: from all; default: 50.")
]
TopP = Annotated[
    float | None,
    typer.Option(
        help="Nucleus sampling: keep the most likely tokens up to this total probability; "
        "default: 0.95."
    ),
]
RepetitionPenalty = Annotated[
    float | None, typer.Option(help="Above 1: repeat less; default: 1.0.")
]
Seed = Annotated[
    int | None, typer.Option(help="The same seed writes the same text; default: random.")
]
Stop = Annotated[
    list[str] | None,
    typer.Option(help="End before this string; may be repeated; default: none."),
]


Tasks = Annotated[
    str | None,
    typer.Option(
        metavar="NAMES",
        help="Score on tasks of lm-evaluation-harness, such as blimp,lambada_openai; default: on a "
        "text.",
    ),
]
TaskFolder = Annotated[
    Path | None,
    typer.Option(
        help="For --tasks: a folder with YAML files of tasks, which may be code, or with data sets "
        "under the Hub's names; default: the harness's tasks, and the Hub.",
    ),
]
Fewshot = Annotated[
    int | None, typer.Option(min=0, help="For --tasks: examples shown; default: the task's.")
]
Limit = Annotated[
    int | None, typer.Option(min=1, help="For --tasks: documents of each task; default: all.")
]


def generate(
    prompt: Annotated[
        str | None,
        typer.Argument(help="The text to continue; default: a session asks for it."),
    ] = None,
    model: Model = None,
    name: Name = None,
    max_new_tokens: MaxNewTokens = None,
    temperature: Temperature = None,
    top_k: TopK = None,
    top_p: TopP = None,
    repetition_penalty: RepetitionPenalty = None,
    seed: Seed = None,
    stop: Stop = None,
    as_json: AsJson = False,
    raw: Annotated[bool, typer.Option(help="Print control characters as they are.")] = False,
) -> None:
    """Continue a text with a registered version.

    Without a text, opens a session that asks for texts.
    """
    given = {
        "max_new_tokens": max_new_tokens,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "repetition_penalty": repetition_penalty,
        "seed": seed,
        "stop": tuple(stop) if stop else None,
    }

    home = find_home()
    sampling = {name: value for name, value in given.items() if value is not None}
    if prompt is None and as_json and not sys.stdin.isatty():
        prompt = sys.stdin.read().removesuffix("\n")

    if prompt is None and not as_json:
        from lightlm_flows.cli.generation_session import hold_dialogue

        hold_dialogue(home, model, name, sampling, str if raw else escape_for_terminal)
        return

    from lightlm.versions.text import check_request, stream_text, write_text

    prompt = prompt or ""
    sampling = check_request(prompt, sampling)
    version = open_chosen(home, model, name, is_quiet=as_json)

    if as_json:
        if sampling["seed"] is None:
            sampling["seed"] = secrets.randbelow(MOST_SEEDS)  # what it wrote can be had again
        print_json(
            write_text(home, version, prompt, sampling).model_dump() | {"seed": sampling["seed"]}
        )
        return

    show = str if raw else escape_for_terminal
    pieces = stream_text(home, version, prompt, sampling)
    first = next(pieces, "")  # a prompt that is too long is refused here, before it is shown
    sys.stdout.write(show(prompt) + show(first))
    for piece in pieces:
        sys.stdout.write(show(piece))
        sys.stdout.flush()

    sys.stdout.write("\n")


def evaluate(
    path: Annotated[
        str | None,
        typer.Argument(
            metavar="TEXT",
            help="A file or folder, read as by train; -: standard input; default: --text.",
        ),
    ] = None,
    text: Annotated[
        str | None, typer.Option("--text", "-t", help="The text, as an option; default: TEXT.")
    ] = None,
    model: Model = None,
    name: Name = None,
    text_column: TextColumn = None,
    encoding: Annotated[
        str | None, typer.Option(help="The text's encoding; default: recognized.")
    ] = None,
    tasks: Tasks = None,
    task_folder: TaskFolder = None,
    fewshot: Fewshot = None,
    limit: Limit = None,
    as_json: AsJson = False,
) -> None:
    """Score a registered version on a text, or on tasks."""
    if tasks is not None:
        if path is not None or text is not None:
            raise InputError("--tasks has texts of its own; give either tasks or a text")
        evaluate_tasks(tasks, task_folder, fewshot, limit, model, name, as_json=as_json)
        return
    if (task_folder, fewshot, limit) != (None, None, None):
        raise InputError("--task-folder, --fewshot and --limit are for --tasks; give --tasks, too")

    from lightlm.data.look import read_documents

    if (path is None) == (text is None):
        raise InputError(
            "wanted one text to score: a file, a folder, or - for standard input, as in `evaluate "
            "a.txt`"
        )

    with find_text(path or text or "") as found:
        documents = read_documents(str(found), text_column, encoding)
    from lightlm.runs.summary import describe_parts
    from lightlm.versions.text import score_text

    home = find_home()
    version = open_chosen(home, model, name, is_quiet=as_json)
    score = score_text(home, version, documents)
    result = {"model_name": version.name, "model_version": version.version} | score.model_dump()

    if as_json:
        print_json(result)
    else:
        typer.echo(
            f"{version.name} version {version.version}: {score.bits_per_byte:.4f} bits per byte "
            f"on {score.num_bytes:,} "
            f"bytes ({score.num_tokens:,} tokens, SHA-256 {score.text_sha256[:16]}...)"
            + describe_parts(score)
        )


def evaluate_tasks(
    tasks: str,
    folder: Path | None,
    fewshot: int | None,
    limit: int | None,
    model: str | None,
    name: str | None,
    *,
    as_json: bool,
) -> None:
    """Score a registered version on tasks, and print the scores."""
    from lightlm.versions.harness import check_tasks, score_tasks

    names = check_tasks(tasks, folder)
    home = find_home()
    version = open_chosen(home, model, name, is_quiet=as_json)
    result = score_tasks(home, version, names, task_folder=folder, num_fewshot=fewshot, limit=limit)
    if as_json:
        print_json(result.model_dump())
        return

    from lightlm.console.tables import render_task_scores
    from lightlm.console.terminal import open_console

    open_console(sys.stdout).print(render_task_scores(result.scores))
    typer.echo(
        f"{version.name} version {version.version}, its network alone, by lm-evaluation-harness "
        f"{result.harness} on {result.device} in {result.seconds:.0f} s; {result.note}"
    )


@contextmanager
def find_text(text: str) -> Iterator[str]:
    """Give the path of a text: of standard input's, in a temporary file, where it is -.

    Raises:
        InputError: standard input is a terminal.
    """
    if text != "-":
        yield text
        return
    if sys.stdin.isatty():
        raise InputError(
            "- reads standard input, which is a terminal here; pipe a text in, or name a file"
        )
    with tempfile.NamedTemporaryFile(prefix="standard-input-", suffix=".txt") as file:
        shutil.copyfileobj(sys.stdin.buffer, file)
        file.flush()
        yield file.name


models = typer.Typer(
    help="List the registered models, or remove a version.", invoke_without_command=True
)


@models.command()
def rm(
    version: Annotated[
        str,
        typer.Argument(autocompletion=complete_version, help="models:/NAME/VERSION, or a number."),
    ],
    name: Name = None,
) -> None:
    """Remove a version from the registry; a champion is refused."""
    from lightlm.runs.removal import remove_version

    typer.echo(remove_version(find_home(), version, name))


@models.callback()
def show(
    context: typer.Context,
    name: Annotated[
        str | None,
        typer.Option("--name", help="Show the versions of one model; default: all models."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the registered models: versions, champion, score, text."""
    if context.invoked_subcommand is not None:
        return

    from lightlm.tracking.catalog import list_models
    from lightlm.tracking.registry import list_versions

    home = find_home(only_to_read=True)
    found = list_models(home) if name is None else []
    only = name or (found[0].name if len(found) == 1 else None)
    if as_json:
        versions = [
            version
            for one in ([name] if name else [m.name for m in found])
            for version in list_versions(home, one)
        ]
        lines = [model.model_dump(mode="json") for model in found]
        print_json(
            {"models": [version.model_dump(mode="json") for version in versions], "names": lines}
        )
        return

    from lightlm.console.tables import render_models
    from lightlm.console.terminal import open_console

    if name is None and not found:
        typer.echo("no model yet; run `lightlm train` first", err=True)
        return

    console = open_console(sys.stdout)
    if found:
        console.print(render_models(found))

    if only is not None:
        show_versions(home, only, list_versions(home, only), console)
    else:
        typer.echo("`lightlm models --name NAME` lists the versions of one")


def show_versions(
    home: Path, name: str, versions: "list[ModelVersion]", console: "Console"
) -> None:
    """Print the versions of a model, with the runs that made them and their losses.

    Raises:
        ModelVersionError: it has none.
    """
    from lightlm.console.tables import render_versions
    from lightlm.console.terminal import can_show_blocks
    from lightlm.errors import ModelVersionError
    from lightlm.tracking.runs import list_runs

    if not versions:
        raise ModelVersionError(f"there is no model {name}; `lightlm models` lists those there are")

    runs = [run for run in list_runs(home, MOST_RUNS) if run.mlflow_run_id]
    losses = {run.mlflow_run_id or "": run.losses for run in runs}
    names = {run.mlflow_run_id or "": run.run.rpartition("-")[2] for run in runs}
    console.print(render_versions(versions, losses, names, is_unicode=can_show_blocks(console)))


def ui(
    port: Annotated[int, typer.Option(min=1, max=65535, help="The port on this machine.")] = 5000,
    is_opened: Annotated[bool, typer.Option("--open", help="Open the pages in a browser.")] = False,
) -> None:
    """Serve MLflow's pages (runs, charts, models) on this machine.

    Stays until Ctrl-C; the pages need a password.
    """
    from lightlm_flows.service.browser import serve_pages

    serve_pages(find_home(), port, is_opened, log)

"""The command line `lightlm`: check, train, plan, generate, evaluate, models, ui.

Owns exit codes and the two streams: results on standard output (with --json exactly one object), all else on
standard error. Nothing heavy is imported before a command needs it: --help answers within half a second.
"""

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from lightlm.errors import InputError, Interrupted, LightLMError
from lightlm.params import Params, load_params, parse_assignments

app = typer.Typer(
    name="lightlm",
    help="Trains the best small language model that a given time allows, and registers it.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Hours = Annotated[float | None, typer.Option("--hours", "-H", help="Wall clock of the whole run, in hours.")]
Dataset = Annotated[
    str | None, typer.Option("--dataset", "-d", help="A Hub id, a file or folder of text, or python-docs.")
]
DatasetConfig = Annotated[str | None, typer.Option(help="The Hub data set's configuration.")]
TextColumn = Annotated[str | None, typer.Option(help="The column that holds the text.")]
Offline = Annotated[
    str | None, typer.Option(help="If the Hub is out of reach: fallback (python-docs) or no-fallback (an error).")
]
Preset = Annotated[str, typer.Option("--preset", "-p", help="params/NAME.yaml, laid over params/base.yaml.")]
Assignments = Annotated[
    list[str] | None, typer.Option("--set", "-s", metavar="SECTION.KEY=VALUE", help="One value; may be repeated.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print exactly one JSON object on standard output.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")]
Model = Annotated[
    str, typer.Option("--model", "-m", help="models:/NAME@ALIAS, models:/NAME/VERSION, an alias or a version.")
]
CHAMPION = "models:/lightlm@champion"

USAGE_ERROR: type[typer.BadParameter] = typer.BadParameter.__mro__[1]  # pyright: ignore[reportAssignmentType]
"""Of an option or command that is not there: click's, or of the copy of click inside newer Typers."""


@app.command()
def check(as_json: AsJson = False, assignments: Assignments = None) -> None:
    """Check this machine: Python, GPU, precision, cores, memory, disk, tokenizer."""
    from lightlm.store.home import find_home
    from lightlm.system import check_system
    from lightlm.training.device import describe_devices

    params = load_params(overrides=parse_assignments(assignments or []))
    report = check_system(params, find_home(), describe_devices())
    if as_json:
        print_json(report.model_dump(mode="json"))
    else:
        from lightlm.console.tables import draw_checks
        from lightlm.console.terminal import open_console

        console = open_console(sys.stdout)
        console.print(draw_checks(report.checks, console))
    if report.failed:
        raise typer.Exit(InputError.exit_code)


@app.command()
def train(
    hours: Hours = None,
    dataset: Dataset = None,
    dataset_config: DatasetConfig = None,
    text_column: TextColumn = None,
    preset: Preset = "base",
    offline: Offline = None,
    assignments: Assignments = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Train, score and register a model within the hours given."""
    started_at = find_process_start()
    overrides = collect_overrides(assignments, dataset_config, text_column, offline)
    params = load_params(preset, overrides, dataset=dataset, hours=hours)
    check_sources(params)
    from flows import embedded
    from flows.session import LAUNCH, Launch, name_run_folder, start_worker
    from lightlm.store.home import find_home

    home = find_home()
    # The terminal has the panel and one clear line for an error; Prefect keeps its record of both.
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    embedded.apply_settings(home)
    folder = name_run_folder(home)
    worker = start_worker(folder, home)
    api = embedded.start_api()
    try:
        from flows.train import train_flow  # while the API starts

        with run_flows(api):
            LAUNCH.set(Launch(started_at, folder, worker, is_quiet=quiet))
            summary = train_flow(hours=params.budget.hours, dataset=dataset, preset=preset, overrides=overrides)
    finally:
        worker.stop()
    if as_json:
        print_json(summary.model_dump(mode="json"))
    elif not quiet:
        from flows.summary import show_summary

        show_summary(summary)


@app.command()
def plan(
    hours: Hours = None,
    dataset: Dataset = None,
    dataset_config: DatasetConfig = None,
    text_column: TextColumn = None,
    preset: Preset = "base",
    offline: Offline = None,
    assignments: Assignments = None,
    probe_file: Annotated[
        Path | None, typer.Option(help="Plan from the probe figures of an earlier `plan --json`, without measuring.")
    ] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Show what `train` would do with the same options: the choice, two runners-up, the reasons."""
    overrides = collect_overrides(assignments, dataset_config, text_column, offline)
    params = load_params(preset, overrides, dataset=dataset, hours=hours)
    check_sources(params)
    from lightlm.budget.probe import read_probe

    probe = None if probe_file is None else read_probe(probe_file)
    from flows.planning import make_plan

    chosen, figures = make_plan(params, probe, is_quiet=quiet)
    if as_json:
        print_json({"plan": chosen.model_dump(mode="json"), "probe": figures.model_dump(mode="json")})
    else:
        from lightlm.console.tables import draw_plan
        from lightlm.console.terminal import open_console

        console = open_console(sys.stdout)
        console.print(draw_plan(chosen, console))


@app.command()
def generate(
    prompt: Annotated[str, typer.Argument(help="The text to continue.")],
    model: Model = CHAMPION,
    max_new_tokens: Annotated[int | None, typer.Option(help="Tokens to write.")] = None,
    temperature: Annotated[float | None, typer.Option(help="0 = always the likeliest token.")] = None,
    top_k: Annotated[int | None, typer.Option(help="Sample from the k likeliest tokens; 0 = all.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Sample from the likeliest tokens of this share.")] = None,
    repetition_penalty: Annotated[float | None, typer.Option(help="Above 1: repeat less.")] = None,
    seed: Annotated[int | None, typer.Option(help="The same seed writes the same text.")] = None,
    stop: Annotated[list[str] | None, typer.Option(help="End before this string; may be repeated.")] = None,
    as_json: AsJson = False,
    raw: Annotated[bool, typer.Option(help="Print control characters as they are.")] = False,
) -> None:
    """Continue a text with a registered model version."""
    given = {
        "max_new_tokens": max_new_tokens,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "repetition_penalty": repetition_penalty,
        "seed": seed,
        "stop": tuple(stop) if stop else None,
    }
    from flows.writing import check_request, open_version, stream_text, write_text

    sampling = check_request(prompt, {name: value for name, value in given.items() if value is not None})
    version = open_version(model)
    if as_json:
        print_json(write_text(version, prompt, sampling).model_dump(exclude={"prompt"}))
        return
    from lightlm.console.escape import escape_for_terminal

    show = str if raw else escape_for_terminal
    pieces = stream_text(version, prompt, sampling)
    first = next(pieces, "")  # a prompt that is too long is refused here, before it is shown
    sys.stdout.write(show(prompt) + show(first))
    for piece in pieces:
        sys.stdout.write(show(piece))
        sys.stdout.flush()
    sys.stdout.write("\n")


@app.command()
def evaluate(
    text: Annotated[Path, typer.Option("--text", "-t", help="The file of UTF-8 text to score.")],
    model: Model = CHAMPION,
    as_json: AsJson = False,
) -> None:
    """Score a registered model version on a text, in bits per byte."""
    content = read_text_file(text)
    from flows.writing import open_version, score_text

    version = open_version(model)
    score = score_text(version, content)
    result = {"model_name": version.name, "model_version": version.version} | score.model_dump()
    if as_json:
        print_json(result)
    else:
        typer.echo(
            f"{version.name} version {version.version}: {score.bits_per_byte:.4f} bits per byte on {score.num_bytes:,} "
            f"bytes ({score.num_tokens:,} tokens, SHA-256 {score.text_sha256[:16]}...)"
        )


@app.command()
def models(
    name: Annotated[str, typer.Option(help="The registered model's name.")] = "lightlm", as_json: AsJson = False
) -> None:
    """List the registered versions with their scores."""
    from lightlm.tracking.registry import list_versions

    versions = list_versions(name)
    if as_json:
        print_json({"models": [version.model_dump(mode="json") for version in versions]})
        return
    from lightlm.console.tables import draw_versions
    from lightlm.console.terminal import open_console

    if not versions:
        typer.echo(f"no version of {name} yet; run `lightlm train` first", err=True)
        return
    open_console(sys.stdout).print(draw_versions(versions))


@app.command()
def ui(
    port: Annotated[int, typer.Option(min=1, max=65535, help="The port on this machine.")] = 5000,
) -> None:
    """Open MLflow's pages (runs, charts, models) on this machine."""
    from lightlm.store.home import find_home
    from lightlm.tracking.registry import ui_command

    command, environment = ui_command(find_home(), port)
    typer.echo(f"MLflow on http://127.0.0.1:{port} (Ctrl-C ends it)", err=True)
    os.execvpe(command[0], command, os.environ | environment)  # noqa: S606


def collect_overrides(
    assignments: list[str] | None, dataset_config: str | None, text_column: str | None, offline: str | None
) -> dict[str, Any]:
    """Return dotted overrides of the options that stand for params."""
    named = {"dataset.config": dataset_config, "dataset.text_column": text_column, "dataset.offline": offline}
    given: dict[str, Any] = {name: value for name, value in named.items() if value is not None}
    return given | parse_assignments(assignments or [])


def check_sources(params: Params) -> None:
    """Refuse a data set or tokenizer that cannot be there, before anything slow starts.

    Raises:
        InputError: a path that does not exist, or is empty.
    """
    from lightlm.data.subset import check_dataset
    from lightlm.data.tokenizer import check_tokenizer_source

    check_dataset(params.dataset, params.model.context_length)
    check_tokenizer_source(params.tokenizer)


def find_process_start() -> float:
    """Return the time.monotonic() seconds at which this process began, imports of Python included."""
    import psutil

    return time.monotonic() - max(0.0, time.time() - psutil.Process().create_time())


@contextmanager
def run_flows(api: Any) -> Iterator[None]:
    """Run flows inside; with an API of our own, wait for it first and leave heartbeats out."""
    from flows import embedded

    if api is None:
        yield
        return
    api.wait()
    with embedded.without_heartbeats():
        yield


def read_text_file(path: Path) -> bytes:
    """Return the bytes of a text file.

    Raises:
        InputError: it cannot be read, is empty, or is not UTF-8.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; give a file of UTF-8 text") from None
    if not content:
        raise InputError(f"{path} is empty; give a file with some text")
    try:
        content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 ({error.reason} at byte {error.start}); convert it first") from None
    return content


def print_json(value: dict[str, Any]) -> None:
    """Print one JSON object on standard output."""
    sys.stdout.write(json.dumps(value) + "\n")


def main() -> None:
    """Run a command; an error that LightLM understands is one line on standard error and its exit code."""
    try:
        code = app(prog_name="lightlm", standalone_mode=not sys.argv[1:])
    except LightLMError as error:
        fail(str(error), error.exit_code)
    except USAGE_ERROR as error:
        command = error.ctx.command_path if error.ctx else "lightlm"
        fail(f"{error.format_message().rstrip('.')}; see `{command} --help`", error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        fail("stopped", Interrupted.exit_code)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    else:
        if code == Interrupted.exit_code:  # Typer makes this of Ctrl-C
            fail("stopped", code)
        sys.exit(code)


def fail(message: str, exit_code: int) -> NoReturn:
    """End the process with one line on standard error; what it quotes may come from anywhere."""
    from lightlm.console.escape import escape_for_terminal

    sys.stderr.write(f"lightlm: {escape_for_terminal(' '.join(message.splitlines()))}\n")
    sys.exit(exit_code)


if __name__ == "__main__":
    main()

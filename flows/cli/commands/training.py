"""The commands that make a model, and judge plans: check, train, plan, calibration."""

import logging
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from lightlm.errors import InputError
from lightlm.params import Overrides, load_params, parse_assignments
from lightlm.runs.input_checks import check_sources
from lightlm_flows.cli.commands.setup import is_asked_for, setup
from lightlm_flows.cli.options import (
    AsJson,
    Assignments,
    Dataset,
    DatasetConfig,
    Fresh,
    Hours,
    NewName,
    Notify,
    Offline,
    Preset,
    Quiet,
    SamplePrompt,
    TextColumn,
    collect_overrides,
    print_json,
)

if TYPE_CHECKING:
    from lightlm.params import Params
    from lightlm.runs.session import Launch
    from lightlm.runs.summary import RunSummary

Result = TypeVar("Result")


def check(as_json: AsJson = False, assignments: Assignments = None) -> None:
    """Check this machine: Python, GPU, cores, memory, disk."""
    from lightlm.store.home import find_home
    from lightlm.system import check_system, describe_cpu, may_have_accelerator

    params = load_params(overrides=parse_assignments(assignments or []))
    devices = [describe_cpu()]
    if may_have_accelerator():  # importing torch takes seconds
        from lightlm.training.device import describe_devices

        devices = describe_devices()

    report = check_system(params, find_home(), devices)
    if as_json:
        print_json(report.model_dump(mode="json"))
    else:
        from lightlm.console.tables import render_checks
        from lightlm.console.terminal import open_console

        console = open_console(sys.stdout)
        console.print(render_checks(report.checks, console))

    if report.failed:
        raise typer.Exit(InputError.exit_code)


def train(
    hours: Hours = None,
    dataset: Dataset = None,
    name: NewName = None,
    dataset_config: DatasetConfig = None,
    text_column: TextColumn = None,
    preset: Preset = "base",
    offline: Offline = None,
    assignments: Assignments = None,
    fresh: Fresh = False,
    sample_prompt: SamplePrompt = None,
    notify: Notify = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Train, score and register a model within the hours given.

    Resumes an unfinished run with the same options. Without options, on a terminal, opens `lightlm
    setup`.
    """
    if is_asked_for():
        setup()
        return

    started_at = find_process_start()
    overrides = collect_overrides(assignments, dataset_config, text_column, offline, name)
    if sample_prompt is not None:
        overrides["training.sample_prompt"] = sample_prompt

    params = load_params(preset, overrides, dataset=dataset, hours=hours)
    check_sources(params)
    from lightlm.runs.session import Launch, confirm_stop
    from lightlm_flows.cli.notify import Notifier
    from lightlm_flows.cli.signals import end_in_order

    notifier = Notifier(notify)
    with notifier.around(), end_in_order(confirm_stop):
        summary = run_training(
            params, dataset, preset, overrides, Launch(started_at, is_quiet=quiet, is_fresh=fresh)
        )

    notifier.finish(summary)
    if as_json:
        print_json(summary.model_dump(mode="json"))
    elif not quiet:
        from lightlm.runs.summary import show_summary

        show_summary(summary)


def run_training(
    params: "Params", dataset: str | None, preset: str, overrides: Overrides, launch: "Launch"
) -> "RunSummary":
    """Return the train-flow's summary; clock, worker and API start before the flow is imported."""
    from lightlm.runs.folder import claim_run
    from lightlm.runs.naming import name_run
    from lightlm.runs.session import LAUNCH, start_worker
    from lightlm.store.home import find_home
    from lightlm_flows.prefect_api import embedded

    home = find_home()
    # The terminal has the panel and one clear line for an error; Prefect keeps its record of both.
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    embedded.apply_settings(home)

    with ExitStack() as stack:
        run = claim_run(
            home, name_run(params), params, started_at=launch.started_at, is_fresh=launch.is_fresh
        )
        stack.callback(run.close)
        with run.ledger.stage("start-up"):
            worker = start_worker(run.folder, home, is_needed=not run.is_scored)
            stack.callback(worker.stop)
            api = embedded.start_api()
            from lightlm.runs.history import remember_the_end
            from lightlm_flows.train import train_flow  # while the API starts

            stack.enter_context(run_flows(api))
        launch = replace(launch, run=run, worker=worker)
        LAUNCH.set(launch)
        summary = keep_result(
            lambda: train_flow(
                hours=params.budget.hours, dataset=dataset, preset=preset, overrides=overrides
            ),
            launch,
            lambda: launch.summary,
        )
        elapsed = run.ledger.elapsed_seconds
        summary = summary.closed(elapsed)
        if not run.is_continued:  # its end lies where the death was, too
            remember_the_end(summary, home, elapsed)
        return summary


def plan(
    hours: Hours = None,
    dataset: Dataset = None,
    name: NewName = None,
    dataset_config: DatasetConfig = None,
    text_column: TextColumn = None,
    preset: Preset = "base",
    offline: Offline = None,
    assignments: Assignments = None,
    probe_file: Annotated[
        Path | None,
        typer.Option(
            help="File of an earlier `plan --json` with measurements to use; default: measure."
        ),
    ] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Show what `train` would do with the same options.

    Prints the choice, the runners-up, the reasons, and the forecast of other budgets.
    """
    overrides = collect_overrides(assignments, dataset_config, text_column, offline, name)
    params = load_params(preset, overrides, dataset=dataset, hours=hours)
    check_sources(params)
    from lightlm.budget.probe import read_probe

    probe = None if probe_file is None else read_probe(probe_file)
    from lightlm.runs.naming import format_model_name, list_model_names
    from lightlm.runs.planning import make_plan

    planned = make_plan(params, probe, is_quiet=quiet)
    if as_json:
        print_json(
            {
                "plan": planned.plan.model_dump(mode="json"),
                "probe": planned.probe.model_dump(mode="json"),
                "forecast": [entry.model_dump(mode="json") for entry in planned.forecasts],
                "model_name": list_model_names(params, planned.text_name)[0],
            }
        )
    else:
        from lightlm.console.forecasts import render_forecasts
        from lightlm.console.tables import render_plan
        from lightlm.console.terminal import open_console

        console = open_console(sys.stdout)
        console.print(render_plan(planned.plan, console))
        if planned.forecasts:
            console.print(render_forecasts(planned.forecasts))
        typer.echo(format_model_name(params, planned.text_name))


def calibration(as_json: AsJson = False) -> None:
    """Compare predicted and actual scores of past runs."""
    from lightlm.budget.forecast import judge_plans
    from lightlm.budget.history import History
    from lightlm.store.home import find_home

    runs = History(find_home()).read()
    judged = judge_plans(runs)
    if as_json:
        print_json({"summary": judged.model_dump(), "runs": [run.model_dump() for run in runs]})
        return

    if not runs:
        typer.echo("no finished run yet; run `lightlm train` first", err=True)
        return

    from lightlm.console.forecasts import render_calibration
    from lightlm.console.terminal import open_console

    open_console(sys.stdout).print(render_calibration(runs, judged))


def find_process_start() -> float:
    """Return the time.monotonic() seconds at which this process began."""
    import psutil

    return time.monotonic() - max(0.0, time.time() - psutil.Process().create_time())


@contextmanager
def run_flows(api: Any) -> Iterator[None]:
    """Run flows inside with Prefect's API, or without one if none answers, with a notice."""
    from lightlm.errors import LightLMError
    from lightlm.store.home import find_home
    from lightlm_flows.prefect_api import embedded
    from lightlm_flows.prefect_api.reconciling import start_reconciling

    # Prefect's handler would say so at each line that its API does not take.
    logging.raiseExceptions = False
    with ExitStack() as stack:
        try:
            if api is not None:
                api.wait()
            why_not = embedded.find_trouble() if api is None else None
        except LightLMError as error:
            why_not = str(error)
        if why_not is not None:
            log_aside(
                "Prefect's API cannot be used; this run continues without Prefect's record of it "
                f"({why_not})"
            )
            stack.enter_context(embedded.without_prefect())
        else:
            stack.enter_context(embedded.without_retries())
            if api is not None:
                stack.enter_context(embedded.without_heartbeats())
            start_reconciling(find_home())
        yield


def log_aside(message: str) -> None:
    """Print a line on standard error, outside the panel."""
    from lightlm.console.escape import escape_for_terminal
    from lightlm.redaction import redact

    sys.stderr.write(f"lightlm: {escape_for_terminal(redact(message))}\n")


def keep_result(
    run_flow: "Callable[[], Result]", launch: "Launch", find_result: "Callable[[], Result | None]"
) -> "Result":
    """Return a flow's result, or raise its error, even if Prefect could record neither.

    A flow that Prefect could not even begin runs without it.
    """
    from lightlm.errors import LightLMError
    from lightlm_flows.prefect_api import embedded

    try:
        return run_flow()
    except LightLMError:
        raise
    except Exception as error:  # httpx and Prefect raise their own
        why = f"{type(error).__name__}: {error}".splitlines()[0]
        if (result := find_result()) is not None:
            log_aside(
                f"Prefect's API went down ({why}); the run is complete, and Prefect gets its "
                "end at the next start"
            )
            return result
        if launch.failure is not None:
            log_aside(
                f"Prefect's API went down ({why}); Prefect gets the failure at the next start"
            )
            raise launch.failure from None
        if launch.progress is not None or not is_of_prefect(error):
            raise
        log_aside(f"Prefect did not begin the flow; it runs without Prefect's record of it ({why})")
        with embedded.without_prefect():
            return run_flow()


def is_of_prefect(error: BaseException) -> bool:
    """Return whether an error comes from Prefect or from the connection to its API."""
    raised_in = [
        frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__)
    ][-1:]
    names = {name.partition(".")[0] for name in (type(error).__module__, *raised_in)}
    return not names.isdisjoint(("prefect", "httpx", "httpcore"))

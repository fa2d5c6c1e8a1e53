"""The commands that make a model, and judge plans: check, train, plan, calibration."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from lightlm.errors import InputError
from lightlm.params import load_params, parse_assignments
from lightlm.runs.input_checks import check_sources
from lightlm_flows.cli.commands.setup import is_asked_for, setup
from lightlm_flows.cli.launching import find_process_start, run_training
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

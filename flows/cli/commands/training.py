"""The commands that make a model, and judge plans: check, train, plan, calibration."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from lightlm.budget.ledger import find_process_start
from lightlm.errors import InputError, ParameterError
from lightlm.params import Params, load_params, name_texts, parse_assignments
from lightlm.runs.input_checks import check_sources
from lightlm.runs.launch import Launch
from lightlm.store.home import find_home
from lightlm_flows.cli.commands.setup import is_asked_for, setup
from lightlm_flows.cli.launching import launch_training
from lightlm_flows.cli.notify import Notifier
from lightlm_flows.cli.options import (
    AsJson,
    Assignments,
    Compare,
    Dataset,
    DatasetConfig,
    Fresh,
    Hours,
    Machines,
    NewName,
    Notify,
    Offline,
    Picture,
    Preset,
    ProbeFile,
    Quick,
    Quiet,
    SamplePrompt,
    Start,
    TextColumn,
    collect_overrides,
    print_json,
)
from lightlm_flows.cli.signals import end_in_order

if TYPE_CHECKING:
    from lightlm.budget.probe import Probe
    from lightlm.runs.planning import Planned

NOT_MEASURED = (
    "Bits per byte of held-out text, with an interval. Rates are published or assumed "
    "(params/machines), and LightLM was run on none but CPUs."
)


def check(as_json: AsJson = False, assignments: Assignments = None) -> None:
    """Check this machine: Python, GPU, cores, memory, disk."""
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
    start: Start = None,
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
    first, others = name_texts(dataset)
    overrides = others | collect_overrides(
        assignments, dataset_config, text_column, offline, name, start
    )
    if sample_prompt is not None:
        overrides["training.sample_prompt"] = sample_prompt

    params = load_params(preset, overrides, dataset=first, hours=hours)
    home = find_home()
    check_sources(home, params)
    notifier = Notifier(notify)
    launch = Launch(started_at, is_quiet=quiet, is_fresh=fresh)
    with notifier.around(), end_in_order(launch):
        summary = launch_training(home, params, first, preset, overrides, launch)

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
    start: Start = None,
    dataset_config: DatasetConfig = None,
    text_column: TextColumn = None,
    preset: Preset = "base",
    offline: Offline = None,
    assignments: Assignments = None,
    probe_file: ProbeFile = None,
    quick: Quick = False,
    machine: Machines = None,
    compare: Compare = False,
    picture: Picture = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Show what `train` would do with the same options.

    Prints the choice, the runners-up, the reasons, and the forecast of other budgets.
    """
    first, others = name_texts(dataset)
    overrides = others | collect_overrides(
        assignments, dataset_config, text_column, offline, name, start
    )
    params = load_params(preset, overrides, dataset=first, hours=hours)
    home = find_home()
    check_sources(home, params)
    from lightlm.budget.probe import read_probe

    probe = None if probe_file is None else read_probe(probe_file)
    machines = check_machines(machine or [], compare=compare, picture=picture)
    if compare:
        show_machines(home, params, machines, probe, picture, as_json=as_json, is_quiet=quiet)
        return

    from lightlm.runs.elsewhere import plan_elsewhere
    from lightlm.runs.planning import make_plan

    if machines:
        planned = plan_elsewhere(home, params, machines[0], is_quiet=quiet)
    else:
        planned = make_plan(home, params, probe, is_quiet=quiet, is_quick=quick)
    show_plan(params, planned, as_json=as_json)


def show_plan(params: Params, planned: "Planned", *, as_json: bool) -> None:
    """Print a plan with its runners-up, reasons and forecasts, or JSON."""
    from lightlm.runs.naming import format_model_name, list_model_names

    if as_json:
        print_json(
            {
                "hours": params.budget.hours,
                "plan": planned.plan.model_dump(mode="json"),
                "probe": planned.probe.model_dump(mode="json"),
                "forecast": [entry.model_dump(mode="json") for entry in planned.forecasts],
                "starts": [one.dump() for one in planned.starts],
                "model_name": list_model_names(params, planned.text_name)[0],
            }
        )
    else:
        from lightlm.console.forecasts import render_forecasts
        from lightlm.console.tables import render_plan
        from lightlm.console.terminal import open_console

        console = open_console(sys.stdout)
        console.print(render_plan(planned.plan, console))
        for one in planned.starts:
            typer.echo(one.heading(planned.plan.predicted_bits_per_byte))
            console.print(render_plan(one.plan, console))
        if planned.forecasts:
            console.print(render_forecasts(planned.forecasts))
        typer.echo(format_model_name(params, planned.text_name))


def check_machines(names: list[str], *, compare: bool, picture: Path | None) -> list[str]:
    """Return the machines named, each of which there is.

    Raises:
        ParameterError: there is none of that name, or several are named for one plan.
    """
    from lightlm.budget.machines import load_machine

    for name in names:
        load_machine(name)
    if not compare and len(names) > 1:
        raise ParameterError(
            f"a plan is for one machine, but --machine names {len(names)}; add --compare"
        )
    if not compare and picture is not None:
        raise ParameterError("--picture is of a comparison of machines; add --compare")
    return names


def show_machines(
    home: Path,
    params: Params,
    names: list[str],
    here: "Probe | None",
    picture: Path | None,
    *,
    as_json: bool,
    is_quiet: bool,
) -> None:
    """Print the forecasts of machines as a table or JSON, and write the picture."""
    from lightlm.runs.elsewhere import compare_elsewhere, write_picture

    forecasts = compare_elsewhere(home, params, names, here, is_quiet=is_quiet)
    if picture is not None:
        write_picture(forecasts, picture)
        if not is_quiet:
            typer.echo(f"picture: {picture}", err=True)

    if as_json:
        print_json({"machines": [entry.model_dump(mode="json") for entry in forecasts]})
        return

    from lightlm.console.forecasts import render_machines
    from lightlm.console.terminal import open_console

    open_console(sys.stdout).print(render_machines(forecasts))
    typer.echo(NOT_MEASURED)


def calibration(as_json: AsJson = False) -> None:
    """Compare predicted and actual scores of past runs."""
    from lightlm.budget.forecast import judge_plans
    from lightlm.budget.history import History

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

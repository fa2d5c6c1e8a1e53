"""What `lightlm plan` does: the stages before training, then the plan; nothing is trained or
registered. No Prefect.
"""

import time
from pathlib import Path
from typing import NamedTuple

from lightlm.budget.candidate import TextFacts
from lightlm.budget.compiled import CompiledShapes
from lightlm.budget.forecast import LEAST_RUNS, Forecast, forecast
from lightlm.budget.history import History
from lightlm.budget.lead import LeadTimes
from lightlm.budget.ledger import SECONDS_PER_HOUR
from lightlm.budget.plan import Plan
from lightlm.budget.planner import Planner
from lightlm.budget.probe import (
    MachineRate,
    Probe,
    is_reference_worth_timing,
    measure_machine,
    time_reference,
)
from lightlm.budget.reserve import ClosingTimes
from lightlm.budget.scaling import estimate_needed_bytes
from lightlm.budget.switches import check_switches
from lightlm.budget.timings import PROBE_FRACTION
from lightlm.budget.vocabulary import bytes_per_token_at, choose_vocab_sizes
from lightlm.console.progress import Progress
from lightlm.console.quantities import format_bytes, format_seconds
from lightlm.data.shards import TokenShards, tokenize_subset
from lightlm.data.subset import TextSubset, materialize_subset
from lightlm.data.tokenization.tokenizer import prepare_tokenizer
from lightlm.params import Params
from lightlm.runs.folder import name_run_folder
from lightlm.runs.history import describe_text, measure_difficulty
from lightlm.runs.session import start_worker
from lightlm.store.commit import remove_folder
from lightlm.store.home import find_home
from lightlm.system import Device, check_system


class Planned(NamedTuple):
    """A plan, the figures it was made of, what other budgets would reach (empty before three runs),
    the text.

    `notice` says why another text was read than the one asked for.
    """

    plan: Plan
    probe: Probe
    forecasts: list[Forecast]
    subset: str
    text_name: str
    notice: str | None = None


class Stopwatch:
    """The time that planning takes, which no budget is charged with. Seconds."""

    budget_seconds = remaining_seconds = 0.0

    def __init__(self) -> None:
        self._started = time.monotonic()

    @property
    def elapsed_seconds(self) -> float:
        """Since the planning began."""
        return time.monotonic() - self._started


def make_plan(params: Params, probe: Probe | None, *, is_quiet: bool) -> Planned:
    """Return the plan that `train` would follow, and the figures it was made of: `probe`'s, or
    measured now.

    Raises:
        LightLMError: as the stages of `train` do.
    """
    home = find_home()
    folder = name_run_folder(home)
    budget_seconds = params.budget.hours * SECONDS_PER_HOUR
    worker = start_worker(folder, home)

    try:
        with Progress(Stopwatch(), quiet=is_quiet) as progress:
            progress.enter_stage("Checking the system and measuring this machine")
            devices = [Device.model_validate(d) for d in worker.call("describe_devices")["devices"]]
            system = check_system(params, home, devices)
            machine = (
                probe.machine
                if probe
                else measure_machine(params.training, system, worker, budget_seconds)
            )
            check_switches(params, system, machine)
            is_free = probe is None and params.tokenizer.vocab_size is None
            if is_free and is_reference_worth_timing(machine, budget_seconds):
                progress.enter_stage("Timing a reference shape")
                rate = time_reference(machine, worker, budget_seconds)
                machine = machine.model_copy(update={"reference_flops_per_second": rate})

            # What the stages above took now is not what they will take in a run.
            lead = probe.lead_seconds if probe else LeadTimes(home).estimate(budget_seconds)
            seconds = max(1.0, budget_seconds - lead)
            subset, shards = prepare_shards(params, machine, seconds, progress)
            difficulty = measure_difficulty(subset)
            text = extend_text(params, describe_text(shards, difficulty), subset, machine, seconds)

            timing = min(PROBE_FRACTION * budget_seconds, MOST_PROBE_SECONDS)
            progress.enter_stage(
                f"Timing shapes and planning (up to about {format_seconds(max(5.0, timing))})"
            )
            history = History(home)
            correction = history.correct(system.hardware_id, subset.validation_sha256)
            closing = ClosingTimes(home).estimate(budget_seconds)
            planner = Planner(
                params, text, machine, lambda: seconds, closing, CompiledShapes(home), correction
            )
            plan, figures = planner.plan(None if probe else worker, probe)
            figures = figures.model_copy(update={"lead_seconds": lead})

            forecasts = []
            if (
                len([run for run in history.read() if run.hardware_id == system.hardware_id])
                >= LEAST_RUNS
            ):
                facts = describe_text(shards, difficulty)
                forecasts = forecast(
                    lambda hours: plan_for(hours, params, facts, subset, figures, home)
                )
            return Planned(plan, figures, forecasts, subset.summary(), subset.name, subset.notice)
    except KeyboardInterrupt:
        worker.stop(0)  # what it computes now is nobody's any more
        raise
    finally:
        worker.stop()
        remove_folder(folder)


def extend_text(
    params: Params, text: TextFacts, subset: TextSubset, machine: MachineRate, seconds: float
) -> TextFacts:
    """Return the facts of as much of the text as a run reads that has `seconds` left for all after
    its start.
    """
    needed = estimate_needed_bytes(machine.usual_flops, seconds)[0]
    num_bytes = subset.readable_bytes(needed, DATA_FRACTION * seconds)
    if params.dataset.max_bytes is not None:
        num_bytes = min(num_bytes, params.dataset.max_bytes)
    is_at_hand = abs(num_bytes / max(1, subset.num_bytes) - 1) < NEARLY
    return text if is_at_hand else text.extended(num_bytes)


def plan_for(
    hours: float, params: Params, text: TextFacts, subset: TextSubset, figures: Probe, home: Path
) -> Plan:
    """Return the plan of another budget from figures that are measured already; the vocabulary is
    free again.

    It depends on the budget that was asked for in nothing but these figures: one rule for every
    call.
    """
    budget = params.budget.model_copy(
        update={"hours": hours, "max_steps": None, "planner": "measured"}
    )
    budget_seconds = hours * SECONDS_PER_HOUR
    seconds = max(1.0, budget_seconds - LeadTimes(home).estimate(budget_seconds))
    text = extend_text(params, text, subset, figures.machine, seconds)

    if params.tokenizer.vocab_size is None:
        size = choose_vocab_sizes(figures.machine, seconds, text.num_train_bytes, text.difficulty)[
            0
        ]
        change = bytes_per_token_at(size) / bytes_per_token_at(text.vocab_size)
        text = text.resized(size, change)

    planner = Planner(
        params.model_copy(update={"budget": budget}),
        text,
        figures.machine,
        lambda: seconds,
        ClosingTimes(home).estimate(budget_seconds),
        CompiledShapes(home),
        figures.correction,
    )

    return planner.plan(None, figures)[0]


DATA_FRACTION = 0.1
"""Of the time that is left; what reading a slow source (the built-in text) may take."""


NEARLY = 0.02
"""Relative; within it the bytes at hand are what a run would read."""

SAMPLE_BYTES = 16 << 20
"""Bytes of training text that a forecast reads where the store has nothing: ten times more moves no
figure by 1 %.
"""

MOST_PROBE_SECONDS = 60.0
"""Seconds that timing takes at most by experience, however long the budget is: three shapes, and
compiling one.
"""


def prepare_shards(
    params: Params, machine: MachineRate, seconds: float, progress: Progress
) -> tuple[TextSubset, TokenShards]:
    """Return text and token shards of what the budget would train on, or of a sample of it, made or
    found in the store.

    `seconds` are left of the budget when a run has started.
    """
    progress.enter_stage(
        f"Reading the data set {params.dataset.source}, or {format_bytes(SAMPLE_BYTES)} of it"
    )
    subset = materialize_subset(
        params.dataset,
        needed_bytes=estimate_needed_bytes(machine.usual_flops, seconds),
        max_seconds=DATA_FRACTION * seconds,
        sample_bytes=SAMPLE_BYTES,
        report=progress.log,
    )

    for line in (subset.summary(), *subset.record.summary_lines(), *subset.record.warnings):
        progress.log(line)

    progress.enter_stage("Preparing the tokenizer")
    needed = estimate_needed_bytes(machine.usual_flops, seconds)[0]
    num_bytes = subset.readable_bytes(needed, DATA_FRACTION * seconds)
    fixed = params.tokenizer.vocab_size
    sizes = (
        [fixed]
        if fixed
        else choose_vocab_sizes(machine, seconds, num_bytes, measure_difficulty(subset))
    )

    tokenizer = prepare_tokenizer(params.tokenizer, subset, sizes, report=progress.log)

    progress.enter_stage("Tokenizing to shards")
    return subset, tokenize_subset(subset, tokenizer, report=progress.log)

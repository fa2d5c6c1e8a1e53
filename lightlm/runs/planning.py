"""`lightlm plan`: the stages before training, and the plan. Nothing is trained or registered."""

import time
from pathlib import Path
from typing import NamedTuple

from lightlm.budget import planner
from lightlm.budget.candidate import TextFacts
from lightlm.budget.compiled import CompiledShapes
from lightlm.budget.forecast import LEAST_RUNS, Forecast, forecast
from lightlm.budget.history import History
from lightlm.budget.lead import LeadTimes
from lightlm.budget.ledger import SECONDS_PER_HOUR
from lightlm.budget.plan import Plan
from lightlm.budget.probe import MachineRate, Probe, time_reference
from lightlm.budget.ranking import TimeLeft
from lightlm.budget.reserve import ClosingTimes
from lightlm.budget.scaling import estimate_needed_bytes
from lightlm.budget.switches import check_switches
from lightlm.budget.timings import PROBE_FRACTION, probe_shapes
from lightlm.budget.vocabulary import bytes_per_token_at, choose_vocab_sizes
from lightlm.console.progress import Progress
from lightlm.console.quantities import format_bytes, format_seconds
from lightlm.data.shards import TokenShards, tokenize_subset
from lightlm.data.subset import TextSubset, materialize_subset
from lightlm.data.tokenization.tokenizer import prepare_tokenizer
from lightlm.params import Params
from lightlm.runs.folder import name_run_folder
from lightlm.runs.preparation import (
    DATA_FRACTION,
    choose_sizes,
    describe_text,
    inspect_machine,
    measure_difficulty,
    measure_rate,
    needs_reference,
)
from lightlm.runs.session import start_worker
from lightlm.store.commit import remove_folder
from lightlm.store.home import find_home


class Planned(NamedTuple):
    """A plan, its figures, the forecasts of other budgets (none before three runs), and the text.

    `notice` is the reason why another text was read than the one asked for.
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
    """Return the plan that `train` would follow, and its figures: `probe`'s, or measured now.

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
            system = inspect_machine(params, home, worker)
            machine = probe.machine if probe else measure_rate(params, system, worker)
            if probe is not None:
                check_switches(params, system, machine)
            elif needs_reference(params, machine):
                progress.enter_stage("Timing a reference shape")
                rate = time_reference(machine, worker, budget_seconds)
                machine = machine.model_copy(update={"reference_flops_per_second": rate})

            # What the stages above took now is not what they will take in a run.
            lead = probe.lead_seconds if probe else LeadTimes(home).estimate(budget_seconds)
            seconds = max(1.0, budget_seconds - lead)
            subset, shards = prepare_shards(params, machine, seconds, progress)
            difficulty = measure_difficulty(subset)
            facts = describe_text(shards, difficulty)
            text = extend_text(params, facts, subset, machine, seconds)

            timing = min(PROBE_FRACTION * budget_seconds, MOST_PROBE_SECONDS)
            progress.enter_stage(
                f"Timing shapes and planning (up to about {format_seconds(max(5.0, timing))})"
            )
            history = History(home)
            left = TimeLeft(seconds, ClosingTimes(home).estimate(budget_seconds))
            figures = probe or probe_shapes(
                params,
                machine,
                text,
                worker,
                lambda: left,
                compiled=CompiledShapes(home),
                correction=history.correct(system.hardware_id, subset.validation_sha256),
            )
            figures = figures.model_copy(update={"lead_seconds": lead})
            plan = planner.plan(params, text, figures, left)

            forecasts = []
            if (
                len([run for run in history.read() if run.hardware_id == system.hardware_id])
                >= LEAST_RUNS
            ):
                forecasts = forecast(
                    lambda hours: plan_for(hours, params, facts, subset, figures, home)
                )
            return Planned(plan, figures, forecasts, subset.summary(), subset.name, subset.notice)
    except KeyboardInterrupt:
        worker.stop(0)  # nothing needs what it computes now
        raise
    finally:
        worker.stop()
        remove_folder(folder)


def extend_text(
    params: Params, text: TextFacts, subset: TextSubset, machine: MachineRate, seconds: float
) -> TextFacts:
    """Return the facts about as much of the text as a run reads in `seconds`."""
    needed = estimate_needed_bytes(machine.usual_flops, seconds)[0]
    num_bytes = subset.readable_bytes(needed, DATA_FRACTION * seconds)
    if params.dataset.max_bytes is not None:
        num_bytes = min(num_bytes, params.dataset.max_bytes)
    is_at_hand = abs(num_bytes / max(1, subset.num_bytes) - 1) < NEARLY
    return text if is_at_hand else text.extended(num_bytes)


def plan_for(
    hours: float, params: Params, text: TextFacts, subset: TextSubset, figures: Probe, home: Path
) -> Plan:
    """Return the plan of another budget from measured figures; the vocabulary is free again.

    It depends on the original budget only through these figures.
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

    left = TimeLeft(seconds, ClosingTimes(home).estimate(budget_seconds))
    return planner.plan(params.model_copy(update={"budget": budget}), text, figures, left)


NEARLY = 0.02
"""Relative; within it the bytes at hand are what a run would read."""

SAMPLE_BYTES = 16 << 20
"""Bytes of text that a forecast reads if nothing is stored; ten times more changes it by < 1 %."""

MOST_PROBE_SECONDS = 60.0
"""Seconds that timing takes at most in practice: three shapes, and compiling one."""


def prepare_shards(
    params: Params, machine: MachineRate, seconds: float, progress: Progress
) -> tuple[TextSubset, TokenShards]:
    """Return text and shards that the budget would train on, or a sample; made or from the store.

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
    sizes = choose_sizes(params, machine, seconds, num_bytes, measure_difficulty(subset))
    tokenizer = prepare_tokenizer(params.tokenizer, subset, sizes, report=progress.log)

    progress.enter_stage("Tokenizing to shards")
    return subset, tokenize_subset(subset, tokenizer, report=progress.log)

"""`lightlm plan`: the stages before training, and the plan. Nothing is trained or registered."""

import functools
import time
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from lightlm.bases.catalog import list_candidates
from lightlm.bases.source import kind_of
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
from lightlm.budget.switches import check_switches
from lightlm.budget.timings import probe_shapes
from lightlm.budget.transfer import check_time, plan_from_base
from lightlm.budget.vocabulary import bytes_per_token_at, choose_vocab_sizes
from lightlm.console.progress import Progress
from lightlm.data.origin import describe_origin, list_names
from lightlm.data.others import add_others, limit_bytes
from lightlm.data.shards import TokenShards, tokenize_subset
from lightlm.data.subset import TextSubset, materialize_subset
from lightlm.data.tokenization.tokenizer import prepare_tokenizer
from lightlm.errors import LightLMError
from lightlm.json_object import JsonObject
from lightlm.ngram.stage import CountedText
from lightlm.params import Params
from lightlm.quantities import format_bytes, format_seconds
from lightlm.runs.base_start import describe_subset, find_named, probe_base
from lightlm.runs.counting import count_text, plan_with_counts
from lightlm.runs.folder import name_run_folder
from lightlm.runs.preparation import (
    DATA_FRACTION,
    choose_sizes,
    count_scored_tokens,
    describe_text,
    estimate_text,
    inspect_machine,
    measure_difficulty,
    measure_rate,
    needs_reference,
)
from lightlm.runs.session import start_worker
from lightlm.store.commit import remove_folder
from lightlm.system import SystemReport
from lightlm.training.supervisor import Worker

NEARLY = 0.02
"""Relative; within it the bytes at hand are what a run would read."""

SAMPLE_BYTES = 16 << 20
"""Bytes of text that a forecast reads if nothing is stored; ten times more changes it by < 1 %."""

QUICK_SAMPLE_BYTES = 4 << 20
"""Bytes of text that a quick plan reads."""

PLAN_SECONDS = 55.0
QUICK_SECONDS = 13.0
"""Seconds that a plan takes, and a quick one; ending the process takes one or two more."""

LEAST_TIMING_SECONDS = 1.0
"""Seconds for timings in any case; the first shape is timed even if they are not enough."""


class PlannedStart(NamedTuple):
    """A base that training could start from: its name, its score untouched, and the plan."""

    name: str
    bits_per_byte: float
    plan: Plan

    def dump(self) -> JsonObject:
        """Return it as JSON."""
        return {
            "name": self.name,
            "untouched_bits_per_byte": self.bits_per_byte,
            "plan": self.plan.model_dump(mode="json"),
        }

    def heading(self, scratch: float) -> str:
        """Return the line above its plan; `scratch` is the forecast from scratch."""
        return f"from {self.name} (untouched {self.bits_per_byte:.3f}; from scratch {scratch:.3f}):"


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
    starts: tuple[PlannedStart, ...] = ()
    """Plans that start from a base, the best first; `plan` is from scratch."""


class Stopwatch:
    """The time that planning takes, which no budget is charged with. Seconds."""

    budget_seconds = remaining_seconds = 0.0

    def __init__(self) -> None:
        self._started = time.monotonic()

    @property
    def elapsed_seconds(self) -> float:
        """Since the planning began."""
        return time.monotonic() - self._started


def make_plan(
    home: Path, params: Params, probe: Probe | None, *, is_quiet: bool, is_quick: bool = False
) -> Planned:
    """Return the plan that `train` would follow, and its figures: `probe`'s, or measured now.

    Takes PLAN_SECONDS at most, however long the budget is; with `is_quick`, QUICK_SECONDS.

    Raises:
        LightLMError: as the stages of `train` do.
    """
    folder = name_run_folder(home)
    budget_seconds = params.budget.hours * SECONDS_PER_HOUR
    stopwatch = Stopwatch()
    most_seconds = QUICK_SECONDS if is_quick else PLAN_SECONDS
    worker = start_worker(folder, home)

    try:
        with Progress(stopwatch, quiet=is_quiet) as progress:
            progress.enter_stage("Checking the system and measuring this machine")
            system = inspect_machine(params, home, worker)
            if probe is not None:
                machine = probe.machine
                check_switches(params, system, machine)
            else:
                machine = measure_rates(params, system, worker, progress, is_quick=is_quick)

            # What the stages above took now is not what they will take in a run.
            lead = probe.lead_seconds if probe else LeadTimes(home).estimate(budget_seconds)
            seconds = max(1.0, budget_seconds - lead)
            sample = QUICK_SAMPLE_BYTES if is_quick else SAMPLE_BYTES
            subset, shards = prepare_shards(home, params, machine, seconds, progress, sample)
            difficulty = measure_difficulty(subset)
            left = TimeLeft(seconds, ClosingTimes(home).estimate(budget_seconds))
            starts = list_starts(home, params, subset, difficulty, machine, left, worker, progress)
            facts = describe_text(shards, difficulty, name_text(params, subset))
            text = extend_text(params, facts, subset, machine, seconds)

            spare = max(LEAST_TIMING_SECONDS, most_seconds - stopwatch.elapsed_seconds)
            progress.enter_stage(f"Timing shapes and planning (up to {format_seconds(spare)})")
            history = History(home)
            figures = probe or probe_shapes(
                params,
                machine,
                text,
                worker,
                lambda: left,
                compiled=CompiledShapes(home),
                correction=history.correct(system.hardware_id, subset.validation_sha256),
                most_seconds=spare,
                report=progress.log,
            )
            figures = figures.model_copy(update={"lead_seconds": lead})
            counted = None
            if not is_quick:
                progress.enter_stage("Counting the text's tokens")
                counted = count_text(home, params, shards, seconds, progress.log)
            plan = choose_plan(params, text, figures, left, counted, shards)
            known = [run for run in history.read() if run.hardware_id == system.hardware_id]
            plan_hours = functools.partial(
                plan_for, params=params, text=facts, subset=subset, figures=figures, home=home
            )
            forecasts = forecast(plan_hours) if len(known) >= LEAST_RUNS else []
            name = subset.name
            return Planned(plan, figures, forecasts, subset.summary(), name, subset.notice, starts)
    except KeyboardInterrupt:
        worker.stop(0)  # nothing needs what it computes now
        raise
    finally:
        worker.stop()
        remove_folder(folder)


def name_text(params: Params, subset: TextSubset) -> str:
    """Return the first text's name, as its model would have it."""
    return list_names(describe_origin(params.dataset, subset.name))[0]


def measure_rates(
    params: Params, system: SystemReport, worker: Worker, progress: Progress, *, is_quick: bool
) -> MachineRate:
    """Return the rates of this machine, measured now."""
    machine = measure_rate(params, system, worker)
    if is_quick or not needs_reference(params, machine):
        return machine
    progress.enter_stage("Timing a reference shape")
    rate = time_reference(machine, worker, params.budget.hours * SECONDS_PER_HOUR)
    return machine.model_copy(update={"reference_flops_per_second": rate})


def list_starts(
    home: Path,
    params: Params,
    subset: TextSubset,
    difficulty: float,
    machine: MachineRate,
    left: TimeLeft,
    worker: Worker,
    progress: Progress,
) -> tuple[PlannedStart, ...]:
    """Return the plans of the bases that params name, or of those that `auto` would compare.

    Raises:
        ModelVersionError: the one that is named is not there, or is of another family.
    """
    source = params.start.source
    if kind_of(source) == "scratch":
        return ()

    is_auto = kind_of(source) == "auto"
    starts = []
    for one in list_candidates(home) if is_auto else [source]:
        progress.enter_stage(f"Scoring {one} and timing its training")
        try:
            named = find_named(home, params, one, progress.log)
            probe = probe_base(params, named.base, subset, machine, worker)
            text = describe_subset(subset, probe, difficulty)
            name = named.base.origin.id
            check_time(params, text, named.base.model, probe, left, name)
            plan = plan_from_base(params, text, machine, named.base.model, probe, left, name)
        except LightLMError as error:
            if not is_auto:
                raise
            progress.log(f"{one}: {error}")
            continue
        starts.append(PlannedStart(name, probe.bits_per_byte, plan))
    return tuple(sorted(starts, key=lambda start: start.plan.predicted_bits_per_byte))


def choose_plan(
    params: Params,
    text: TextFacts,
    figures: Probe,
    left: TimeLeft,
    counted: CountedText | None,
    shards: TokenShards,
) -> Plan:
    """Return the plan from measured figures, with count tables where they gain."""
    num_scored = count_scored_tokens(params, shards)
    return plan_with_counts(params, text, figures, left, counted, num_scored)


def extend_text(
    params: Params, text: TextFacts, subset: TextSubset, machine: MachineRate, seconds: float
) -> TextFacts:
    """Return the facts about as much of the texts as a run reads in `seconds`."""
    needed = estimate_text(params, machine, seconds)[0]
    extended = []
    for facts, other, named in zip(text.others, subset.others, params.dataset.others, strict=True):
        wanted = limit_bytes(other.weight, min(needed, named.max_bytes or needed))
        size = other.subset.readable_bytes(wanted, DATA_FRACTION * seconds)
        extended.append(facts.extended(size))
    text = replace(text, others=tuple(extended))
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


def prepare_shards(
    home: Path,
    params: Params,
    machine: MachineRate,
    seconds: float,
    progress: Progress,
    sample_bytes: int,
) -> tuple[TextSubset, TokenShards]:
    """Return text and shards that the budget would train on, or a sample of `sample_bytes`; made or
    from the store.

    `seconds` are left of the budget when a run has started.
    """
    progress.enter_stage(
        f"Reading the data set {params.dataset.source}, or {format_bytes(sample_bytes)} of it"
    )
    subset = materialize_subset(
        home,
        params.dataset,
        needed_bytes=estimate_text(params, machine, seconds),
        max_seconds=DATA_FRACTION * seconds,
        sample_bytes=sample_bytes,
        report=progress.log,
    )
    subset = add_others(
        home,
        subset,
        params.dataset,
        estimate_text(params, machine, seconds),
        DATA_FRACTION * seconds,
        sample_bytes=sample_bytes,
        report=progress.log,
    )

    for one in (subset, *(other.subset for other in subset.others)):
        for line in (one.summary(), *one.record.summary_lines(), *one.record.warnings):
            progress.log(line)

    progress.enter_stage("Preparing the tokenizer")
    needed = estimate_text(params, machine, seconds)[0]
    num_bytes = subset.readable_bytes(needed, DATA_FRACTION * seconds)
    sizes = choose_sizes(params, machine, seconds, num_bytes, measure_difficulty(subset))
    tokenizer = prepare_tokenizer(home, params.tokenizer, subset, sizes, report=progress.log)

    progress.enter_stage("Tokenizing to shards")
    return subset, tokenize_subset(home, subset, tokenizer, report=progress.log)

"""What `lightlm plan` does: the stages before training, then the plan; nothing is trained or registered. No Prefect."""

import time
from collections.abc import Callable
from typing import NamedTuple

from lightlm.budget.candidate import TextFacts
from lightlm.budget.compiled import CompiledShapes
from lightlm.budget.forecast import LEAST_RUNS, Forecast, forecast
from lightlm.budget.history import History
from lightlm.budget.ledger import Ledger
from lightlm.budget.plan import Plan
from lightlm.budget.planner import Planner
from lightlm.budget.probe import MachineRate, Probe, is_reference_worth_timing, measure_machine, time_reference
from lightlm.budget.reserve import Closing, ClosingTimes
from lightlm.budget.scaling import estimate_needed_bytes
from lightlm.budget.switches import check_switches
from lightlm.budget.vocabulary import bytes_a_token_at, choose_vocab_sizes
from lightlm.console.progress import Progress
from lightlm.data.shards import TokenShards, tokenize_subset
from lightlm.data.subset import TextSubset, materialize_subset
from lightlm.data.tokenizer import prepare_tokenizer
from lightlm.params import Params
from lightlm.store.commit import remove_folder
from lightlm.store.home import find_home
from lightlm.system import Device, check_system
from lightlm_flows.learning import describe_text, measure_hardness
from lightlm_flows.runs import name_run_folder
from lightlm_flows.session import start_worker


class Planned(NamedTuple):
    """A plan, the figures it was made of, what other budgets would reach (empty before three runs), the text."""

    plan: Plan
    probe: Probe
    forecasts: list[Forecast]
    subset: str
    text_name: str


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
    """Return the plan that `train` would follow, and the figures it was made of: `probe`'s, or measured now.

    Raises:
        LightLMError: as the stages of `train` do.
    """
    home = find_home()
    folder = name_run_folder(home)
    ledger = Ledger(params.budget.hours, clock=time.monotonic)
    worker = start_worker(folder, home)
    try:
        with Progress(Stopwatch(), quiet=is_quiet) as progress:
            progress.enter_stage("Checking the system and measuring this machine")
            devices = [Device.model_validate(d) for d in worker.call("describe_devices")["devices"]]
            system = check_system(params, home, devices)
            machine = (
                probe.machine if probe else measure_machine(params.training, system, worker, ledger.budget_seconds)
            )
            check_switches(params, system, machine)
            is_free = probe is None and params.tokenizer.vocab_size is None
            if is_free and is_reference_worth_timing(machine, ledger.budget_seconds):
                rate = time_reference(machine, worker, ledger.budget_seconds)
                machine = machine.model_copy(update={"reference_flops_per_second": rate})
            subset, shards = prepare_shards(params, machine, ledger, progress.say)
            text = describe_text(shards, measure_hardness(subset))
            progress.enter_stage("Timing shapes and planning")
            history = History(home)
            correction = history.correct(system.hardware_id, subset.validation_sha256)
            compiled = CompiledShapes(home)
            closing = ClosingTimes(home).estimate(ledger.budget_seconds)
            # Planned for the whole budget: what the stages above took now is not what they will take then.
            planner = Planner(params, text, machine, lambda: ledger.budget_seconds, closing, compiled, correction)
            plan, figures = planner.plan(None if probe else worker, probe)
            forecasts = []
            if len([run for run in history.read() if run.hardware_id == system.hardware_id]) >= LEAST_RUNS:
                forecasts = forecast(lambda hours: plan_for(hours, params, text, figures, closing, compiled))
            return Planned(plan, figures, forecasts, subset.summary(), subset.name)
    except KeyboardInterrupt:
        worker.stop(0)  # what it computes now is nobody's any more
        raise
    finally:
        worker.stop()
        remove_folder(folder)


def plan_for(
    hours: float, params: Params, text: TextFacts, figures: Probe, closing: Closing, compiled: CompiledShapes
) -> Plan:
    """Return the plan of another budget from figures that are measured already; the vocabulary is free again."""
    budget = params.budget.model_copy(update={"hours": hours, "max_steps": None, "planner": "measured"})
    if params.tokenizer.vocab_size is None:
        size = choose_vocab_sizes(figures.machine, hours * 3600, text.num_train_bytes, text.hardness)[0]
        change = bytes_a_token_at(size) / bytes_a_token_at(text.vocab_size)
        text = text.resized(size, change)
    planner = Planner(
        params.model_copy(update={"budget": budget}),
        text,
        figures.machine,
        lambda: hours * 3600,
        closing,
        compiled,
        figures.correction,
    )
    return planner.plan(None, figures)[0]


DATA_FRACTION = 0.1
"""Of the time that is left; what reading a slow source (the built-in text) may take."""


def prepare_shards(
    params: Params, machine: MachineRate, ledger: Ledger, report: Callable[[str], None]
) -> tuple[TextSubset, TokenShards]:
    """Return the text and the token shards that the budget would train on, made or found in the store."""
    seconds = ledger.budget_seconds
    needed = estimate_needed_bytes(machine.usual_flops, seconds)
    subset = materialize_subset(params.dataset, needed_bytes=needed, max_seconds=DATA_FRACTION * seconds, report=report)
    for line in (subset.summary(), *subset.record.summary_lines(), *subset.record.warnings):
        report(line)
    fixed = params.tokenizer.vocab_size
    sizes = [fixed] if fixed else choose_vocab_sizes(machine, seconds, subset.num_bytes, measure_hardness(subset))
    tokenizer = prepare_tokenizer(params.tokenizer, subset, sizes, report=report)
    return subset, tokenize_subset(subset, tokenizer, report=report)

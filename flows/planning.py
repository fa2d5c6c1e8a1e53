"""What `lightlm plan` does: the stages before training, then the plan; nothing is trained or registered. No Prefect."""

import time
from collections.abc import Callable

from flows.session import name_run_folder, start_worker
from lightlm.budget.candidate import TextFacts
from lightlm.budget.compiled import CompiledShapes
from lightlm.budget.ledger import Ledger
from lightlm.budget.plan import Plan
from lightlm.budget.planner import Planner
from lightlm.budget.probe import Probe, measure_machine
from lightlm.budget.reserve import ClosingTimes
from lightlm.budget.scaling import choose_vocab_sizes, estimate_needed_bytes, usable_flops
from lightlm.console.progress import Progress
from lightlm.data.shards import TokenShards, tokenize_subset
from lightlm.data.subset import materialize_subset
from lightlm.data.tokenizer import prepare_tokenizer
from lightlm.params import Params
from lightlm.store.commit import remove_folder
from lightlm.store.home import find_home
from lightlm.system import Device, check_system


def make_plan(params: Params, probe: Probe | None, *, is_quiet: bool) -> tuple[Plan, Probe]:
    """Return the plan that `train` would follow, and the figures it was made of: `probe`'s, or measured now.

    Raises:
        LightLMError: as the stages of `train` do.
    """
    home = find_home()
    folder = name_run_folder(home)
    ledger = Ledger(params.budget.hours, clock=time.monotonic)
    worker = start_worker(folder, home)
    try:
        with Progress(ledger, quiet=is_quiet) as progress:
            if probe is None:
                progress.enter_stage("Checking the system and measuring this machine")
                devices = [Device.model_validate(d) for d in worker.call("describe_devices")["devices"]]
                machine = measure_machine(params.training, check_system(params, home, devices), worker)
            else:
                machine = probe.machine
            shards = prepare_shards(params, machine.flops_per_second, ledger, progress.say)
            progress.enter_stage("Timing shapes and planning")
            # Planned for the whole budget: what the stages above took now is not what they will take then.
            planner = Planner(
                params,
                describe_text(shards),
                machine,
                lambda: ledger.budget_seconds,
                ClosingTimes(home).estimate(),
                CompiledShapes(home),
            )
            return planner.plan(None if probe else worker, probe)
    finally:
        worker.stop()
        remove_folder(folder)


DATA_FRACTION = 0.1
"""Of the time that is left; what reading a slow source (the built-in text) may take."""


def prepare_shards(
    params: Params, flops_per_second: float, ledger: Ledger, report: Callable[[str], None]
) -> TokenShards:
    """Return the token shards that the budget would train on, made or found in the store."""
    seconds = ledger.budget_seconds
    needed = estimate_needed_bytes(flops_per_second, seconds)
    subset = materialize_subset(params.dataset, needed_bytes=needed, max_seconds=DATA_FRACTION * seconds, report=report)
    report(subset.summary())
    fixed = params.tokenizer.vocab_size
    sizes = [fixed] if fixed else choose_vocab_sizes(usable_flops(flops_per_second, seconds), subset.num_bytes)
    tokenizer = prepare_tokenizer(params.tokenizer, subset, sizes, report=report)
    return tokenize_subset(subset, tokenizer, report=report)


def describe_text(shards: TokenShards) -> TextFacts:
    """Return what a plan needs to know of the tokenized text."""
    return TextFacts(
        vocab_size=shards.vocab_size,
        num_train_tokens=shards.num_train_tokens,
        num_train_bytes=shards.num_train_bytes,
        num_validation_tokens=shards.num_validation_tokens,
        num_validation_bytes=shards.num_validation_bytes,
    )

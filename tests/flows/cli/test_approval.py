"""An approved plan: what a screen showed is what `train` plans again, on a machine that is faster
or slower by then.
"""

import pytest

from lightlm.budget import planner
from lightlm.budget.candidate import TextFacts
from lightlm.budget.plan import Plan
from lightlm.budget.probe import MachineRate, Probe
from lightlm.budget.ranking import TimeLeft
from lightlm.budget.reserve import Closing
from lightlm.params import Params, load_params
from lightlm_flows.cli.approval import FIXED, fix_plan, free_plan, take_text

MACHINE = MachineRate(
    device="cpu",
    dtype="bfloat16",
    num_threads=2,
    flops_per_second=4e11,
    memory_bytes=16_000_000_000,
)


def plan(params: Params, vocab_size: int, *, speed: float = 1.0, seconds: float = 60.0) -> Plan:
    text = TextFacts(vocab_size, 300_000, 900_000, 20_000, 60_000)
    machine = MACHINE.model_copy(update={"flops_per_second": speed * MACHINE.flops_per_second})
    probe = Probe(machine=machine, shapes=())
    return planner.plan(params, text, probe, TimeLeft(seconds, Closing(2.0)))


@pytest.mark.parametrize(
    ("speed", "seconds"), [(1.0, 60.0), (0.05, 60.0), (20.0, 60.0), (1.0, 3.0), (1.0, 600.0)]
)
def test_what_was_approved_is_planned_again_however_fast_the_machine_is_by_then(
    speed: float, seconds: float
) -> None:
    shown = plan(load_params(), vocab_size=1024)
    approved = fix_plan(shown)
    params = load_params(overrides=approved)
    # A fixed vocabulary is the tokenizer's, so that the text has it, too.
    trained = plan(params, params.tokenizer.vocab_size or 0, speed=speed, seconds=seconds)
    assert trained.model == shown.model
    assert trained.num_parameters == shown.num_parameters
    for name in ("batch_tokens", "dropout", "weight_decay"):
        assert getattr(trained.trainer, name) == getattr(shown.trainer, name), name


def test_everything_that_is_fixed_is_a_param_of_its_own() -> None:
    approved = fix_plan(plan(load_params(), vocab_size=512))
    assert approved.keys() == FIXED
    assert approved["tokenizer.vocab_size"] == 512
    assert load_params().flatten().keys() >= FIXED


def test_another_text_frees_what_was_approved_and_not_what_was_given() -> None:
    approved = {"model.num_layers": 2, "tokenizer.vocab_size": 512, "training.dropout": 0.0}
    choices = approved | {"training.dropout": 0.1, "budget.hours": 0.1}
    assert free_plan(choices, approved) == {"training.dropout": 0.1, "budget.hours": 0.1}
    assert free_plan(choices, {}) == choices


def test_the_text_that_was_read_instead_is_the_one_that_is_trained_on() -> None:
    choices = {"dataset.source": "a/b", "dataset.config": "x", "budget.hours": 1.0}
    replaced = take_text(choices, "python-docs", is_replaced=True)
    assert replaced["dataset.source"] == "python-docs"
    assert replaced["dataset.config"] is None
    assert take_text(choices, "b-x", is_replaced=False) == choices

"""What a run and a plan share before training: the choice of vocabularies, and the text scored."""

from lightlm.budget.probe import MachineRate
from lightlm.params import load_params
from lightlm.runs.preparation import choose_sizes, needs_reference

MACHINE = MachineRate(
    device="cpu",
    dtype="float32",
    num_threads=2,
    flops_per_second=1e11,
    memory_bytes=16_000_000_000,
)


def test_a_vocabulary_that_params_name_is_the_only_one() -> None:
    params = load_params(overrides={"tokenizer.vocab_size": 300}, hours=1.0)
    assert choose_sizes(params, MACHINE, 60.0, 1_000_000, 1.0) == [300]
    assert not needs_reference(params, MACHINE)


def test_a_free_vocabulary_grows_with_the_budget_and_needs_a_timed_shape() -> None:
    params = load_params(hours=1.0)
    short = choose_sizes(params, MACHINE, 60.0, 1_000_000, 1.0)[0]
    long = choose_sizes(params, MACHINE, 36_000.0, 1_000_000_000, 1.0)[0]
    assert short < long
    assert needs_reference(params, MACHINE)

import pytest

from lightlm.budget.recipe import MEMORY_FRACTION, choose_attention, choose_micro_batch, choose_trainer
from lightlm.model.accounting import training_memory_bytes
from lightlm.params import load_params


@pytest.fixture
def model(probe):
    return probe.shapes[1].model


def choose(machine, model, expected_tokens=3e6, train_tokens=3_000_000, **overrides):
    return choose_trainer(
        load_params(overrides={f"training.{name}": value for name, value in overrides.items()}),
        machine,
        model,
        expected_tokens=expected_tokens,
        train_tokens=train_tokens,
        is_compiled=False,
        max_steps=None,
    )


def test_a_batch_is_a_whole_number_of_sequences_and_of_micro_batches(machine, model):
    for tokens in (1e4, 1e6, 1e8, 1e10):
        trainer = choose(machine, model, expected_tokens=tokens)
        assert trainer.batch_tokens % model.context_length == 0
        assert (trainer.batch_tokens // model.context_length) % trainer.micro_batch_size == 0


def test_what_params_fix_is_kept(machine, model):
    trainer = choose(
        machine, model, optimizer="adamw", seed=5, batch_tokens=1024, micro_batch_size=2, weight_decay=0.2, dropout=0.3
    )
    assert (trainer.optimizer, trainer.seed) == ("adamw", 5)
    assert (trainer.batch_tokens, trainer.micro_batch_size) == (1024, 2)
    assert (trainer.weight_decay, trainer.dropout) == (0.2, 0.3)


def test_a_batch_of_less_than_a_sequence_is_one_sequence(machine, model):
    trainer = choose(machine, model, batch_tokens=8)
    assert (trainer.batch_tokens, trainer.micro_batch_size) == (model.context_length, 1)


def test_the_scale_multiplies_every_rate(machine, model):
    plain, scaled = choose(machine, model), choose(machine, model, learning_rate_scale=0.5)
    for kind in ("matrix", "embedding", "head", "gain"):
        rate = f"{kind}_learning_rate"
        assert getattr(scaled, rate) == pytest.approx(getattr(plain, rate) / 2)


def test_a_text_that_is_read_often_is_regularised(machine, model):
    assert choose(machine, model).dropout == 0.0
    assert choose(machine, model, train_tokens=10_000).dropout > 0.0
    assert choose(machine, model, train_tokens=10_000, dropout=0.0).dropout == 0.0


@pytest.mark.parametrize("memory_bytes", [20_000_000, 60_000_000, 200_000_000, 10**12])
def test_a_micro_batch_fits_into_memory_or_is_one_sequence(machine, model, memory_bytes):
    small = machine.model_copy(update={"memory_bytes": memory_bytes})
    micro = choose_micro_batch(load_params(), small, model, 96)
    assert 96 % micro == 0
    assert micro == 1 or training_memory_bytes(model, micro, "muon") <= MEMORY_FRACTION * memory_bytes


def test_with_memory_enough_the_batch_is_computed_at_once(machine, model):
    assert choose_micro_batch(load_params(), machine, model, 96) == 96


@pytest.mark.parametrize(
    ("device", "context_length", "demanded", "kernel"),
    [
        ("cpu", 128, False, "matmul"),
        ("cpu", 512, False, "matmul"),
        ("cpu", 1024, False, "sdpa"),
        ("cuda", 128, False, "sdpa"),
        ("cuda", 128, True, "flash"),
        ("cpu", 128, True, "flash"),
    ],
)
def test_the_attention_kernel_is_the_fastest_of_the_device_or_the_one_demanded(
    machine, model, device, context_length, demanded, kernel
):
    there = machine.model_copy(update={"device": device})
    shape = model.model_copy(update={"context_length": context_length})
    params = load_params(overrides={"model.flash_attention": demanded})
    assert choose_attention(params, there, shape) == kernel


@pytest.mark.parametrize(("asked", "sequences", "found"), [(5, 96, 4), (7, 7, 7), (100, 6, 6), (4, 7, 1)])
def test_a_micro_batch_asked_for_is_lowered_to_a_divisor_of_the_batch(machine, model, asked, sequences, found):
    params = load_params(overrides={"training.micro_batch_size": asked})
    assert choose_micro_batch(params, machine, model, sequences) == found

import pytest

from lightlm.budget.memory import (
    MEMORY_FRACTION,
    Fit,
    choose_attention,
    choose_fit,
    fits,
    list_shardings,
    plan_memory_bytes,
    usable_memory,
)
from lightlm.errors import ParameterError
from lightlm.model.accounting import count_parameters, process_bytes, training_memory_bytes
from lightlm.params import load_params
from lightlm.training.config import TrainerConfig


@pytest.fixture
def model(probe):
    return probe.shapes[1].model


def load(**overrides):
    return load_params(overrides={f"training.{name}": value for name, value in overrides.items()})


def with_memory(machine, needed, **change):
    """Return the machine with just memory enough for `needed` bytes beside the process."""
    memory = (needed + process_bytes(machine.device)) / MEMORY_FRACTION
    return machine.model_copy(update={"memory_bytes": int(memory) + 1, **change})


def needed(machine, model, micro_batch_size, **change):
    return training_memory_bytes(
        model,
        micro_batch_size,
        "muon",
        dtype=machine.dtype,
        attention="matmul",
        keep_best=True,
        **change,
    )


@pytest.mark.parametrize("sequences_at_a_time", [1, 6, 24, 96])
def test_as_many_sequences_are_computed_at_once_as_fit(machine, model, sequences_at_a_time):
    small = with_memory(machine, needed(machine, model, sequences_at_a_time))
    assert choose_fit(load(), small, model, 96) == Fit(False, "off", sequences_at_a_time)


def test_where_one_sequence_does_not_fit_layers_are_computed_again(machine, model):
    again = needed(machine, model, 1, is_recomputed=True)
    assert again < needed(machine, model, 1)
    small = with_memory(machine, again)
    assert choose_fit(load(), small, model, 96) == Fit(True, "off", 1)
    assert fits(load(), small, model)
    assert not fits(load(gradient_checkpointing="off"), small, model)
    assert not fits(load(), with_memory(machine, again // 2), model)


def test_where_one_device_is_too_small_and_there_are_several_the_model_is_cut(machine, model):
    gpu = machine.model_copy(update={"device": "cuda"})
    attention = choose_attention(load(), gpu, model)
    cut = training_memory_bytes(
        model,
        1,
        "muon",
        device="cuda",
        dtype=gpu.dtype,
        attention=attention,
        num_shards=4,
        keep_best=True,
    )

    gpu = with_memory(gpu, cut, num_devices=4)
    assert choose_fit(load(), gpu, model, 96) == Fit(False, "fsdp", 1)
    assert choose_fit(load(), gpu.model_copy(update={"memory_bytes": 10**12}), model, 96) == Fit(
        False, "off", 24
    )
    assert choose_fit(load(sharding="off"), gpu, model, 96).sharding == "off"


def test_what_is_demanded_is_done_whether_memory_asks_for_it_or_not(machine, model):
    assert choose_fit(load(gradient_checkpointing="on"), machine, model, 96) == Fit(True, "off", 96)
    two = machine.model_copy(update={"num_devices": 2})
    assert choose_fit(load(sharding="fsdp"), two, model, 96) == Fit(False, "fsdp", 48)


def test_a_model_in_shards_wants_several_processes(machine):
    with pytest.raises(
        ParameterError, match=r"sharding is fsdp, but one process.*training\.devices"
    ):
        list_shardings(load(sharding="fsdp"), machine)
    assert list_shardings(load(sharding="fsdp", num_nodes=2), machine) == ("fsdp",)


def test_processes_on_one_cpu_share_its_memory_and_gpus_have_their_own(machine):
    two = machine.model_copy(update={"num_devices": 2})
    assert usable_memory(two) == usable_memory(machine) / 2
    gpus = two.model_copy(update={"device": "cuda"})
    assert usable_memory(gpus) == usable_memory(machine)


@pytest.mark.parametrize("memory_bytes", [20_000_000, 600_000_000, 800_000_000, 10**12])
def test_a_micro_batch_fits_into_memory_or_is_one_sequence(machine, model, memory_bytes):
    small = machine.model_copy(update={"memory_bytes": memory_bytes})
    fit = choose_fit(load(), small, model, 96)
    assert 96 % fit.micro_batch_size == 0
    assert fit.micro_batch_size == 1 or fits(load(), small, model)


def test_with_memory_enough_the_batch_is_computed_at_once(machine, model):
    assert choose_fit(load(), machine, model, 96).micro_batch_size == 96


@pytest.mark.parametrize(
    ("asked", "sequences", "found"), [(5, 96, 4), (7, 7, 7), (100, 6, 6), (4, 7, 1)]
)
def test_a_micro_batch_asked_for_is_lowered_to_a_divisor_of_the_batch(
    machine, model, asked, sequences, found
):
    assert (
        choose_fit(load(micro_batch_size=asked), machine, model, sequences).micro_batch_size
        == found
    )


def test_the_plan_counts_the_process_on_a_cpu_and_the_device_alone_on_a_gpu(model):
    trainer = TrainerConfig(
        batch_tokens=1024, micro_batch_size=2, dtype="bfloat16", attention="sdpa"
    )
    on_cpu = plan_memory_bytes(model, trainer)
    on_gpu = plan_memory_bytes(model, trainer.model_copy(update={"device": "cuda"}))
    assert on_cpu - on_gpu > process_bytes("cpu")
    best = plan_memory_bytes(model, trainer, keep_best=True)
    assert best - on_cpu == 4 * count_parameters(model)
    halves = trainer.model_copy(update={"sharding": "fsdp", "num_devices": 2})
    assert plan_memory_bytes(model, halves) < on_cpu


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

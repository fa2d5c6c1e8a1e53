import json
from typing import Any

import pytest

from lightlm.budget.devices import choose_device
from lightlm.budget.probe import (
    MOST_GAIN,
    REFERENCE,
    REFERENCE_FROM_SECONDS,
    Probe,
    is_reference_worth_timing,
    measure_machine,
    read_probe,
    time_reference,
)
from lightlm.errors import ParameterError
from lightlm.model.accounting import flops_per_token
from lightlm.params import load_params
from lightlm.system import Device, SystemReport, check_system

CPU = Device(
    kind="cpu",
    name="two cores",
    memory_bytes=8,
    supports_bfloat16=True,
    supports_flash_attention=True,
)
GPU = Device(
    kind="cuda",
    name="a GPU",
    memory_bytes=80,
    compute_capability="9.0",
    supports_bfloat16=True,
    supports_flash_attention=True,
)


def report(*devices: Device) -> SystemReport:
    return SystemReport(
        python_version="3.11.9",
        platform="Linux",
        cpu_name="two cores",
        num_cores=2,
        memory_bytes=8,
        available_memory_bytes=8,
        free_disk_bytes=8,
        devices=list(devices),
        hardware_id="abc",
        checks=[],
    )


def test_the_speed_of_a_timed_shape_is_the_one_measured(probe):
    for timed in probe.shapes:
        assert probe.speed_of(timed.model, is_compiled=False) == pytest.approx(
            timed.tokens_per_second
        )
        assert probe.score_speed(timed.model) == pytest.approx(timed.score_tokens_per_second)


@pytest.mark.parametrize(
    ("dim", "share"), [(8, 0.10), (64, 0.10), (192, 0.25), (384, 0.35), (4096, 0.35)]
)
def test_outside_the_timed_widths_the_nearest_ones_efficiency_holds(probe, dim, share):
    assert probe.efficiency_at(dim, False) == pytest.approx(share * probe.machine.flops_per_second)


def test_between_two_timed_widths_the_efficiency_lies_between_theirs(probe):
    values = [probe.efficiency_at(dim, False) for dim in range(64, 385, 16)]
    assert values == sorted(values)
    assert len(set(values)) == len(values)


def test_the_order_of_the_timings_plays_no_part(probe):
    turned = Probe(machine=probe.machine, shapes=probe.shapes[::-1])
    assert turned.efficiency_at(100, False) == probe.efficiency_at(100, False)


def test_a_deeper_model_of_the_same_width_is_slower_by_its_flops(probe):
    model = probe.shapes[0].model
    deeper = model.model_copy(update={"num_layers": 9})
    ratio = flops_per_token(deeper) / flops_per_token(model)
    assert probe.speed_of(model, is_compiled=False) / probe.speed_of(
        deeper, is_compiled=False
    ) == pytest.approx(ratio)
    assert probe.score_speed(model) / probe.score_speed(deeper) == pytest.approx(ratio)


def test_before_anything_is_timed_the_priors_hold(probe):
    bare = Probe(machine=probe.machine, shapes=[])
    model = probe.shapes[0].model
    eager = bare.speed_of(model, is_compiled=False)
    assert eager > 0
    assert bare.speed_of(model, is_compiled=True) >= eager
    assert bare.score_speed(model) > eager


def test_a_measured_gain_of_compiling_holds_at_other_widths(probe, time_shape):
    compiled = Probe(
        machine=probe.machine, shapes=[*probe.shapes, time_shape(192, 0.5, is_compiled=True)]
    )
    for dim in (64, 192, 384):
        gain = compiled.efficiency_at(dim, True) / compiled.efficiency_at(dim, False)
        assert gain == pytest.approx(2.0)


def test_the_achieved_operations_are_speed_times_cost(probe):
    timed = probe.shapes[1]
    assert timed.achieved_flops == pytest.approx(0.25 * probe.machine.flops_per_second)


@pytest.mark.parametrize("wrap", [lambda probe: probe, lambda probe: {"plan": {}, "probe": probe}])
def test_saved_figures_are_read_again_alone_or_beside_their_plan(probe, tmp_path, wrap):
    path = tmp_path / "probe.json"
    path.write_text(json.dumps(wrap(probe.model_dump(mode="json"))), encoding="utf-8")
    assert read_probe(path) == probe


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"{", "cannot read the probe file"),
        (b"\xff", "cannot read the probe file"),
        (b"[]", "is not a probe file"),
        (b'{"machine": {}, "shapes": []}', r"machine\.device"),
        (b'{"probe": {"machine": null}}', "is not a probe file"),
    ],
)
def test_a_file_without_figures_is_refused(tmp_path, content, words):
    path = tmp_path / "probe.json"
    path.write_bytes(content)
    with pytest.raises(ParameterError, match=words):
        read_probe(path)


def test_a_file_that_is_not_there_is_refused_with_its_path(tmp_path):
    with pytest.raises(ParameterError, match=r"nothing\.json"):
        read_probe(tmp_path / "nothing.json")


@pytest.mark.parametrize(
    ("wanted", "devices", "kind"),
    [
        ("auto", (CPU, GPU), "cuda"),
        ("auto", (CPU,), "cpu"),
        ("cpu", (CPU, GPU), "cpu"),
        ("cuda", (CPU, GPU), "cuda"),
        ("cuda:0", (CPU, GPU), "cuda"),
    ],
)
def test_the_device_is_the_one_named_or_the_first_accelerator(wanted, devices, kind):
    assert choose_device(wanted, report(*devices)).kind == kind


def test_a_device_that_is_not_there_is_refused_with_those_that_are():
    with pytest.raises(
        ParameterError, match=r"training\.device is cuda, but this machine has cpu; give auto"
    ):
        choose_device("cuda", report(CPU))


def test_fast_products_alone_promise_no_fast_steps_on_a_cpu(machine):
    amx = machine.model_copy(update={"flops_per_second": 1.5e12, "float32_flops_per_second": 2e11})
    assert amx.usual_flops == MOST_GAIN * 2e11
    assert (
        machine.model_copy(update={"float32_flops_per_second": 2e11}).usual_flops
        == machine.flops_per_second
    )
    assert amx.model_copy(update={"device": "cuda"}).usual_flops == amx.flops_per_second
    model = Probe(machine=amx, shapes=[])
    assert model.efficiency_at(192, False) < 0.4 * amx.usual_flops


class Steps:
    """Stands for a worker: whatever the shape, a step takes 50 ms."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []

    def call(self, job: str, **arguments: Any) -> dict[str, Any]:
        assert job == "time_steps"
        self.asked.append(arguments)
        speed = arguments["trainer"]["batch_tokens"] / 0.05
        seconds = {"first_seconds": 0.1, "step_seconds": 0.05, "slow_step_seconds": 0.05}
        return seconds | {
            "tokens_per_second": speed,
            "score_tokens_per_second": speed,
            "memory_bytes": 1,
        }


def test_what_the_reference_shape_reaches_raises_what_is_expected_of_every_shape(machine):
    slow = machine.model_copy(update={"flops_per_second": 1e11, "float32_flops_per_second": None})
    rate = time_reference(slow, worker := Steps(), REFERENCE_FROM_SECONDS)
    assert rate == pytest.approx(flops_per_token(REFERENCE) * 2048 / 0.05)
    assert worker.asked[0]["trainer"]["num_threads"] == slow.num_threads
    timed = slow.model_copy(update={"reference_flops_per_second": rate})
    assert timed.trained_flops > timed.usual_flops == slow.trained_flops
    assert Probe(machine=timed, shapes=[]).efficiency_at(
        REFERENCE.model_dim, False
    ) == pytest.approx(rate)


def test_a_reference_that_was_disturbed_lowers_nothing(machine):
    assert (
        machine.model_copy(update={"reference_flops_per_second": 1.0}).trained_flops
        == machine.usual_flops
    )


def test_short_budgets_and_gpus_time_no_reference(machine):
    assert is_reference_worth_timing(machine, REFERENCE_FROM_SECONDS)
    assert not is_reference_worth_timing(machine, REFERENCE_FROM_SECONDS - 1)
    assert not is_reference_worth_timing(machine.model_copy(update={"device": "cuda"}), 3600.0)


class Rates:
    """Answers with the rates of a card."""

    def __init__(self, **rates: float) -> None:
        self.rates = rates
        self.asked: list[str] = []

    def call(self, job: str, **arguments: Any) -> dict[str, Any]:
        assert job == "measure_matrix_rates"
        self.asked = arguments["dtypes"]
        return {dtype: self.rates[dtype] for dtype in arguments["dtypes"]}


TURING = GPU.model_copy(
    update={
        "name": "NVIDIA T4",
        "compute_capability": "7.5",
        "supports_bfloat16": False,
        "supports_float16": True,
        "supports_flash_attention": False,
    }
)
AMPERE = GPU.model_copy(update={"supports_bfloat16": True, "supports_float16": True})


@pytest.mark.parametrize(
    ("device", "wanted", "rates", "dtype"),
    [
        (TURING, "auto", {"float32": 4e12, "float16": 25e12}, "float16"),
        (TURING, "auto", {"float32": 4e12, "float16": 4.5e12}, "float32"),
        (TURING, "float32", {"float32": 4e12}, "float32"),
        (AMPERE, "auto", {"float32": 60e12, "bfloat16": 250e12}, "bfloat16"),
        (AMPERE, "float16", {"float16": 250e12}, "float16"),
    ],
)
def test_a_card_before_ampere_trains_in_float16_if_that_is_fast(
    tmp_path, device, wanted, rates, dtype
):
    params = load_params(overrides={"training.dtype": wanted, "training.device": "cuda"})
    system = check_system(params, tmp_path, [CPU, device])
    worker = Rates(**rates)
    machine = measure_machine(params.training, system, worker)
    assert machine.dtype == dtype
    assert worker.asked == list(rates)


@pytest.mark.parametrize(("device", "dtype"), [(CPU, "float16"), (TURING, "bfloat16")])
def test_a_dtype_that_a_device_is_slow_at_is_refused_with_those_it_has(tmp_path, device, dtype):
    params = load_params(overrides={"training.dtype": dtype, "training.device": device.kind})
    system = check_system(params, tmp_path, [device])
    with pytest.raises(ParameterError, match=rf"training.dtype is {dtype}, .* give float32 or"):
        measure_machine(params.training, system, Rates())

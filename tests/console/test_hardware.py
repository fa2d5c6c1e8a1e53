"""The tables of "Optimize for training time"."""

import io

from rich.console import RenderableType

from lightlm.budget.memory import plan_memory_bytes, usable_memory
from lightlm.budget.probe import MachineRate
from lightlm.console.hardware import find_maximum_batch, render_hardware, render_optimizations
from lightlm.console.terminal import open_console
from lightlm.system import Device, SystemReport
from lightlm.training.config import TrainerConfig
from tests.console.test_tables import make_plan

PLAN = make_plan(0).model_copy(
    update={
        "trainer": TrainerConfig(batch_tokens=2048, micro_batch_size=16),
        "matrix_flops_per_second": 4e11,
        "bytes_per_token": 3.5,
    }
)
MACHINE = MachineRate(
    device="cuda",
    dtype="bfloat16",
    num_threads=2,
    flops_per_second=4e14,
    memory_bytes=80_000_000_000,
)
CPU = Device(
    kind="cpu",
    name="EPYC",
    memory_bytes=10**10,
    supports_bfloat16=True,
    supports_flash_attention=False,
)
GPU = Device(
    kind="cuda",
    name="H100",
    memory_bytes=80_000_000_000,
    compute_capability="9.0",
    supports_bfloat16=True,
    supports_flash_attention=True,
)
REPORT = SystemReport(
    python_version="3.11.7",
    platform="Linux",
    cpu_name="EPYC",
    num_cores=2,
    memory_bytes=10**10,
    available_memory_bytes=10**10,
    free_disk_bytes=10**10,
    devices=[CPU, GPU],
    hardware_id="x",
    checks=[],
)


def render(drawing: RenderableType) -> str:
    """Return what a pipe would get."""
    console = open_console(io.StringIO())
    console.print(drawing)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_the_capabilities_are_those_of_the_device_that_trains() -> None:
    shown = render(render_hardware(REPORT, MACHINE, PLAN))
    for words in (
        "H100 (cuda, bfloat16)",
        "80 GB",
        "Flash attention available",
        "Compute capability 9.0",
    ):
        assert words in " ".join(shown.split()), shown
    without = render(render_hardware(REPORT, MACHINE.model_copy(update={"device": "cpu"}), PLAN))
    assert "none (no CUDA device)" in without
    assert "not available" in without


def test_the_maximum_batch_is_the_last_that_fits() -> None:
    small = MACHINE.model_copy(update={"memory_bytes": 2_000_000_000})
    most = find_maximum_batch(PLAN, small)
    needed = [
        plan_memory_bytes(PLAN.model, PLAN.trainer.model_copy(update={"micro_batch_size": size}))
        for size in (most, most + 1)
    ]
    assert needed[0] <= usable_memory(small) < needed[1]


def test_what_was_chosen_is_shown_with_subset_shape_time_and_reasons() -> None:
    shown = render(render_optimizations(PLAN, "Using 20 of 300 documents", 6.0))
    for words in (
        "Using 20 of 300 documents",
        "Layers",
        "Dimensions",
        "Attention heads",
        "Expected time",
        "bits per byte",
    ):
        assert words in shown

    for reason in PLAN.reasons:
        assert reason[:40] in shown

"""Tables of the hardware and of the planner's choices: "Optimize for training time"."""

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from lightlm.budget.memory import plan_memory_bytes, usable_memory
from lightlm.budget.plan import Plan
from lightlm.budget.probe import MachineRate
from lightlm.console.terminal import render_text
from lightlm.quantities import format_bytes, format_count, format_seconds
from lightlm.system import Device, SystemReport

MOST_SEQUENCES = 65_536
"""Sequences of a batch: the most that params/base.yaml's micro_batch_size takes."""


def render_hardware(report: SystemReport, machine: MachineRate, plan: Plan) -> RenderableType:
    """Return what the machine can do with the plan's model."""
    device = find_device(report, machine)
    sequences = find_maximum_batch(plan, machine)
    kernel = (
        "available"
        if device.supports_flash_attention
        else "not available; the fastest other kernel is taken"
    )

    return render_facts(
        "Hardware capabilities",
        {
            "Device": f"{device.name} ({machine.device}, {machine.dtype})",
            "Memory": f"{format_bytes(device.memory_bytes)}, of which "
            f"{format_bytes(usable_memory(machine))} for training",
            "Maximum batch "
            "size": f"{sequences:,} sequences of {plan.model.context_length:,} tokens at a time",
            "Flash attention": kernel,
            "Compute capability": device.compute_capability or "none (no CUDA device)",
            "Measured": f"{machine.flops_per_second / 1e9:,.0f} GFLOP/s of matrix products",
        },
    )


def render_optimizations(plan: Plan, subset: str, lead_seconds: float) -> RenderableType:
    """Return the subset, the model and the time that the planner chose, and why; training begins
    after the lead.
    """
    model = plan.model
    seconds = lead_seconds + plan.training_seconds + plan.reserve_seconds
    table = render_facts(
        "Chosen for this time",
        {
            "Data": subset,
            "Reads": f"{format_count(plan.expected_tokens)} tokens ({plan.expected_epochs:.1f} "
            "epochs)",
            "Layers": str(model.num_layers),
            "Dimensions": str(model.model_dim),
            "Attention heads": str(model.num_heads),
            "Context length": f"{model.context_length:,} tokens",
            "Vocabulary": f"{model.vocab_size:,} entries",
            "Parameters": f"{format_count(plan.num_parameters)}, {format_bytes(plan.memory_bytes)} "
            "of memory in training",
            "Batch": f"{plan.trainer.batch_tokens:,} tokens per step",
            "Expected time": f"{format_seconds(seconds)}: {format_seconds(lead_seconds)} to start, "
            "check and measure, "
            f"{format_seconds(plan.training_seconds)} of training, "
            f"{format_seconds(plan.reserve_seconds)} for score and "
            "registration",
            "Expected score": f"{plan.format_prediction()} bits per byte",
        },
    )

    for reason in plan.reasons:
        table.add_row("", render_text(f"- {reason}", "dim"))
    return table


def render_facts(title: str, facts: dict[str, str]) -> Table:
    """Return a title and a line a fact."""
    table = Table.grid(padding=(0, 2))
    table.add_row(Text(""))
    table.add_row(Text(title, "bold"))
    for name, fact in facts.items():
        table.add_row(render_text(f"  {name}"), render_text(fact))
    return table


def find_device(report: SystemReport, machine: MachineRate) -> Device:
    """Return the device that training uses."""
    kind = machine.device.partition(":")[0]
    return next((device for device in report.devices if device.kind == kind), report.devices[0])


def find_maximum_batch(plan: Plan, machine: MachineRate) -> int:
    """Return the sequences of the plan's model that fit into memory at a time, by its
    accounting.
    """
    least = 1
    most = MOST_SEQUENCES
    while least < most:
        middle = (least + most + 1) // 2
        trainer = plan.trainer.model_copy(update={"micro_batch_size": middle})
        if plan_memory_bytes(plan.model, trainer) <= usable_memory(machine):
            least = middle
        else:
            most = middle - 1
    return least

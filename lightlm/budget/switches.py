"""Feature checks: what params demand and a machine cannot do is refused early, with the reason."""

from lightlm.budget.memory import list_shardings
from lightlm.budget.probe import MachineRate
from lightlm.errors import ParameterError
from lightlm.params import Params
from lightlm.system import SystemReport
from lightlm.training.config import TrainerConfig


def check_switches(params: Params, system: SystemReport, machine: MachineRate) -> None:
    """Refuse features that params demand and this machine lacks: the flash kernel, shards of a
    model.

    Raises:
        ParameterError: what is demanded, what is there, what to do.
    """
    list_shardings(params, machine)
    if not params.model.flash_attention:
        return

    kind = machine.device.partition(":")[0]
    device = next(device for device in system.devices if device.kind == kind)
    if not device.supports_flash_attention:
        got = (
            f"compute capability {device.compute_capability}"
            if device.compute_capability
            else device.name
        )
        raise ParameterError(
            "model.flash_attention=true wants a CPU or a GPU of compute capability 8.0 or more, "
            f"got {got}; leave it false, the fastest kernel that the machine has is used then"
        )

    if kind == "cuda" and machine.dtype == "float32":
        raise ParameterError(
            f"model.flash_attention=true wants bfloat16 on a GPU, got {machine.dtype}; leave "
            "training.dtype=auto, or flash_attention false"
        )


def explain_switches(trainer: TrainerConfig) -> list[str]:
    """Return the reasons for the features of a plan that cost or change something."""
    reasons = []
    if trainer.sharding == "fsdp":
        count = trainer.num_devices * trainer.num_nodes
        reasons.append(
            f"sharded: each of {count} processes holds its rows of weights, gradients and moments "
            "(FSDP)"
        )

    if trainer.gradient_checkpointing:
        reasons.append(
            "gradient checkpointing: layers keep their input only and are computed again, in 1.3x "
            "the time"
        )

    return reasons

"""The devices of a run: the kind that params ask for, and how many of them train."""

from lightlm.errors import ParameterError
from lightlm.params import TrainingParams
from lightlm.system import Device, SystemReport


def count_devices(params: TrainingParams, system: SystemReport, device: Device) -> int:
    """Return how many processes train on this machine: as many as asked for; for `auto`, one per
    GPU.

    Raises:
        ParameterError: more than there are GPUs, or several on Apple's, which PyTorch cannot join.
    """
    there = sum(one.kind == device.kind for one in system.devices)
    if params.devices == "auto":
        return 1 if device.kind == "cpu" else there
    if (device.kind == "mps" and params.devices > 1) or (
        device.kind == "cuda" and params.devices > there
    ):
        raise ParameterError(
            f"training.devices is {params.devices}, but this machine has {there} {device.kind}; "
            "give auto"
        )
    return params.devices


def choose_device(wanted: str, system: SystemReport) -> Device:
    """Return the device to train on: the one named, or the first accelerator, or the CPU.

    Raises:
        ParameterError: the one named is not there.
    """
    kind = wanted.partition(":")[0]
    devices = system.devices
    if kind == "auto":
        return next((d for d in devices if d.kind != "cpu"), devices[0])
    for device in devices:
        if device.kind == kind:
            return device
    raise ParameterError(
        f"training.device is {wanted}, but this machine has {', '.join(d.kind for d in devices)}; "
        "give auto"
    )

"""Devices and precision: those of this machine, and a Transformer built on one of them."""

import torch

from lightlm.errors import ParameterError
from lightlm.model.adapters import add_adapters, freeze_lower, narrow_frozen
from lightlm.model.config import ModelConfig
from lightlm.model.transformer import Transformer
from lightlm.system import Device, describe_cpu, read_memory_limit
from lightlm.training.config import TrainerConfig
from lightlm.training.sharding import put, shard_model

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
"""The dtypes that training computes in, by the names that params give them."""

FLASH_CAPABILITY = (8, 0)
"""Compute capability from which PyTorch's flash kernel and fast bfloat16 exist (Ampere)."""

FLOAT16_CAPABILITY = (7, 0)
"""Compute capability from which float16 products are fast (Volta). Below FLASH_CAPABILITY these
are V100, T4, RTX 20 and GTX 16.
"""


def describe_devices() -> list[Device]:
    """Return the CPU and then every accelerator that torch sees."""
    devices = [describe_cpu()]
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            capability = (properties.major, properties.minor)
            devices.append(
                Device(
                    kind="cuda",
                    name=properties.name,
                    memory_bytes=properties.total_memory,
                    compute_capability=f"{capability[0]}.{capability[1]}",
                    supports_bfloat16=capability >= FLASH_CAPABILITY,
                    supports_float16=capability >= FLOAT16_CAPABILITY,
                    supports_flash_attention=capability >= FLASH_CAPABILITY,
                )
            )
    elif torch.backends.mps.is_available():
        devices.append(
            Device(
                kind="mps",
                name="Apple GPU",
                memory_bytes=read_memory_limit(),
                supports_bfloat16=True,
                supports_flash_attention=False,
            )
        )

    return devices


def build_model(
    model: ModelConfig, trainer: TrainerConfig, *, is_filled: bool = False
) -> Transformer:
    """Return an initialized model on the trainer's device, compiled and sharded if asked.

    `is_filled`: its weights are copied in next, so that they need no first values.

    Raises:
        ParameterError: the flash kernel is demanded where this machine has none.
    """
    torch.set_num_threads(trainer.num_threads)
    allow_tf32(trainer.device)
    check_flash(trainer)
    with torch.device("meta"):
        built = Transformer(model, kernel=trainer.attention, dropout=trainer.dropout)
    prepare(built, trainer)
    if trainer.sharding == "fsdp":
        shard_model(built, trainer.num_devices * trainer.num_nodes, trainer.device)
    built = built.to_empty(device=trainer.device)
    if not is_filled:
        reset_model(built, trainer)
    return built


def allow_tf32(device: str) -> None:
    """Let CUDA compute float32 products in TF32, where it has that (Ampere); elsewhere nothing."""
    if device.startswith("cuda"):
        torch.set_float32_matmul_precision("high")


def choose_tuned(model: Transformer, trainer: TrainerConfig) -> None:
    """Freeze the weights that the trainer leaves alone, and give the model adapters if asked."""
    if trainer.tuned == "lora":
        add_adapters(model, trainer.lora_rank, trainer.seed)
    elif trainer.tuned == "last":
        freeze_lower(model, min(trainer.num_tuned_layers, model.config.num_layers))
    narrow_frozen(model)


def prepare(model: Transformer, trainer: TrainerConfig) -> Transformer:
    """Set precision, recomputation and compilation of a model."""
    model.compute_dtype = DTYPES[trainer.dtype]
    model.recomputes_layers = trainer.gradient_checkpointing
    if trainer.compile:
        model.compile_layers()
    return model


def check_flash(trainer: TrainerConfig) -> None:
    """Refuse a demanded flash kernel that the device cannot run.

    Raises:
        ParameterError: with the reason.
    """
    if trainer.attention != "flash" or trainer.device == "cpu":
        return
    if trainer.device == "mps":
        raise ParameterError(
            "model.flash_attention=true, but PyTorch has no flash kernel on Apple GPUs; "
            "leave it false, the fused kernel of the machine is used then"
        )

    capability = torch.cuda.get_device_capability(trainer.device)
    if capability < FLASH_CAPABILITY or trainer.dtype == "float32":
        raise ParameterError(
            "model.flash_attention=true wants a GPU of compute capability 8.0 or more and bfloat16 "
            f"or float16, got {capability[0]}.{capability[1]} and {trainer.dtype}; leave it false"
        )


def reset_model(model: Transformer, trainer: TrainerConfig) -> None:
    """Give `model` its first weights, in place."""
    for weight, first in model.init_weights(trainer.seed):
        put(weight.data, first)

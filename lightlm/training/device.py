"""Where a model trains and in which precision: from a TrainerConfig to a Transformer that is ready there."""

import torch

from lightlm.errors import ParameterError
from lightlm.model.config import ModelConfig
from lightlm.model.transformer import Transformer
from lightlm.training.config import TrainerConfig

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def build_model(model: ModelConfig, trainer: TrainerConfig) -> Transformer:
    """Return an initialised model on the trainer's device, layers compiled if asked.

    Raises:
        ParameterError: the flash kernel is demanded where this machine has none.
    """
    torch.set_num_threads(trainer.num_threads)
    check_flash(trainer)
    with torch.device("meta"):
        built = Transformer(model, kernel=trainer.attention, dropout=trainer.dropout)
    built = built.to_empty(device=trainer.device)
    built.initialize(trainer.seed)
    return prepare(built, trainer)


def prepare(model: Transformer, trainer: TrainerConfig) -> Transformer:
    """Set precision and compilation of a model that is on its device already."""
    model.compute_dtype = DTYPES[trainer.dtype]
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
    major, minor = torch.cuda.get_device_capability(trainer.device)
    if major < 8 or trainer.dtype != "bfloat16":
        raise ParameterError(
            f"model.flash_attention=true wants a GPU of compute capability 8.0 or more and bfloat16, got "
            f"{major}.{minor} and {trainer.dtype}; leave it false"
        )

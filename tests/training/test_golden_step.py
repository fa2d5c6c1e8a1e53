"""One step of a tiny fixed model gives these numbers: any change of the arithmetic shows here.

Weights and tokens are formulas, so that no random generator is part of them.
"""

import itertools
from typing import Any

import pytest
import torch

from lightlm.data.loader import Batch
from lightlm.model.config import ModelConfig
from lightlm.model.transformer import Transformer
from lightlm.training.config import TrainerConfig
from lightlm.training.optimizer import Optimizer
from lightlm.training.stop_criterion import StepCriterion
from lightlm.training.trainer import train

SHAPE: dict[str, Any] = {
    "vocab_size": 257,
    "num_layers": 2,
    "model_dim": 16,
    "num_heads": 2,
    "num_kv_heads": 1,
    "head_dim": 8,
    "ffn_dim": 24,
    "context_length": 8,
}
EXPERTS = {"num_experts": 4, "num_active_experts": 2, "expert_ffn_dim": 8}


def build(**change: Any) -> Transformer:
    model = Transformer(ModelConfig(**(SHAPE | change)), kernel="matmul")
    with torch.no_grad():
        for index, weight in enumerate(model.parameters()):
            places = torch.arange(weight.numel(), dtype=torch.float64).view(weight.shape)
            wave = torch.sin(0.7 * places + index).float()
            weight.copy_(1 + 0.1 * wave if weight.dim() == 1 else 0.3 * wave)
    return model


def read_batch() -> Batch:
    ids = torch.arange(18).view(2, 9).pow(3) % 257
    return Batch(ids[:, :-1].contiguous(), ids[:, 1:].contiguous())


def take_step(model: Transformer, optimizer: str) -> tuple[float, float, float]:
    """Return the loss and the gradient norm of a step, and the loss after it."""
    config = TrainerConfig.model_validate(
        {
            "batch_tokens": 16,
            "micro_batch_size": 1,
            "optimizer": optimizer,
            "weight_decay": 0.1,
            "warmup_fraction": 0.0,
        }
    )
    rule = Optimizer(model, config)
    batches = itertools.repeat(read_batch())
    first, second = train(model, rule, batches, config, StepCriterion(2))
    return first.loss, first.gradient_norm, second.loss


@pytest.mark.parametrize(
    ("optimizer", "change", "wanted"),
    [
        ("muon", {}, (5.681291, 2.801638, 5.374180)),
        ("adamw", {}, (5.681291, 2.801638, 5.362796)),
        ("muon", EXPERTS, (5.561242, 6.693918, 5.693660)),
        ("muon", {"tie_embeddings": True}, (5.700671, 2.162493, 4.988626)),
    ],
    ids=["muon", "adamw", "experts", "tied"],
)
def test_a_step_of_a_fixed_model_gives_these_numbers(
    optimizer: str, change: dict[str, Any], wanted: tuple[float, ...]
) -> None:
    assert take_step(build(**change), optimizer) == pytest.approx(wanted, rel=1e-4)


def test_a_fixed_model_gives_these_nats() -> None:
    batch = read_batch()
    nats = build()(batch.inputs, batch.targets)
    assert nats[0, :4].tolist() == pytest.approx([4.751120, 4.992907, 5.018900, 5.736255], rel=1e-5)

"""AdamW: what torch.optim's computes, without what it imports."""

import subprocess
import sys

import pytest
import torch

from lightlm.training.adamw import EPSILON, AdamW, Slot


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_computes_what_pytorchs_own_class_does(dtype):
    generator = torch.Generator().manual_seed(1)
    start = [torch.randn(shape, generator=generator).to(dtype) for shape in ((7, 5), (11,), (3,))]
    settings = [(0.1, 0.2), (0.03, 0.0), (0.5, 0.1)]
    ours = [value.clone().requires_grad_() for value in start]
    theirs = [value.clone().requires_grad_() for value in start]
    rule = AdamW((0.8, 0.95))
    for index, (weight, (peak, decay)) in enumerate(zip(ours, settings, strict=True)):
        rule.slots[str(index)] = Slot(weight, peak, decay)
    reference = torch.optim.AdamW(
        [
            {"params": [weight], "lr": peak, "weight_decay": decay}
            for weight, (peak, decay) in zip(theirs, settings, strict=True)
        ],
        betas=(0.8, 0.95),
        eps=EPSILON,
        fused=True,
    )

    for step in range(5):
        for one, other in zip(ours, theirs, strict=True):
            gradient = torch.randn(one.shape, generator=generator).to(dtype)
            one.grad, other.grad = gradient.clone(), gradient.clone()
        if step == 3:  # a weight that took no part, as an expert without tokens
            ours[2].grad = theirs[2].grad = None
        for group, (peak, _) in zip(reference.param_groups, settings, strict=True):
            group["lr"] = peak * (1 - step / 10)
        rule.step(1 - step / 10)
        reference.step()

    for one, other, slot in zip(ours, theirs, rule.slots.values(), strict=True):
        assert torch.equal(one, other)
        assert slot.moments is not None
        for key, value in slot.moments._asdict().items():
            assert torch.equal(value, reference.state[other][key]), key


def test_the_first_step_imports_no_compiler() -> None:
    code = """
import sys, torch
import lightlm.training.run, lightlm.training.timing, lightlm.training.worker
from lightlm.model.config import ModelConfig
from lightlm.model.transformer import Transformer
from lightlm.training.config import TrainerConfig
from lightlm.training.optimizer import Optimizer
shape = dict(num_heads=1, num_kv_heads=1, head_dim=32, ffn_dim=32, context_length=8)
model = Transformer(ModelConfig(vocab_size=300, num_layers=1, model_dim=32, **shape))
rule = Optimizer(model, TrainerConfig(batch_tokens=16, micro_batch_size=2))
ids = torch.randint(0, 64, (2, 9))
model.compute_loss(ids[:, :-1], ids[:, 1:])[0].sum().backward()
rule.step(1.0, 0.0)
print([name for name in ("sympy", "torch._dynamo", "torch.distributed.tensor") if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "[]", done.stderr

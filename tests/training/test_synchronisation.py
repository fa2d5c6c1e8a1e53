"""Tests that a training step waits for its device once: a wait in between would leave a GPU idle
each time.

There is no GPU here, so what would make the host wait for one is counted on the CPU, by the names
of its calls.
"""

import itertools

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from lightlm.training.events import StepDone
from lightlm.training.stop_criterion import StepCriterion
from lightlm.training.trainer import train

EXPERTS = {"num_experts": 4, "num_active_experts": 2, "expert_ffn_dim": 16}

CALLS = {
    "item",
    "tolist",
    "cpu",
    "numpy",
    "__bool__",
    "__float__",
    "__int__",
    "__index__",
    "__contains__",
    "equal",
}
"""Of a tensor, which need its values on the host."""

OPERATORS = {
    "_local_scalar_dense",
    "nonzero",
    "masked_select",
    "bincount",
    "_unique2",
    "is_nonzero",
    "equal",
}
"""Of aten, whose result's shape or value the host has to know."""


class CalledWaits(TorchFunctionMode):
    """Notes the calls from Python that wait for a device."""

    def __init__(self, found):
        super().__init__()
        self.found = found

    def __torch_function__(self, function, types, args=(), kwargs=None):
        name = getattr(function, "__name__", "")
        is_boolean_index = name == "__getitem__" and getattr(args[1], "dtype", None) == torch.bool
        is_moved = name == "to" and any(
            str(a) == "cpu" for a in (*args[1:], *(kwargs or {}).values())
        )
        if name in CALLS or is_boolean_index or is_moved:
            self.found.append(name)
        return function(*args, **(kwargs or {}))


class OperatorWaits(TorchDispatchMode):
    """Notes the operators that wait for a device, those within torch's own functions and the
    backward pass too.
    """

    def __init__(self, found):
        super().__init__()
        self.found = found

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if (name := function.overloadpacket.__name__) in OPERATORS:
            self.found.append(name)
        return function(*args, **(kwargs or {}))


def count_waits(steps):
    """Return the waits of one step."""
    found = []
    with CalledWaits(found), OperatorWaits(found):
        event = next(steps)
    assert isinstance(event, StepDone)
    return found


@pytest.mark.parametrize(
    ("change", "shape_change"),
    [
        ({}, {}),
        ({"micro_batch_size": 1, "dropout": 0.1, "weight_decay": 0.1}, {}),
        ({"optimizer": "adamw", "dtype": "bfloat16"}, {}),
        ({"gradient_checkpointing": True, "dropout": 0.1, "attention": "matmul"}, {}),
        ({"gradient_clip_norm": 1e-6}, EXPERTS),
        # In bf16 a CPU, and it alone, asks how many rows each expert has (moe.multiply_grouped).
        ({"gradient_checkpointing": True}, EXPERTS),
    ],
    ids=["plain", "in parts", "adamw", "recomputed", "experts", "experts, recomputed"],
)
def test_a_step_waits_for_its_device_once_whatever_it_does(
    build, settings, draw_batch, change, shape_change
):
    config = settings(**change)
    model, rule = build(config, **shape_change)
    steps = train(model, rule, itertools.repeat(draw_batch()), config, StepCriterion(9))
    next(steps)
    assert count_waits(steps) == ["tolist"]


@pytest.mark.parametrize(
    "wait",
    [
        lambda x: x.sum().item(),
        lambda x: float(x.sum()),
        lambda x: bool((x > 0).any()),
        lambda x: x[x > 0],
        lambda x: torch.nonzero(x),
        lambda x: x.to("cpu"),
        lambda x: x.cpu(),
    ],
    ids=["item", "float", "bool", "boolean index", "nonzero", "to", "cpu"],
)
def test_a_wait_in_a_layer_is_noticed(build, settings, draw_batch, wait):
    config = settings()
    model, rule = build(config)
    model.layers[0].register_forward_hook(
        lambda module, inputs, output: wait(output[0].detach()) is None or None
    )
    steps = train(model, rule, itertools.repeat(draw_batch()), config, StepCriterion(9))
    next(steps)
    assert len(count_waits(steps)) > 1

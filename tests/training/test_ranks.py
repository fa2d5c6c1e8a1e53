"""Tests of what ranks agree on."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lightlm.training import ranks
from lightlm.training.ranks import ALONE
from lightlm.training.stop_criterion import StepCriterion

TWO_RANKS = """
import sys
from itertools import repeat
import torch
from torch import distributed
from lightlm.model.config import ModelConfig
from lightlm.training.config import TrainerConfig
from lightlm.training.device import build_model
from lightlm.training.optimizer import Optimizer
from lightlm.training.ranks import ReplicatedRanks
from lightlm.training.stop_criterion import StepCriterion
from lightlm.training.timing import random_batch
from lightlm.training.trainer import train

rank = int(sys.argv[1])
distributed.init_process_group("gloo", init_method="file://" + sys.argv[2], rank=rank, world_size=2)
shape = ModelConfig(vocab_size=257, num_layers=1, model_dim=8, num_heads=1, num_kv_heads=1, head_dim=8,
                    ffn_dim=8, context_length=8)
trainer = TrainerConfig(batch_tokens=32, micro_batch_size=4)
model = build_model(shape, trainer)

def fill_memory(module, inputs):
    if inputs[0].shape[0] > 1:
        raise torch.OutOfMemoryError("CUDA out of memory")

if rank == 1:
    model.layers[0].register_forward_pre_hook(fill_memory)
events = []
ranks = ReplicatedRanks(rank, 2)
batches = repeat(random_batch(shape, trainer))
for event in train(model, Optimizer(model, trainer, ranks), batches, trainer, StepCriterion(9),
                   should_stop=lambda: rank == 1 and len(events) == 5, ranks=ranks):
    events.append(type(event).__name__)
print(events, sum(float(weight.sum()) for weight in model.parameters()))
"""


def test_one_process_alone_decides_for_itself() -> None:
    criterion = StepCriterion(4)
    assert ALONE.agree(criterion, lambda: False, 1) == 0.25
    assert ALONE.agree(criterion, lambda: False, 4) is None
    assert ALONE.agree(criterion, lambda: True, 1) is None
    assert ALONE.lead(True, False) == (True, False)
    assert ALONE.is_first


def test_a_rank_of_a_sharded_model_without_memory_ends_as_a_memory_kill_does():
    code = "from lightlm.training.ranks import ShardedRanks; object.__new__(ShardedRanks).shrink()"
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert ended.returncode == ranks.MEMORY_KILL == 137
    assert "memory ran out" in ended.stderr


def test_one_process_computes_a_stack_by_itself_and_measures_all_gradients():
    stack = torch.arange(6.0).view(3, 2)
    assert torch.equal(ALONE.divide(stack, lambda part: part * 2), stack * 2)
    assert float(ALONE.measure_norm([torch.tensor([3.0]), torch.tensor([[4.0]])])) == 5.0


@pytest.mark.slow
def test_where_one_rank_has_no_memory_or_is_stopped_both_do_the_same(tmp_path: Path) -> None:
    ran = [
        subprocess.Popen(
            [sys.executable, "-c", TWO_RANKS, str(rank), str(tmp_path / "store")],
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    said, other = (process.communicate(timeout=60)[0] for process in ran)
    assert said == other
    assert said.startswith(str(["MicroBatchReduced"] * 2 + ["StepDone"] * 3)[:-1])

"""Tests of what ranks agree on."""

import subprocess
import sys

import pytest
import torch

from lightlm.training import ranks
from lightlm.training.ranks import ALONE, AgreedCriterion, cut_buckets
from lightlm.training.stop_criterion import StepCriterion

DTYPES = [torch.float32, torch.float32, torch.float32, torch.bfloat16]


def test_progress_is_rank_0s_and_one_stop_stops_all() -> None:
    said: list[tuple[bool, float]] = []

    def agree(is_over: bool, progress: float) -> tuple[bool, float]:
        said.append((is_over, progress))
        return is_over or len(said) > 2, 0.25

    criterion = AgreedCriterion(StepCriterion(4), lambda: False, agree)
    assert criterion.allows(1)
    assert criterion.progress(1) == 0.25
    assert not AgreedCriterion(StepCriterion(4), lambda: True, agree).allows(0)
    assert not criterion.allows(2)
    assert said == [(False, 0.25), (True, 0.0), (False, 0.5)]


def test_buckets_hold_every_tensor_once_in_order_by_dtype(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "BUCKET_BYTES", 100)
    tensors = [torch.zeros(n, dtype=dtype) for n, dtype in zip((9, 30, 1, 2), DTYPES, strict=True)]
    buckets = list(cut_buckets(tensors))
    assert [[t.numel() for t in bucket] for bucket in buckets] == [[9, 30], [1], [2]]


def test_one_process_alone_decides_for_itself() -> None:
    criterion = StepCriterion(3)
    assert ALONE.follow(criterion, pytest.fail)[0] is criterion
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

"""Tests of what a run will write: the estimate holds for what training keeps."""

from lightlm.budget.space import CHECKPOINTS
from lightlm.training.checkpoint import KEPT


def test_room_is_asked_for_one_checkpoint_more_than_are_kept() -> None:
    assert CHECKPOINTS == KEPT + 1

"""Tests of the memory of compiled shapes."""

from pathlib import Path

from lightlm.budget.compiled import CompiledShapes
from lightlm.model.config import ModelConfig
from lightlm.training.config import TrainerConfig

MODEL = ModelConfig(
    vocab_size=300,
    num_layers=2,
    model_dim=64,
    num_heads=1,
    num_kv_heads=1,
    head_dim=64,
    ffn_dim=128,
    context_length=32,
)
TRAINER = TrainerConfig(batch_tokens=64, micro_batch_size=2)


def test_a_recorded_shape_is_known_whatever_its_depth(home: Path) -> None:
    shapes = CompiledShapes(home)
    assert not shapes.knows(MODEL, TRAINER)
    shapes.record(MODEL, TRAINER)
    shapes.record(MODEL, TRAINER)
    assert CompiledShapes(home).knows(MODEL.model_copy(update={"num_layers": 9}), TRAINER)
    assert not shapes.knows(MODEL.model_copy(update={"ffn_dim": 192}), TRAINER)
    assert not shapes.knows(MODEL, TRAINER.model_copy(update={"micro_batch_size": 4}))


def test_a_broken_memory_is_an_empty_one(home: Path) -> None:
    shapes = CompiledShapes(home)
    for content in (b"{", b'{"a": 1}', b"\xff"):
        shapes.path.parent.mkdir(parents=True, exist_ok=True)
        shapes.path.write_bytes(content)
        assert not shapes.knows(MODEL, TRAINER)
    shapes.record(MODEL, TRAINER)
    assert shapes.knows(MODEL, TRAINER)

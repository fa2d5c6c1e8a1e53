import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from lightlm.data.loader import Batch
from lightlm.data.shards import TokenShards, tokenize_subset
from lightlm.data.subset import materialize_subset
from lightlm.data.tokenization.tokenizer import Tokenizer, prepare_tokenizer
from lightlm.model.config import ModelConfig
from lightlm.model.transformer import Transformer
from lightlm.params import load_params
from lightlm.store.home import find_home
from lightlm.training.config import TrainerConfig
from lightlm.training.device import build_model
from lightlm.training.messages import TrainRequest
from lightlm.training.optimizer import Optimizer

CONTEXT_LENGTH = 16
BATCH_SIZE = 4
LINES = [
    f"{n} little birds sat on {n + 1} old walls; {n % 3} flew away, and the rest sang."
    for n in range(80)
]

SHAPE: dict[str, Any] = {
    "num_layers": 2,
    "model_dim": 32,
    "num_heads": 2,
    "num_kv_heads": 1,
    "head_dim": 16,
    "ffn_dim": 64,
    "context_length": CONTEXT_LENGTH,
}


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> tuple[TokenShards, Tokenizer]:
    """Return a small text's shards and their tokenizer, in a store of their own."""
    folder = tmp_path_factory.mktemp("corpus")
    rows = "".join(json.dumps({"text": line}) + "\n" for line in LINES)
    (folder / "lines.jsonl").write_text(rows, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LIGHTLM_HOME", str(folder / "home"))
        params = load_params(
            overrides={"dataset.validation_fraction": 0.2}, dataset=str(folder / "lines.jsonl")
        )
        subset = materialize_subset(find_home(), params.dataset)
        tokenizer = prepare_tokenizer(find_home(), params.tokenizer, subset, [280])
        return tokenize_subset(find_home(), subset, tokenizer), tokenizer


@pytest.fixture
def shape(corpus: tuple[TokenShards, Tokenizer]) -> Callable[..., ModelConfig]:
    return lambda **change: ModelConfig(**({"vocab_size": corpus[1].vocab_size} | SHAPE | change))


@pytest.fixture
def settings() -> Callable[..., TrainerConfig]:
    plain = {"batch_tokens": BATCH_SIZE * CONTEXT_LENGTH, "micro_batch_size": BATCH_SIZE}
    return lambda **change: TrainerConfig.model_validate(plain | change)


@pytest.fixture
def build(shape: Callable[..., ModelConfig]) -> Callable[..., tuple[Transformer, Optimizer]]:
    """Build a fresh model and its optimizer."""

    def build_both(config: TrainerConfig, **change: Any) -> tuple[Transformer, Optimizer]:
        model = build_model(shape(**change), config)
        return model, Optimizer(model, config)

    return build_both


@pytest.fixture
def draw_batch(shape: Callable[..., ModelConfig]) -> Callable[..., Batch]:
    """Draw the batch of a step: a pure function of the step."""

    def draw(step: int = 0, size: int = BATCH_SIZE) -> Batch:
        generator = torch.Generator().manual_seed(step)
        rows = torch.randint(0, shape().vocab_size, (size, CONTEXT_LENGTH + 1), generator=generator)
        return Batch(rows[:, :-1].contiguous(), rows[:, 1:].contiguous())

    return draw


@pytest.fixture
def batches(draw_batch: Callable[..., Batch]) -> Callable[..., Iterator[Batch]]:
    """Yield the batches from a step on, for ever."""

    def yield_batches(start: int = 0) -> Iterator[Batch]:
        step = start
        while True:
            yield draw_batch(step)
            step += 1

    return yield_batches


@pytest.fixture
def make_request(
    corpus: tuple[TokenShards, Tokenizer],
    shape: Callable[..., ModelConfig],
    settings: Callable[..., TrainerConfig],
    tmp_path: Path,
) -> Callable[..., TrainRequest]:
    """Return a request to train on the small text; options of the request, the rest the
    trainer's.
    """

    def make(name: str = "run", **change: Any) -> TrainRequest:
        shards, tokenizer = corpus
        options = {
            key: change.pop(key) for key in tuple(change) if key in TrainRequest.model_fields
        }
        values = {
            "run_folder": tmp_path / name,
            "shards_folder": shards.folder,
            "tokenizer_folder": tokenizer.folder,
            "model": shape(),
            "trainer": settings(
                **({"max_steps": 16, "num_validations": 4, "num_checkpoints": 4} | change)
            ),
            "deadline": time.monotonic() + 600,
            "validation_tokens": 200,
            "sample_tokens": 0,
        }

        return TrainRequest.model_validate(values | options)

    return make

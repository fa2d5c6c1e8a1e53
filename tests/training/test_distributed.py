"""Tests of several ranks: real processes that train one model agree with one process, stop
together, die together.
"""

import os
import signal
from collections.abc import Callable
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from lightlm.errors import ParameterError
from lightlm.model.config import ModelConfig
from lightlm.store.home import find_home
from lightlm.training.checkpoint import list_checkpoints
from lightlm.training.config import TrainerConfig
from lightlm.training.distributed import ADDRESS, find_address, fit_to_ranks
from lightlm.training.events import Event, Validated
from lightlm.training.messages import TrainRequest, TrainResult
from lightlm.training.run import TrainingRun
from lightlm.training.supervisor import Worker

EXPERTS = {"num_experts": 4, "num_active_experts": 2, "expert_ffn_dim": 16}


def run_job(request: TrainRequest) -> tuple[list[float], TrainResult]:
    """Return the held-out bits per byte on the way, and the result."""
    with Worker(request.run_folder, {"OMP_NUM_THREADS": "1"}) as worker:
        records = list(worker.train(request.model_dump(mode="json")))
    scores = [record["bits_per_byte"] for record in records if "bits_per_byte" in record]
    return scores, TrainResult.model_validate(records[-1]["result"])


def test_two_ranks_train_as_one_does(make_request: Callable[..., TrainRequest]) -> None:
    results = {
        size: run_job(make_request(f"ranks-{size}", max_steps=50, num_devices=size, dropout=0.0))
        for size in (1, 2)
    }
    (scores, one), (shared_scores, two) = results[1], results[2]
    assert len(scores) == len(shared_scores) >= 4
    assert shared_scores == pytest.approx(scores, abs=1e-3)
    assert (one.step, one.total_tokens) == (two.step, two.total_tokens)
    alone, shared = (load_file(result.folder / "model.safetensors") for result in (one, two))
    for name, weight in alone.items():
        torch.testing.assert_close(shared[name], weight, atol=2e-3, rtol=2e-3)


@pytest.mark.slow
def test_two_ranks_with_half_the_model_each_train_as_one_with_all_of_it(
    make_request: Callable[..., TrainRequest], shape: Callable[..., ModelConfig]
) -> None:
    steps = {
        "max_steps": 50,
        "dropout": 0.0,
        "weight_decay": 0.1,
        "micro_batch_size": 1,
        "keep_best": True,
    }

    model = shape(**EXPERTS)
    events: list[Event] = []
    one = TrainingRun(find_home(), make_request("one", **steps, model=model)).run(events.append)
    alone = [event.bits_per_byte for event in events if isinstance(event, Validated)]
    cut = {"num_devices": 2, "sharding": "fsdp", "gradient_checkpointing": True}
    shared, two = run_job(make_request("two", **steps, **cut, model=model))
    assert shared == pytest.approx(alone, abs=1e-3)
    assert (one.step, one.total_tokens) == (two.step, two.total_tokens)
    wanted, found = (load_file(result.folder / "model.safetensors") for result in (one, two))
    assert wanted.keys() == found.keys()
    for name, weight in wanted.items():
        torch.testing.assert_close(found[name], weight, atol=2e-3, rtol=2e-3)

    opened = AutoModelForCausalLM.from_pretrained(two.folder)
    assert opened.num_parameters() == sum(weight.numel() for weight in found.values())


def test_a_batch_is_shared_evenly_and_threads_are_divided() -> None:
    trainer = TrainerConfig(batch_tokens=70, micro_batch_size=7, num_devices=3, num_threads=8)
    fitted = fit_to_ranks(trainer, 10, 1)
    assert (fitted.batch_tokens, fitted.micro_batch_size, fitted.num_threads) == (90, 3, 2)
    with pytest.raises(ParameterError, match="GPUs"):
        fit_to_ranks(trainer.model_copy(update={"device": "cuda", "num_devices": 999}), 10, 0)
    with pytest.raises(ParameterError, match="mps"):
        fit_to_ranks(trainer.model_copy(update={"device": "mps"}), 10, 0)


def test_several_nodes_want_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = TrainerConfig(batch_tokens=8, micro_batch_size=1, num_nodes=2)
    monkeypatch.delenv(ADDRESS, raising=False)
    with pytest.raises(ParameterError, match=ADDRESS):
        find_address(trainer)
    monkeypatch.setenv(ADDRESS, "10.0.0.1:29500")
    assert find_address(trainer) == ("10.0.0.1", 29500)
    assert find_address(trainer.model_copy(update={"num_nodes": 1})) == ("127.0.0.1", 0)


@pytest.mark.faults
@pytest.mark.parametrize(
    ("sharding", "steps", "checkpoints"),
    # 16 of 16: the last step's checkpoint is there already when the run saves what it reached.
    [("off", 120, 12), ("fsdp", 16, 16)],
    ids=["whole", "in shards"],
)
def test_a_rank_that_dies_ends_all_and_training_goes_on(
    make_request: Callable[..., TrainRequest], sharding: str, steps: int, checkpoints: int
) -> None:
    change = {
        "num_devices": 2,
        "max_steps": steps,
        "num_checkpoints": checkpoints,
        "sharding": sharding,
    }

    request = make_request("killed", **change)
    records: list[dict[str, Any]] = []
    is_killed = False

    with Worker(request.run_folder, {"OMP_NUM_THREADS": "1"}) as worker:
        for record in worker.train(request.model_dump(mode="json")):
            records.append(record)
            if not is_killed and list_checkpoints(request.run_folder / "checkpoints"):
                is_killed = True
                (peer,) = find_peers(worker)
                os.kill(peer, signal.SIGKILL)

    assert any("ended with exit code 137" in str(record) for record in records)
    assert records[-1]["result"]["step"] == steps


def find_peers(worker: Worker) -> list[int]:
    import psutil

    assert worker._process is not None
    children = psutil.Process(worker._process.pid).children()
    return [
        child.pid
        for child in children
        if "lightlm.training.distributed" in " ".join(child.cmdline())
    ]

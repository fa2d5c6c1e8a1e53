"""Tests of several ranks: real processes that train one model agree with one process, stop
together, die together.
"""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from lightlm.errors import ParameterError
from lightlm.model.config import ModelConfig
from lightlm.store.home import find_home
from lightlm.training.agent import ADDRESS, RUN_ID
from lightlm.training.checkpoint import list_checkpoints
from lightlm.training.config import TrainerConfig
from lightlm.training.distributed import OWN_STORE, fit_to_ranks, open_ranks
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


def test_a_rank_of_torchrun_wants_a_store_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(OWN_STORE, raising=False)
    with pytest.raises(ParameterError, match=f"set {OWN_STORE}=1"), open_ranks(None):
        pass


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
                assert worker._process is not None
                os.kill(find_rank(worker._process.pid, 1), signal.SIGKILL)

    assert any("killed (signal 9" in str(record) for record in records)
    assert records[-1]["result"]["step"] == steps


@pytest.mark.faults
def test_two_nodes_train_together_and_survive_the_death_of_a_rank_on_the_second(
    make_request: Callable[..., TrainRequest],
) -> None:
    request = make_request("nodes", num_nodes=2, max_steps=120, num_checkpoints=12)
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    environment = {"OMP_NUM_THREADS": "1", OWN_STORE: "1", ADDRESS: address}
    options = {"nnodes": 2, "nproc-per-node": 1, "max-restarts": 3, "local-addr": "127.0.0.1"}
    meeting = {"backend": "c10d", "id": RUN_ID, "endpoint": address, "conf": "is_host=0"}
    options |= {f"rdzv-{name}": value for name, value in meeting.items()}
    command = [sys.executable, "-m", "torch.distributed.run"]
    command += [f"--{name}={value}" for name, value in options.items()]
    command += ["-m", "lightlm.training.distributed"]

    records: list[dict[str, Any]] = []
    is_killed = False
    with Worker(request.run_folder, environment) as worker:
        node = subprocess.Popen(command, env=os.environ | environment)
        for record in worker.train(request.model_dump(mode="json")):
            records.append(record)
            if not is_killed and list_checkpoints(request.run_folder / "checkpoints"):
                is_killed = True
                os.kill(find_rank(node.pid, 0), signal.SIGKILL)

    assert records[-1]["result"]["step"] == 120
    assert sum(record.get("event") == "WorkerRestarted" for record in records) == 1
    assert node.wait(60) == 0


def find_rank(agent: int, local_rank: int) -> int:
    """Return the process of a rank that an agent started."""
    (found,) = [
        child.pid
        for child in psutil.Process(agent).children()
        if child.environ().get("LOCAL_RANK") == str(local_rank)
    ]
    return found

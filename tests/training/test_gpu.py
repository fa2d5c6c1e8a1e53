"""What training does on a GPU: the CPU's figures, in each precision, and a run that ends on time.

`make gpu` runs these before it measures. Without a GPU they are skipped.
"""

from collections.abc import Callable

import pytest
import torch

from lightlm.budget.shapes import dense_shape
from lightlm.model.transformer import Transformer
from lightlm.training.config import TrainerConfig
from lightlm.training.device import build_model, describe_devices
from lightlm.training.events import StepDone
from lightlm.training.messages import TrainRequest
from lightlm.training.optimizer import Optimizer
from lightlm.training.stop_criterion import StepCriterion
from lightlm.training.supervisor import Worker
from lightlm.training.timing import measure_matrix_rate, random_batch, time_steps
from lightlm.training.trainer import train

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU that torch can use"),
]
MODEL = dense_shape(512, 2, 128, 128)


def describe_trainer(device: str, dtype: str = "float32", **change: object) -> TrainerConfig:
    values = {"batch_tokens": 2048, "micro_batch_size": 16, "dtype": dtype, "device": device}
    return TrainerConfig.model_validate(values | change)


def list_losses(trainer: TrainerConfig, weights: dict[str, torch.Tensor] | None) -> list[float]:
    """Return the losses of eight steps on one batch, from given weights."""
    built = build_model(MODEL, trainer)
    if weights is not None:
        built.load_state_dict(weights)
    batch = random_batch(MODEL, trainer)
    events = train(
        built, Optimizer(built, trainer), iter(lambda: batch, None), trainer, StepCriterion(8)
    )
    return [event.loss for event in events if isinstance(event, StepDone)]


def fast_dtypes() -> list[str]:
    card = next(one for one in describe_devices() if one.kind == "cuda")
    return ["bfloat16"] * card.supports_bfloat16 + ["float16"] * bool(card.supports_float16)


def test_the_logits_are_those_of_the_cpu() -> None:
    torch.backends.cuda.matmul.allow_tf32 = False
    built: Transformer = build_model(MODEL, describe_trainer("cpu")).eval()
    ids = random_batch(MODEL, describe_trainer("cpu")).inputs
    with torch.inference_mode():
        here = built(ids)
        there = built.to("cuda")(ids.to("cuda")).cpu()
    assert torch.allclose(here, there, atol=1e-3)


@pytest.mark.parametrize("is_compiled", [False, True])
def test_training_falls_in_each_precision_as_on_the_cpu(is_compiled: bool) -> None:
    start = build_model(MODEL, describe_trainer("cpu")).state_dict()
    expected = list_losses(describe_trainer("cpu"), start)
    for dtype in ("float32", *fast_dtypes()):
        losses = list_losses(describe_trainer("cuda", dtype, compile=is_compiled), start)
        assert losses == pytest.approx(expected, rel=0.03), dtype
        assert losses[-1] < losses[0]


def test_a_timing_has_a_rate_and_a_peak_below_the_cards_memory() -> None:
    dtype = fast_dtypes()[0] if fast_dtypes() else "float32"
    trainer = describe_trainer("cuda", dtype)
    assert measure_matrix_rate(trainer) > 1e11
    timing = time_steps(MODEL, trainer, 0.5)
    assert timing.tokens_per_second > 0
    assert 0 < timing.memory_bytes < torch.cuda.get_device_properties(0).total_memory


def test_a_worker_trains_saves_and_resumes(make_request: Callable[..., TrainRequest]) -> None:
    dtype = fast_dtypes()[0] if fast_dtypes() else "float32"
    request = make_request("card", device="cuda", dtype=dtype, max_steps=12, num_checkpoints=3)
    with Worker(request.run_folder) as worker:
        records = list(worker.train(request.model_dump(mode="json")))
    assert records[-1]["result"]["step"] == 12

"""Two hundred runs with numbers that are none, or far too large: nothing of them is ever saved or
published.
"""

import math
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from lightlm.store.home import find_home
from lightlm.training.checkpoint import is_finite
from lightlm.training.events import (
    Checkpointed,
    Event,
    RolledBack,
    StepDone,
    StepSkipped,
    Validated,
)
from lightlm.training.messages import TrainRequest
from lightlm.training.run import MAX_ROLLBACKS, TrainingRun
from tests.training.conftest import corpus, make_request, settings, shape  # noqa: F401

RUNS = int(os.environ.get("FAULTS_NUMERICS", "200"))
STEPS = 40
ISOLATED_LOSS = 1.05
"""What a run may score in which only single steps were bad, as a multiple of an undisturbed run's
bits per byte.
"""

VALUES = {
    "not a number": math.nan,
    "infinite": math.inf,
    "minus infinite": -math.inf,
    "ten thousand times": 1e4,
}
PLACES = ("loss", "one gradient", "a weight")


def disturb(run: TrainingRun, place: str, value: float, steps: set[int]) -> None:
    """Spoil one place in the calls named, counted in micro-batches of training."""
    calls = iter(range(10**9))

    def spoil_output(module: Any, inputs: Any, output: Any) -> Any:
        if not module.training or next(calls) not in steps:
            return output
        return (output[0] * value, *output[1:])

    def spoil_gradient(gradient: torch.Tensor) -> torch.Tensor:
        if next(calls) not in steps:
            return gradient
        spoilt = gradient.clone()
        spoilt.view(-1)[0] = value
        return spoilt

    def spoil_weight(module: Any, inputs: Any) -> None:
        if module.training and next(calls) in steps:
            with torch.no_grad():
                run.model.head[0, 0] = value

    if place == "loss":
        run.model.layers[-1].register_forward_hook(spoil_output)
    elif place == "one gradient":
        run.model.head.register_hook(spoil_gradient)
    else:
        run.model.layers[0].register_forward_pre_hook(spoil_weight)


def train(request: TrainRequest, *disturbance: Any) -> tuple[list[Event], Path, int]:
    """Return the events of a run, its model and how many checkpoints were looked at: each, as soon
    as it was there.
    """
    run = TrainingRun(find_home(), request)
    events = []
    looked_at = 0
    if disturbance:
        disturb(run, *disturbance)

    def look(event: Event) -> None:
        nonlocal looked_at
        events.append(event)
        if isinstance(event, Checkpointed):
            looked_at += 1
            for path in Path(event.folder).glob("*.safetensors"):
                assert is_finite(load_file(path)), f"{path.name} of step {event.step}"

    return events, run.run(look).folder, looked_at


def last_score(events: list[Event]) -> float:
    return [event.bits_per_byte for event in events if isinstance(event, Validated)][-1]


@pytest.mark.timeout(3600)
def test_no_number_that_is_none_is_saved_or_published(
    make_request: Callable[..., TrainRequest],  # noqa: F811
    draw: random.Random,
    tell: Callable[[str], None],
) -> None:
    torch.set_num_threads(1)
    clean = last_score(train(make_request("clean", max_steps=STEPS))[0])
    counts = dict.fromkeys(("checkpoints", "skipped", "rolled back", "isolated"), 0)
    worst = 0.0

    for number in range(RUNS):
        place = draw.choice(PLACES)
        value = draw.choice(list(VALUES))
        is_isolated = place != "a weight" and draw.random() < 0.5
        first = draw.randrange(STEPS - 8)
        length = 1 if is_isolated else draw.randrange(1, 8)
        what = f"run {number}: {place} is {value} in {length} steps from {first} on"
        request = make_request(str(number), max_steps=STEPS)
        events, folder, looked_at = train(
            request, place, VALUES[value], set(range(first, first + length))
        )
        assert is_finite(load_file(folder / "model.safetensors")), what
        assert sum(isinstance(event, RolledBack) for event in events) <= MAX_ROLLBACKS + 1, what
        assert all(math.isfinite(event.loss) for event in events if isinstance(event, StepDone)), (
            what
        )
        counts["checkpoints"] += looked_at
        counts["skipped"] += sum(isinstance(event, StepSkipped) for event in events)
        counts["rolled back"] += sum(isinstance(event, RolledBack) for event in events)
        if is_isolated:
            counts["isolated"] += 1
            worst = max(worst, last_score(events) / clean)
            assert last_score(events) <= ISOLATED_LOSS * clean, what

    counted = ", ".join(f"{number} {name}" for name, number in counts.items())
    tell(
        f"{RUNS} runs, {counted}: all that was saved is finite; isolated ones score {worst:.3f} "
        "of a clean run at most"
    )

import json
import math

import pytest

from lightlm.training.events import (
    EVENTS,
    CheckpointDamaged,
    Checkpointed,
    MicroBatchReduced,
    RolledBack,
    Sampled,
    StepDone,
    StepSkipped,
    Validated,
    WorkerRestarted,
    from_json,
    to_json,
)

EXAMPLES = [
    StepDone(7, 0.5, 2.25, 0.75, 1.5, 64, 448, 0.01, 0.001),
    StepDone(7, 0.5, 2.25, 0.75, 1.5, 64, 448, 0.01, 0.001, balance_loss=2.5),
    StepSkipped(8, 0.5, math.inf, 3.0),
    Validated(8, 0.5, 2.125, 0.25),
    Sampled(8, 0.5, "The", ' "caf\u00e9" \U0001f600\n\x00'),
    Checkpointed(8, 0.5, "/runs/one/checkpoints/step-000000008", 0.1),
    MicroBatchReduced(8, 0.5, 2),
    WorkerRestarted(8, 0.5, "killed (signal 9)", 1),
    CheckpointDamaged(
        8, 0.5, "/store/quarantine/checkpoint-step-8", "model.safetensors has SHA-256 00..."
    ),
    RolledBack(8, 0.5, 5, 0.5, "3 steps in a row were not finite"),
]


@pytest.mark.parametrize("event", EXAMPLES, ids=lambda event: type(event).__name__)
def test_an_event_comes_back_from_a_line_of_json(event):
    line = json.dumps(to_json(event))
    assert "\n" not in line
    assert from_json(json.loads(line)) == event


def test_every_kind_of_event_is_among_the_examples():
    assert {type(event) for event in EXAMPLES} == set(EVENTS.values())


def test_a_loss_that_is_no_number_arrives_as_such():
    arrived = from_json(json.loads(json.dumps(to_json(StepSkipped(1, 0.0, math.nan, math.nan)))))
    assert math.isnan(arrived.loss)
    assert math.isnan(arrived.gradient_norm)


def test_what_is_no_event_is_refused():
    with pytest.raises(KeyError, match="Exploded"):
        from_json({"event": "Exploded"})

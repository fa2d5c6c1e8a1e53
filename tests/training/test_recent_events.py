import json
import math

from lightlm.training.events import Checkpointed, Sampled, StepDone, StepSkipped, Validated
from lightlm.training.recent_events import KEPT_OTHERS, KEPT_STEPS, RecentEvents


def step_done(step):
    return StepDone(step, step / 1000, 2.0, 1.0, 0.5, 64, 64 * step, 0.1, 0.0)


def test_what_a_checkpoint_keeps_is_emitted_in_the_order_of_the_steps():
    one = RecentEvents()
    told = []
    emit = one.keeping(told.append)
    events = [
        step_done(1),
        Validated(1, 0.1, 3.0, 2.0),
        Sampled(1, 0.1, "The", " end"),
        step_done(2),
    ]

    for event in events:
        emit(event)
    assert told == events
    again = []
    RecentEvents(json.loads(json.dumps(one.dump()))).replay(again.append)
    assert again == [events[0], Validated(1, 0.1, 3.0, 0.0), *events[2:]]


def test_neither_what_is_not_finite_nor_what_is_no_figure_of_the_run_is_kept():
    one = RecentEvents()
    for event in (
        StepSkipped(1, 0.1, math.nan, 1.0),
        Validated(1, 0.1, math.nan, 2.0),
        Checkpointed(1, 0.1, "f", 1.0),
    ):
        one.keep(event)
    assert one.dump() == []


def test_it_stays_small_however_long_a_run_is():
    one = RecentEvents()
    for step in range(1000):
        one.keep(step_done(step))
        one.keep(Validated(step, 0.1, 3.0, 2.0))
    kept = one.dump()
    assert len(kept) == KEPT_STEPS + KEPT_OTHERS
    assert kept[-1]["step"] == 999

from lightlm.training.events import StepDone
from lightlm.training.throttle import ThrottledSteps


def make_step(step, loss):
    return StepDone(step, step / 10, loss, 1.0, 1.0, 64, 64 * step, 0.01, 0.0)


def test_steps_left_out_are_averaged_into_the_next_that_is_emitted():
    thinned = ThrottledSteps(3600.0)
    assert list(thinned.take(make_step(1, 4.0))) == [make_step(1, 4.0)]
    assert list(thinned.take(make_step(2, 3.0))) == []
    assert list(thinned.take(make_step(3, 1.0))) == []
    assert list(thinned.flush()) == [make_step(3, 2.0)]
    assert list(thinned.flush()) == []


def test_every_step_is_emitted_when_none_is_too_soon():
    thinned = ThrottledSteps(0.0)
    assert [list(thinned.take(make_step(n, 1.0))) for n in (1, 2)] == [
        [make_step(1, 1.0)],
        [make_step(2, 1.0)],
    ]

"""The values between the stages: a start that is given up, and the name of a run's model."""

from pathlib import Path

from lightlm.budget.continuation import Start
from lightlm.params import load_params
from lightlm.runs.values import Champion, StartingPoint, begin_training

CHOICE = Start(
    version="3", scratch_bits_per_byte=2.0, continued_bits_per_byte=1.5, reason="it is better"
)


def test_a_start_from_scratch_has_the_name_that_was_settled_and_changes_no_other_param() -> None:
    params = load_params()
    start = begin_training(params, Champion("notes-2"), None)
    assert (start.name, start.version, start.folder) == ("scratch", None, None)
    assert start.params.tracking.model_name == "notes-2"
    before = params.flatten()
    changed = {name for name, value in start.params.flatten().items() if value != before[name]}
    assert changed == {"tracking.model_name"}
    assert params.tracking.model_name is None


def test_a_start_that_is_given_up_keeps_its_forecasts_and_no_weights(tmp_path: Path) -> None:
    start = StartingPoint(load_params(), CHOICE, folder=tmp_path)
    assert start.name == "version 3"
    given_up = start.from_scratch("the plan has another shape")
    assert (given_up.name, given_up.folder, given_up.version) == ("scratch", None, None)
    assert given_up.choice is not None
    assert given_up.choice.continued_bits_per_byte == 1.5
    assert given_up.choice.reason == "the plan has another shape"
    assert given_up.params is start.params

import pytest

from lightlm.errors import ParameterError
from lightlm.hours import parse_hours
from lightlm.params import load_params


@pytest.mark.parametrize(
    ("text", "hours"),
    [
        ("0.5", 0.5),
        ("0,5", 0.5),
        (".25", 0.25),
        ("1e-3", 0.001),
        ("3", 3.0),
        ("30m", 0.5),
        ("30 min", 0.5),
        ("90s", 0.025),
        ("1h", 1.0),
        ("1h30", 1.5),
        ("1h 30m", 1.5),
        ("1,5h", 1.5),
        ("1h30m36s", 1.51),
        ("2 days", 48.0),
        (" 45 minutes ", 0.75),
    ],
)
def test_a_time_is_read_as_people_write_it(text: str, hours: float) -> None:
    assert parse_hours(text) == pytest.approx(hours)


@pytest.mark.parametrize(
    "text", ["", " ", "abc", "1:30", "m30", "30x", "1h30x", "1,000.5,2", "h", "--"]
)
def test_what_is_no_time_is_refused_with_examples(text: str) -> None:
    with pytest.raises(ValueError, match="30m, 1h30 or 90s"):
        parse_hours(text)


def test_params_take_hours_as_a_time_wherever_they_come_from() -> None:
    assert load_params(hours="30m").budget.hours == 0.5
    assert load_params(overrides={"budget.hours": "1h30"}).budget.hours == 1.5
    assert load_params(overrides={"budget.hours": "0,5"}).budget.hours == 0.5
    assert load_params(hours=0.25).budget.hours == 0.25


@pytest.mark.parametrize("text", ["half", "-30m", "-1", "0", "0s", "nan", "inf", "2000000h"])
def test_params_refuse_a_time_that_is_none_or_out_of_bounds(text: str) -> None:
    with pytest.raises(ParameterError, match=r"budget\.hours"):
        load_params(hours=text)

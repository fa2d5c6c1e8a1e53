"""Counts in a sentence."""

import pytest

from lightlm.counting import count


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (count(1, "document"), "1 document"),
        (count(0, "document"), "0 documents"),
        (count(1203, "layer"), "1,203 layers"),
        (count(1, "copy", "copies"), "1 copy"),
        (count(2, "copy", "copies"), "2 copies"),
    ],
)
def test_one_thing_is_singular_and_a_thousand_have_a_comma(told: str, expected: str) -> None:
    assert told == expected

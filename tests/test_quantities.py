"""Quantities read naturally at every size."""

import pytest

from lightlm.quantities import count, format_bytes, format_count, format_seconds


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (-3, "0.0 s"), (0.26, "0.3 s"), (9.96, "10 s"), (72, "72 s"), (119.4, "119 s"),
        (120, "2 min 00 s"), (725, "12 min 05 s"), (3599.9, "1 h 00 min"), (12_000, "3 h 20 min"),
        (float("inf"), "unknown"),
    ],
)  # fmt: skip
def test_seconds(seconds: float, said: str) -> None:
    assert format_seconds(seconds) == said


@pytest.mark.parametrize(
    ("num_bytes", "said"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1_000, "1.0 kB"),
        (1_119_083, "1.1 MB"),
        (999_700, "1.0 MB"),
        (24e9, "24 GB"),
    ],
)
def test_bytes(num_bytes: float, said: str) -> None:
    assert format_bytes(num_bytes) == said


@pytest.mark.parametrize(
    ("number", "said"),
    [(0, "0"), (41_203, "41,203"), (1_623_000, "1.62 M"), (7e9, "7.00 B"), (2.5e12, "2.50 T")],
)
def test_counts(number: float, said: str) -> None:
    assert format_count(number) == said


@pytest.mark.parametrize(
    ("counted", "said"),
    [
        (count(1, "document"), "1 document"),
        (count(0, "document"), "0 documents"),
        (count(1203, "layer"), "1,203 layers"),
        (count(1, "copy", "copies"), "1 copy"),
        (count(2, "copy", "copies"), "2 copies"),
    ],
)
def test_one_thing_is_singular_and_a_thousand_have_a_comma(counted: str, said: str) -> None:
    assert counted == said

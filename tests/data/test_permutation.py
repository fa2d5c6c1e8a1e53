"""Tests of permutations: every place once, alone as in a range."""

from hypothesis import given, settings
from hypothesis import strategies as st

from lightlm.data.permutation import permute, permute_range


@given(size=st.integers(1, 3000), key=st.binary(min_size=16, max_size=16))
@settings(max_examples=60, deadline=None)
def test_a_permutation_takes_every_place_once(size: int, key: bytes) -> None:
    assert sorted(permute(index, size, key) for index in range(size)) == list(range(size))


@given(
    size=st.integers(1, 3000), key=st.binary(min_size=16, max_size=16), first=st.integers(0, 2000)
)
@settings(max_examples=60, deadline=None)
def test_a_range_is_permuted_as_each_of_its_places_alone(size: int, key: bytes, first: int) -> None:
    first = min(first, size - 1)
    wanted = [permute(index, size, key) for index in range(first, size)]
    assert permute_range(first, size, size, key).tolist() == wanted

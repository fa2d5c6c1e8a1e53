import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightlm.budget.probe import MachineRate
from lightlm.budget.vocabulary import bytes_per_token_at, choose_vocab_sizes


def machine_of(flops_per_second: float) -> MachineRate:
    return MachineRate(
        device="cpu",
        dtype="bfloat16",
        num_threads=2,
        flops_per_second=flops_per_second,
        memory_bytes=16_000_000_000,
    )


@settings(max_examples=15, deadline=None)
@given(flops=st.floats(1e9, 1e15), seconds=st.floats(1, 1e5), text=st.integers(0, 10**11))
def test_the_vocabulary_is_a_power_of_two_within_bounds(flops, seconds, text):
    sizes = choose_vocab_sizes(machine_of(flops), seconds, text)
    assert 1 <= len(sizes) <= 2
    assert all(size & (size - 1) == 0 and 512 <= size <= 65536 for size in sizes)


def test_more_time_wants_more_entries():
    found = [
        choose_vocab_sizes(machine_of(9e11), seconds, 10**10)[0]
        for seconds in (10, 100, 1000, 100_000)
    ]
    assert found == sorted(found)
    assert found[-1] > found[0]


def test_a_machine_that_trains_faster_than_its_products_promise_gets_more_entries():
    machine = machine_of(1.3e11)
    faster = machine.model_copy(update={"reference_flops_per_second": 1.4e11})
    assert (
        choose_vocab_sizes(faster, 165, 10_800_000)[0]
        > choose_vocab_sizes(machine, 165, 10_800_000)[0]
    )


def test_a_small_text_gets_a_small_vocabulary_however_long_the_time():
    assert choose_vocab_sizes(machine_of(9e11), 36_000, 100_000) == [512]


def test_counts_want_more_entries_where_the_text_is_long_enough_to_learn_them():
    slow = machine_of(1e10)
    assert max(choose_vocab_sizes(slow, 60, 10_800_000)) < 4096
    assert min(choose_vocab_sizes(slow, 60, 10_800_000, is_counted=True)) == 4096
    assert choose_vocab_sizes(slow, 60, 100_000, is_counted=True) == [512]


def test_a_token_of_a_larger_vocabulary_is_longer_and_of_a_harder_text_shorter():
    assert (
        bytes_per_token_at(8192)
        > bytes_per_token_at(1024)
        > bytes_per_token_at(1024, difficulty=1.2)
    )
    # WikiText-2 with 4,096 entries, measured: 10,807,963 bytes in 3,112,591 tokens.
    assert bytes_per_token_at(4096) == pytest.approx(10_807_963 / 3_112_591, rel=0.01)

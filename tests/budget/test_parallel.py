import pytest

from lightlm.budget.parallel import estimate_speedup
from lightlm.budget.shapes import dense_shape

MODEL = dense_shape(16_384, 12, 768, 1024)


def test_one_device_gains_nothing_and_says_nothing(machine):
    speedup = estimate_speedup(machine, 1, MODEL, 1000.0, 65_536)
    assert speedup.factor == 1.0
    assert speedup.reasons() == []


def test_processes_on_a_cpu_share_its_threads(machine):
    several = machine.model_copy(update={"num_devices": 4})
    assert estimate_speedup(several, 1, MODEL, 1000.0, 65_536).factor == 1.0


def test_more_devices_train_faster_but_never_as_many_times_as_there_are(machine):
    factors = [
        estimate_speedup(
            machine.model_copy(update={"device": "cuda", "num_devices": n}), 1, MODEL, 5e5, 524_288
        ).factor
        for n in (2, 4, 8)
    ]
    assert factors == sorted(factors)
    assert all(factor < n for factor, n in zip(factors, (2, 4, 8), strict=True))
    assert factors[0] > 1.5


def test_a_slow_link_costs_more_and_the_network_most(machine):
    cards = machine.model_copy(update={"device": "cuda", "num_devices": 8})
    fast = cards.model_copy(update={"link_bytes_per_second": 300e9})
    joined = fast.model_copy(update={"num_devices": 4})

    shares = [
        estimate_speedup(rate, nodes, MODEL, 5e5, 524_288).message_share
        for rate, nodes in ((fast, 1), (cards, 1), (joined, 2))
    ]
    assert shares == sorted(shares)
    assert shares[0] < 0.1


def test_messages_take_the_share_of_a_step_that_arithmetic_says(machine):
    cards = machine.model_copy(
        update={"device": "cuda", "num_devices": 2, "link_bytes_per_second": 1e9}
    )
    from lightlm.model.accounting import count_parameters

    messages = 4 * count_parameters(MODEL) / 1e9
    speedup = estimate_speedup(cards, 1, MODEL, 65_536 / 2 / messages, 65_536)
    assert speedup.message_share == pytest.approx(0.5)
    assert speedup.factor == pytest.approx(1.0)
    assert "messages take 50% of a step" in speedup.reasons()[0]
